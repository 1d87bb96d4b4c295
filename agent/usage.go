package agent

import "time"

// Usage is what a slice or scope uses now. Counters count since it was made and
// never go back, not even where the kernel's own do. What a kernel cannot tell is
// 0; Collectors of the host says so.
type Usage struct {
	At   time.Time `json:"at"`
	CPUs float64   `json:"cpus" doc:"Cores in use, averaged over the last sampling interval"`

	CPUSeconds       float64 `json:"cpu_seconds"`
	UserSeconds      float64 `json:"user_seconds"`
	SystemSeconds    float64 `json:"system_seconds"`
	Periods          int64   `json:"periods" doc:"Enforcement periods of the CPU limit"`
	ThrottledPeriods int64   `json:"throttled_periods" doc:"Periods in which the CPU limit was used up"`
	ThrottledSeconds float64 `json:"throttled_seconds" doc:"Summed over all cores"`

	MemoryBytes      int64 `json:"memory_bytes" doc:"memory.current"`
	MemoryPeakBytes  int64 `json:"memory_peak_bytes"`
	WorkingSetBytes  int64 `json:"working_set_bytes" doc:"memory.current less inactive_file, as the kubelet counts it"`
	AnonBytes        int64 `json:"anon_bytes"`
	FileBytes        int64 `json:"file_bytes" doc:"Page cache, tmpfs included"`
	KernelBytes      int64 `json:"kernel_bytes" doc:"Of the kernel, for the VM: slab, stacks, page tables and so on"`
	SwapBytes        int64 `json:"swap_bytes"`
	Refaults         int64 `json:"refaults" doc:"Pages read back soon after they were dropped"`
	MemoryHighEvents int64 `json:"memory_high_events"`
	MemoryMaxEvents  int64 `json:"memory_max_events"`
	OOMEvents        int64 `json:"oom_events" doc:"Allocations that the memory limit made fail or kill"`
	OOMKills         int64 `json:"oom_kills" doc:"Cloudlets killed for want of memory, by the kernel or by the agent (event vm.thrashing)"`

	PIDs         int64 `json:"pids"`
	ReadBytes    int64 `json:"read_bytes"`
	WrittenBytes int64 `json:"written_bytes"`
	ReadOps      int64 `json:"read_ops"`
	WriteOps     int64 `json:"write_ops"`
	StorageBytes int64 `json:"storage_bytes" doc:"Blocks of the VM's files, its output included"`

	GPUMemoryBytes *int64   `json:"gpu_memory_bytes,omitempty" doc:"Of the VM's processes; left out where the driver does not tell"`
	GPUBusy        *float64 `json:"gpu_busy,omitempty" doc:"1 is one GPU busy all the time; left out where the driver does not tell"`

	ReceivedBytes   int64 `json:"received_bytes" doc:"By the VM, since it was connected"`
	SentBytes       int64 `json:"sent_bytes" doc:"By the VM, before its limit"`
	ReceivedPackets int64 `json:"received_packets"`
	SentPackets     int64 `json:"sent_packets"`
	DroppedPackets  int64 `json:"dropped_packets" doc:"By the VM's link, both directions"`

	// Pressure is PSI "some avg10" as a ratio 0-1.
	CPUPressure    float64 `json:"cpu_pressure"`
	MemoryPressure float64 `json:"memory_pressure"`
	IOPressure     float64 `json:"io_pressure"`
	// And its totals: some task waited (some), none could work (full).
	CPUWaitingSeconds    float64 `json:"cpu_waiting_seconds" doc:"Time that some task waited for a core"`
	CPUStalledSeconds    float64 `json:"cpu_stalled_seconds" doc:"Time that all tasks did, the CPU limit included"`
	MemoryWaitingSeconds float64 `json:"memory_waiting_seconds"`
	MemoryStalledSeconds float64 `json:"memory_stalled_seconds"`
	IOWaitingSeconds     float64 `json:"io_waiting_seconds"`
	IOStalledSeconds     float64 `json:"io_stalled_seconds"`
}

// HostUsage is what the whole machine uses now, and the agent of it. Counters
// count since the machine booted.
type HostUsage struct {
	At                   time.Time `json:"at"`
	CPURatio             float64   `json:"cpu_ratio" doc:"Share of all cores busy, 0-1"`
	Load1                float64   `json:"load1"`
	MemoryUsedBytes      int64     `json:"memory_used_bytes" doc:"MemTotal - MemAvailable"`
	MemoryAvailableBytes int64     `json:"memory_available_bytes"`
	SwapUsedBytes        int64     `json:"swap_used_bytes"`
	StorageUsedBytes     int64     `json:"storage_used_bytes" doc:"Of the state directory's file system"`
	ReceivedBytes        int64     `json:"received_bytes" doc:"By the host's own network devices, not those of VMs"`
	SentBytes            int64     `json:"sent_bytes"`
	ReadBytes            int64     `json:"read_bytes" doc:"By whole disks"`
	WrittenBytes         int64     `json:"written_bytes"`
	CPUWaitingSeconds    float64   `json:"cpu_waiting_seconds" doc:"PSI: time that some task waited for a core"`
	MemoryWaitingSeconds float64   `json:"memory_waiting_seconds"`
	MemoryStalledSeconds float64   `json:"memory_stalled_seconds" doc:"PSI: time that all tasks did"`
	IOWaitingSeconds     float64   `json:"io_waiting_seconds"`
	IOStalledSeconds     float64   `json:"io_stalled_seconds"`
	AgentCPUSeconds      float64   `json:"agent_cpu_seconds"`
	AgentMemoryBytes     int64     `json:"agent_memory_bytes" doc:"Resident set of the agent"`
	AgentGoroutines      int       `json:"agent_goroutines"`
	AgentDescriptors     int       `json:"agent_descriptors" doc:"Open files of the agent"`

	Collectors map[string]Collector `json:"collectors" doc:"How reading went last: host, vms, network, gpu, storage, pressure, pagemap"`
}

// Collector is how one kind of reading went the last time.
type Collector struct {
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds" doc:"How long it took"`
	Error   string  `json:"error,omitempty" doc:"What was in the way"`
}

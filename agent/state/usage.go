package state

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

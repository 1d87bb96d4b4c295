package agent

import "time"

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

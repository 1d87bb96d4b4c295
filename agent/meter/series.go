package meter

// The series of a VM's history, in the order they are stored.
const (
	vmCPUs = iota
	vmThrottled
	vmMemory
	vmWorkingSet
	vmAnon
	vmFile
	vmReceived
	vmSent
	vmRead
	vmWritten
	vmOps
	vmPIDs
	vmCPUPressure
	vmMemoryPressure
	vmIOPressure
	vmGPUBusy
	vmGPUMemory
	vmCPUsLimit
	vmMemoryLimit
	vmBandwidthLimit
	vmMemoryHigh
	vmStorage
	vmStorageLimit
	vmSeries
)

// The series of the host's history.
const (
	hostCPU = iota
	hostMemory
	hostReceived
	hostSent
	hostRead
	hostWritten
	hostCPUPressure
	hostMemoryPressure
	hostIOPressure
	hostAgentCPUs
	hostAgentMemory
	hostFragmentation
	hostVMs
	hostSeries
)

// A series has a name with its unit; bytes are rounded in powers of two.
type series struct {
	name  string
	bytes bool
}

func vmSeriesList() []series {
	return []series{
		vmCPUs: {name: "cpus"}, vmThrottled: {name: "cpu_throttled_ratio"},
		vmMemory: {"memory_bytes", true}, vmWorkingSet: {"working_set_bytes", true}, vmAnon: {"anon_bytes", true}, vmFile: {"file_bytes", true},
		vmReceived: {name: "received_bps"}, vmSent: {name: "sent_bps"},
		vmRead: {"read_bytes_per_second", true}, vmWritten: {"written_bytes_per_second", true}, vmOps: {name: "iops"}, vmPIDs: {name: "pids"},
		vmCPUPressure: {name: "cpu_pressure"}, vmMemoryPressure: {name: "memory_pressure"}, vmIOPressure: {name: "io_pressure"},
		vmGPUBusy: {name: "gpu_busy"}, vmGPUMemory: {"gpu_memory_bytes", true},
		vmCPUsLimit: {name: "cpus_limit"}, vmMemoryLimit: {"memory_limit_bytes", true}, vmBandwidthLimit: {name: "bandwidth_limit_bps"},
		vmMemoryHigh: {"memory_high_bytes", true}, vmStorage: {"storage_bytes", true}, vmStorageLimit: {"storage_limit_bytes", true},
	}
}

func hostSeriesList() []series {
	return []series{
		hostCPU: {name: "cpu_ratio"}, hostMemory: {"memory_used_bytes", true},
		hostReceived: {name: "received_bps"}, hostSent: {name: "sent_bps"},
		hostRead: {"read_bytes_per_second", true}, hostWritten: {"written_bytes_per_second", true},
		hostCPUPressure: {name: "cpu_pressure"}, hostMemoryPressure: {name: "memory_pressure"}, hostIOPressure: {name: "io_pressure"},
		hostAgentCPUs: {name: "agent_cpus"}, hostAgentMemory: {"agent_memory_bytes", true},
		hostFragmentation: {name: "fragmentation_ratio"}, hostVMs: {name: "vms"},
	}
}

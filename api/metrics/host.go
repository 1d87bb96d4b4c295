package metrics

import (
	"cloudflash/agent"
)

// hostFamilies are the metrics of the machine and of the agent on it.
var hostFamilies = []family[agent.Host]{
	rows(gaugeKind, "host_info", "1; what this machine is, by uname and /etc/os-release.", func(h *agent.Host, row func(string, float64)) {
		row(label("name", h.Name)+","+label("kernel", h.Kernel)+","+label("os", h.OS), 1)
	}),
	gauge("host_boot_timestamp_seconds", "When the machine booted, btime of /proc/stat.", func(h *agent.Host) float64 {
		return float64(h.Usage.At.UnixMilli())/1000 - h.UptimeSeconds
	}),
	gauge("host_cpus", "Cores of the host.", func(h *agent.Host) float64 { return float64(h.CPUs) }),
	gauge("host_cpu_ratio", "Share of all cores busy, /proc/stat.", func(h *agent.Host) float64 { return h.Usage.CPURatio }),
	gauge("host_load1", "Load average over one minute, /proc/loadavg.", func(h *agent.Host) float64 { return h.Usage.Load1 }),
	gauge("host_memory_bytes", "Memory of the host, MemTotal of /proc/meminfo.", func(h *agent.Host) float64 { return float64(h.MemoryBytes) }),
	gauge("host_memory_used_bytes", "MemTotal less MemAvailable of /proc/meminfo.", func(h *agent.Host) float64 { return float64(h.Usage.MemoryUsedBytes) }),
	gauge("host_memory_available_bytes", "MemAvailable of /proc/meminfo.", func(h *agent.Host) float64 { return float64(h.Usage.MemoryAvailableBytes) }),
	gauge("host_swap_used_bytes", "SwapTotal less SwapFree of /proc/meminfo.", func(h *agent.Host) float64 { return float64(h.Usage.SwapUsedBytes) }),
	gauge("host_storage_bytes", "Size of the state directory's file system, statfs.", func(h *agent.Host) float64 { return float64(h.StorageBytes) }),
	gauge("host_storage_used_bytes", "Used of the state directory's file system, statfs.", func(h *agent.Host) float64 { return float64(h.Usage.StorageUsedBytes) }),
	counter("host_network_receive_bytes_total", "Received by the host's own network devices, /proc/net/dev; not those of VMs.", func(h *agent.Host) float64 { return float64(h.Usage.ReceivedBytes) }),
	counter("host_network_transmit_bytes_total", "Sent by the host's own network devices, /proc/net/dev; not those of VMs.", func(h *agent.Host) float64 { return float64(h.Usage.SentBytes) }),
	counter("host_io_read_bytes_total", "Read from whole disks, /proc/diskstats.", func(h *agent.Host) float64 { return float64(h.Usage.ReadBytes) }),
	counter("host_io_written_bytes_total", "Written to whole disks, /proc/diskstats.", func(h *agent.Host) float64 { return float64(h.Usage.WrittenBytes) }),
	counter("host_pressure_cpu_waiting_seconds_total", "Time that some task waited for a core: PSI some total of /proc/pressure/cpu.", func(h *agent.Host) float64 { return h.Usage.CPUWaitingSeconds }),
	counter("host_pressure_memory_waiting_seconds_total", "Time that some task waited for memory: PSI some total of /proc/pressure/memory.", func(h *agent.Host) float64 { return h.Usage.MemoryWaitingSeconds }),
	counter("host_pressure_memory_stalled_seconds_total", "Time that all tasks waited for memory: PSI full total of /proc/pressure/memory.", func(h *agent.Host) float64 { return h.Usage.MemoryStalledSeconds }),
	counter("host_pressure_io_waiting_seconds_total", "Time that some task waited for IO: PSI some total of /proc/pressure/io.", func(h *agent.Host) float64 { return h.Usage.IOWaitingSeconds }),
	counter("host_pressure_io_stalled_seconds_total", "Time that all tasks waited for IO: PSI full total of /proc/pressure/io.", func(h *agent.Host) float64 { return h.Usage.IOStalledSeconds }),

	gauge("host_capacity_cores", "Cores that all VMs together may be promised, by configuration.", func(h *agent.Host) float64 { return h.Capacity.CPUs }),
	gauge("host_capacity_memory_bytes", "Memory that all VMs together may be promised, by configuration.", func(h *agent.Host) float64 { return float64(h.Capacity.MemoryBytes) }),
	gauge("host_capacity_storage_bytes", "Storage that all VMs together may be promised, by configuration.", func(h *agent.Host) float64 { return float64(h.Capacity.StorageBytes) }),
	gauge("host_capacity_gpus", "GPUs that can be given to VMs.", func(h *agent.Host) float64 { return float64(h.Capacity.GPUs) }),
	gauge("host_promised_cores", "Cores promised to VMs.", func(h *agent.Host) float64 { return h.Reserved.CPUs }),
	gauge("host_promised_memory_bytes", "Memory promised to VMs.", func(h *agent.Host) float64 { return float64(h.Reserved.MemoryBytes) }),
	gauge("host_promised_storage_bytes", "Storage promised to VMs.", func(h *agent.Host) float64 { return float64(h.Reserved.StorageBytes) }),
	gauge("host_promised_gpus", "GPUs given to VMs.", func(h *agent.Host) float64 { return float64(h.Reserved.GPUs) }),
	gauge("vms", "VMs on the host.", func(h *agent.Host) float64 { return float64(h.VMs) }),

	gauge("agent_start_timestamp_seconds", "When the agent began; counts of the agent's own begin with it.", func(h *agent.Host) float64 { return float64(h.AgentStartedAt.UnixMilli()) / 1000 }),
	counter("agent_cpu_seconds_total", "CPU time of the agent, /proc/self/stat.", func(h *agent.Host) float64 { return h.Usage.AgentCPUSeconds }),
	gauge("agent_memory_bytes", "Resident set of the agent, /proc/self/statm.", func(h *agent.Host) float64 { return float64(h.Usage.AgentMemoryBytes) }),
	gauge("agent_goroutines", "Goroutines of the agent.", func(h *agent.Host) float64 { return float64(h.Usage.AgentGoroutines) }),
	gauge("agent_descriptors", "Open files of the agent, /proc/self/fd.", func(h *agent.Host) float64 { return float64(h.Usage.AgentDescriptors) }),

	// Names that users of CloudFlash's predecessor know.
	gauge("cpu_usage_percent", "As cloudflash_host_cpu_ratio, in percent; kept for old dashboards.", func(h *agent.Host) float64 { return h.Usage.CPURatio * 100 }),
	gauge("memory_usage_bytes", "As cloudflash_host_memory_used_bytes; kept for old dashboards.", func(h *agent.Host) float64 { return float64(h.Usage.MemoryUsedBytes) }),
	gauge("memory_total_bytes", "As cloudflash_host_memory_bytes; kept for old dashboards.", func(h *agent.Host) float64 { return float64(h.MemoryBytes) }),
}

// build is what /metrics tells before there is a snapshot.
type build struct{ version string }

var buildFamilies = []family[build]{
	rows(gaugeKind, "build_info", "1; the agent's version.", func(b *build, row func(string, float64)) { row(label("version", b.version), 1) }),
}

var snapshotFamilies = []family[agent.Snapshot]{
	gauge("snapshot_timestamp_seconds", "When the numbers of this page were read; they are read once a second.", func(s *agent.Snapshot) float64 { return float64(s.At.UnixMilli()) / 1000 }),
}

package metrics

import "cloudflash/agent"

// vmFamilies are the metrics of a VM, with the label vm. A test holds them to
// vmBudget series.
var vmFamilies = []family[agent.VM]{
	rows(gaugeKind, "vm_info", "1; the name and image of a VM, to be joined on vm.", func(v *agent.VM, row func(string, float64)) {
		row(label("name", v.Name)+","+label("image", v.Image), 1)
	}),
	split(gauge("vm_state", "1 for the state that a VM is in, 0 for the others.", none[agent.VM]), "state",
		inState(agent.VMCreating), inState(agent.VMRunning), inState(agent.VMFrozen), inState(agent.VMDeleting), inState(agent.VMFailed)),
	gauge("vm_created_timestamp_seconds", "When the VM was created.", func(v *agent.VM) float64 { return float64(v.CreatedAt.UnixMilli()) / 1000 }),
	gauge("vm_idle_since_timestamp_seconds", "When the VM last showed a sign of life; no series while it does.", func(v *agent.VM) float64 {
		if v.IdleSince == nil {
			return absent
		}
		return float64(v.IdleSince.UnixMilli()) / 1000
	}),
	gauge("vm_idle_delete_timestamp_seconds", "When the VM is deleted unless it gets busy; no series while that is not announced.", func(v *agent.VM) float64 {
		if v.Autoscale.DeleteAt == nil {
			return absent
		}
		return float64(v.Autoscale.DeleteAt.UnixMilli()) / 1000
	}),
	rows(gaugeKind, "vm_autoscale_mode", "1; the mode of the VM's autoscaling: auto where any of its limits is scaled, recommend where that is only shown, else off.", func(v *agent.VM, row func(string, float64)) {
		if v.Autoscale.Mode != "" {
			row(label("mode", v.Autoscale.Mode), 1)
		}
	}),
	gauge("vm_cloudlets", "Cloudlets that are starting, running or frozen in the VM.", func(v *agent.VM) float64 { return float64(v.Cloudlets) }),

	split(counter("vm_cpu_seconds_total", "CPU time, user_usec and system_usec of cpu.stat.", none[agent.VM]), "mode",
		value[agent.VM]{"user", func(v *agent.VM) float64 { return v.Usage.UserSeconds }},
		value[agent.VM]{"system", func(v *agent.VM) float64 { return v.Usage.SystemSeconds }}),
	counter("vm_cpu_throttled_seconds_total", "Time that tasks stood still because the CPU limit was used up, summed over cores: throttled_usec of cpu.stat.", func(v *agent.VM) float64 { return v.Usage.ThrottledSeconds }),
	counter("vm_cpu_periods_total", "Enforcement periods of the CPU limit, nr_periods of cpu.stat.", func(v *agent.VM) float64 { return float64(v.Usage.Periods) }),
	counter("vm_cpu_throttled_periods_total", "Those in which it was used up, nr_throttled of cpu.stat.", func(v *agent.VM) float64 { return float64(v.Usage.ThrottledPeriods) }),
	gauge("vm_cpu_limit_cores", "CPU limit, cpu.max.", func(v *agent.VM) float64 { return optional(v.Limits.CPUs) }),

	gauge("vm_memory_current_bytes", "Memory in use, page cache included: memory.current.", func(v *agent.VM) float64 { return float64(v.Usage.MemoryBytes) }),
	split(gauge("vm_memory_bytes", "Parts of memory.current by kind: anon, file and kernel of memory.stat; refreshed every 5 s.", none[agent.VM]), "kind",
		value[agent.VM]{"anon", func(v *agent.VM) float64 { return float64(v.Usage.AnonBytes) }},
		value[agent.VM]{"file", func(v *agent.VM) float64 { return float64(v.Usage.FileBytes) }},
		value[agent.VM]{"kernel", func(v *agent.VM) float64 { return float64(v.Usage.KernelBytes) }}),
	gauge("vm_memory_working_set_bytes", "memory.current less inactive_file of memory.stat, as the kubelet counts it.", func(v *agent.VM) float64 { return float64(v.Usage.WorkingSetBytes) }),
	gauge("vm_memory_peak_bytes", "Most memory ever in use: memory.peak; 0 before Linux 5.19.", func(v *agent.VM) float64 { return float64(v.Usage.MemoryPeakBytes) }),
	gauge("vm_memory_limit_bytes", "Memory limit, memory.max.", func(v *agent.VM) float64 { return optional(v.Limits.MemoryBytes) }),
	gauge("vm_memory_high_bytes", "Where reclaim begins, memory.high.", func(v *agent.VM) float64 { return optional(v.Limits.MemoryHighBytes) }),
	gauge("vm_swap_bytes", "Swap in use, memory.swap.current.", func(v *agent.VM) float64 { return float64(v.Usage.SwapBytes) }),
	gauge("vm_swap_limit_bytes", "Swap limit, memory.swap.max.", func(v *agent.VM) float64 { return optional(v.Limits.SwapBytes) }),
	split(counter("vm_memory_events_total", "How often memory ran short, by event: memory.events.", none[agent.VM]), "event",
		value[agent.VM]{"high", func(v *agent.VM) float64 { return float64(v.Usage.MemoryHighEvents) }},
		value[agent.VM]{"max", func(v *agent.VM) float64 { return float64(v.Usage.MemoryMaxEvents) }},
		value[agent.VM]{"oom", func(v *agent.VM) float64 { return float64(v.Usage.OOMEvents) }}),
	counter("vm_oom_kills_total", "Cloudlets killed for want of memory: oom_group_kill of memory.events, and those that the agent killed because the VM thrashed.", func(v *agent.VM) float64 { return float64(v.Usage.OOMKills) }),
	counter("vm_memory_refault_pages_total", "Pages read back soon after they were dropped, workingset_refault_anon and _file of memory.stat.", func(v *agent.VM) float64 { return float64(v.Usage.Refaults) }),

	counter("vm_pressure_cpu_waiting_seconds_total", "Time that some task waited for a core: PSI some total of cpu.pressure.", func(v *agent.VM) float64 { return v.Usage.CPUWaitingSeconds }),
	counter("vm_pressure_cpu_stalled_seconds_total", "Time that all tasks waited for a core, the VM's own CPU limit included: PSI full total of cpu.pressure.", func(v *agent.VM) float64 { return v.Usage.CPUStalledSeconds }),
	counter("vm_pressure_memory_waiting_seconds_total", "Time that some task waited for memory: PSI some total of memory.pressure.", func(v *agent.VM) float64 { return v.Usage.MemoryWaitingSeconds }),
	counter("vm_pressure_memory_stalled_seconds_total", "Time that all tasks waited for memory: PSI full total of memory.pressure.", func(v *agent.VM) float64 { return v.Usage.MemoryStalledSeconds }),
	counter("vm_pressure_io_waiting_seconds_total", "Time that some task waited for IO: PSI some total of io.pressure.", func(v *agent.VM) float64 { return v.Usage.IOWaitingSeconds }),
	counter("vm_pressure_io_stalled_seconds_total", "Time that all tasks waited for IO: PSI full total of io.pressure.", func(v *agent.VM) float64 { return v.Usage.IOStalledSeconds }),
	gauge("vm_pressure_cpu_waiting_ratio", "Share of the last 10 s that some task waited for a core: PSI some avg10 of cpu.pressure.", func(v *agent.VM) float64 { return v.Usage.CPUPressure }),
	gauge("vm_pressure_memory_waiting_ratio", "The same of memory.pressure.", func(v *agent.VM) float64 { return v.Usage.MemoryPressure }),
	gauge("vm_pressure_io_waiting_ratio", "The same of io.pressure.", func(v *agent.VM) float64 { return v.Usage.IOPressure }),

	counter("vm_io_read_bytes_total", "Read from disks, rbytes of io.stat over all of them; refreshed every 5 s.", func(v *agent.VM) float64 { return float64(v.Usage.ReadBytes) }),
	counter("vm_io_written_bytes_total", "Written to disks, wbytes of io.stat; refreshed every 5 s.", func(v *agent.VM) float64 { return float64(v.Usage.WrittenBytes) }),
	counter("vm_io_reads_total", "Read operations, rios of io.stat; refreshed every 5 s.", func(v *agent.VM) float64 { return float64(v.Usage.ReadOps) }),
	counter("vm_io_writes_total", "Write operations, wios of io.stat; refreshed every 5 s.", func(v *agent.VM) float64 { return float64(v.Usage.WriteOps) }),
	gauge("vm_storage_bytes", "Blocks of the VM's files, by its project quota; refreshed every 5 s.", func(v *agent.VM) float64 { return float64(v.Usage.StorageBytes) }),
	gauge("vm_storage_limit_bytes", "Hard limit of the project quota.", func(v *agent.VM) float64 { return optional(v.Limits.StorageBytes) }),

	counter("vm_network_receive_bytes_total", "Received by the VM, from the counters of its link on the host (RTM_GETSTATS).", func(v *agent.VM) float64 { return float64(v.Usage.ReceivedBytes) }),
	counter("vm_network_transmit_bytes_total", "Sent by the VM, before its limit (RTM_GETSTATS).", func(v *agent.VM) float64 { return float64(v.Usage.SentBytes) }),
	counter("vm_network_receive_packets_total", "Packets received by the VM (RTM_GETSTATS).", func(v *agent.VM) float64 { return float64(v.Usage.ReceivedPackets) }),
	counter("vm_network_transmit_packets_total", "Packets sent by the VM (RTM_GETSTATS).", func(v *agent.VM) float64 { return float64(v.Usage.SentPackets) }),
	counter("vm_network_dropped_packets_total", "Packets dropped by the VM's link, both directions (RTM_GETSTATS).", func(v *agent.VM) float64 { return float64(v.Usage.DroppedPackets) }),
	gauge("vm_network_limit_bytes_per_second", "Limit in each direction.", func(v *agent.VM) float64 { return optional(v.Limits.BandwidthBPS) / 8 }),

	gauge("vm_pids", "Processes and threads, pids.current.", func(v *agent.VM) float64 { return float64(v.Usage.PIDs) }),
	gauge("vm_pids_limit", "pids.max, less what the VM's init is given beside.", func(v *agent.VM) float64 { return optional(v.Limits.PIDs) }),
	gauge("vm_gpus", "GPUs that are the VM's own.", func(v *agent.VM) float64 { return float64(len(v.GPUs)) }),
	gauge("vm_gpu_memory_bytes", "GPU memory of the VM's processes, from NVML or the DRM fdinfo.", func(v *agent.VM) float64 { return optional(v.Usage.GPUMemoryBytes) }),
	gauge("vm_gpu_busy", "GPUs kept busy by the VM's processes, from NVML or the DRM fdinfo; 1 is one GPU all the time.", func(v *agent.VM) float64 { return optional(v.Usage.GPUBusy) }),
}

// vmBudget is the most series that a VM may have.
const vmBudget = 60

// none is the value of a family that is about to be split.
func none[T any](*T) float64 { return absent }

func inState(s agent.VMState) value[agent.VM] {
	return value[agent.VM]{string(s), func(v *agent.VM) float64 {
		if v.State == s {
			return 1
		}
		return 0
	}}
}

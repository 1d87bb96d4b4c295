package metrics

import (
	"cloudflash/agent"
	"github.com/prometheus/client_golang/prometheus"
)

// collector turns one snapshot into metrics at each scrape.
type collector struct {
	source  Source
	version string
}

// metric is one family and where its value comes from.
type metric[T any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(T) float64
}

func gauge[T any](name, help string, labels []string, value func(T) float64) metric[T] {
	return metric[T]{prometheus.NewDesc("cloudflash_"+name, help, labels, nil), prometheus.GaugeValue, value}
}

func counter[T any](name, help string, labels []string, value func(T) float64) metric[T] {
	return metric[T]{prometheus.NewDesc("cloudflash_"+name, help, labels, nil), prometheus.CounterValue, value}
}

// absent marks a limit that is not set: no series rather than a false number.
const absent = -1

func optional[N int64 | float64](n *N) float64 {
	if n == nil {
		return absent
	}
	return float64(*n)
}

var (
	vmLabel = []string{"vm"}

	buildInfo = prometheus.NewDesc("cloudflash_build_info", "1; the agent's version.", []string{"version"}, nil)
	vmInfo    = prometheus.NewDesc("cloudflash_vm_info", "1; the name, image and state of a VM.", []string{"vm", "name", "image", "state"}, nil)
	cloudlets = prometheus.NewDesc("cloudflash_cloudlets", "Cloudlets that are remembered, by state.", []string{"state"}, nil)
	sampledAt = prometheus.NewDesc("cloudflash_snapshot_timestamp_seconds", "When these numbers were read.", nil, nil)
)

var cloudletStates = []agent.CloudletState{agent.CloudletQueued, agent.CloudletStarting, agent.CloudletRunning, agent.CloudletFrozen, agent.CloudletSucceeded,
	agent.CloudletFailed, agent.CloudletCancelled, agent.CloudletDeadlineExceeded, agent.CloudletLost}

var hostMetrics = []metric[agent.Host]{
	gauge("host_cpus", "Cores of the host.", nil, func(h agent.Host) float64 { return float64(h.CPUs) }),
	gauge("host_cpu_ratio", "Share of all cores busy, from /proc/stat.", nil, func(h agent.Host) float64 { return h.Usage.CPURatio }),
	gauge("host_load1", "Load average over one minute.", nil, func(h agent.Host) float64 { return h.Usage.Load1 }),
	gauge("host_memory_bytes", "Memory of the host, MemTotal.", nil, func(h agent.Host) float64 { return float64(h.MemoryBytes) }),
	gauge("host_memory_available_bytes", "MemAvailable of /proc/meminfo.", nil, func(h agent.Host) float64 { return float64(h.Usage.MemoryAvailableBytes) }),
	gauge("host_storage_bytes", "Size of the state directory's file system.", nil, func(h agent.Host) float64 { return float64(h.StorageBytes) }),
	gauge("host_storage_used_bytes", "Used of the state directory's file system.", nil, func(h agent.Host) float64 { return float64(h.Usage.StorageUsedBytes) }),
	gauge("host_promised_cpus", "Cores promised to VMs.", nil, func(h agent.Host) float64 { return h.Reserved.CPUs }),
	gauge("host_promised_memory_bytes", "Memory promised to VMs.", nil, func(h agent.Host) float64 { return float64(h.Reserved.MemoryBytes) }),
	gauge("host_promised_storage_bytes", "Storage promised to VMs.", nil, func(h agent.Host) float64 { return float64(h.Reserved.StorageBytes) }),
	gauge("vms", "VMs on the host.", nil, func(h agent.Host) float64 { return float64(h.VMs) }),
	// Names that users of CloudFlash's predecessor know.
	gauge("cpu_usage_percent", "As cloudflash_host_cpu_ratio, in percent; kept for old dashboards.", nil, func(h agent.Host) float64 { return h.Usage.CPURatio * 100 }),
	gauge("memory_usage_bytes", "MemTotal - MemAvailable; kept for old dashboards.", nil, func(h agent.Host) float64 { return float64(h.Usage.MemoryUsedBytes) }),
	gauge("memory_total_bytes", "As cloudflash_host_memory_bytes; kept for old dashboards.", nil, func(h agent.Host) float64 { return float64(h.MemoryBytes) }),
}

var vmMetrics = []metric[agent.VM]{
	counter("vm_cpu_seconds_total", "CPU time, usage_usec of cpu.stat.", vmLabel, func(v agent.VM) float64 { return v.Usage.CPUSeconds }),
	counter("vm_cpu_throttled_seconds_total", "Time that tasks stood still because the quota was used up, throttled_usec of cpu.stat.", vmLabel, func(v agent.VM) float64 { return v.Usage.ThrottledSeconds }),
	gauge("vm_cpu_limit_cores", "Limit by cpu.max.", vmLabel, func(v agent.VM) float64 { return optional(v.Limits.CPUs) }),
	gauge("vm_memory_bytes", "memory.current, page cache included.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.MemoryBytes) }),
	gauge("vm_memory_peak_bytes", "memory.peak.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.MemoryPeakBytes) }),
	gauge("vm_memory_limit_bytes", "memory.max.", vmLabel, func(v agent.VM) float64 { return optional(v.Limits.MemoryBytes) }),
	counter("vm_oom_kills_total", "Cloudlets that the OOM killer took, oom_group_kill of memory.events.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.OOMKills) }),
	gauge("vm_pids", "Processes and threads, pids.current.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.PIDs) }),
	gauge("vm_pids_limit", "pids.max, less what the VM's init is given beside.", vmLabel, func(v agent.VM) float64 { return optional(v.Limits.PIDs) }),
	counter("vm_io_read_bytes_total", "rbytes of io.stat; refreshed every 5 s.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.ReadBytes) }),
	counter("vm_io_written_bytes_total", "wbytes of io.stat; refreshed every 5 s.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.WrittenBytes) }),
	gauge("vm_storage_bytes", "Blocks of the VM's files, by its project quota; refreshed every 5 s.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.StorageBytes) }),
	gauge("vm_storage_limit_bytes", "Hard limit of the project quota.", vmLabel, func(v agent.VM) float64 { return optional(v.Limits.StorageBytes) }),
	counter("vm_network_receive_bytes_total", "Received by the VM, from the counters of its link on the host.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.ReceivedBytes) }),
	counter("vm_network_transmit_bytes_total", "Sent by the VM, before its limit.", vmLabel, func(v agent.VM) float64 { return float64(v.Usage.SentBytes) }),
	gauge("vm_network_limit_bits_per_second", "Limit in each direction.", vmLabel, func(v agent.VM) float64 { return optional(v.Limits.BandwidthBPS) }),
	gauge("vm_gpu_memory_bytes", "GPU memory of the VM's processes, from NVML or fdinfo.", vmLabel, func(v agent.VM) float64 { return optional(v.Usage.GPUMemoryBytes) }),
	gauge("vm_gpu_busy", "GPUs kept busy by the VM's processes.", vmLabel, func(v agent.VM) float64 { return optional(v.Usage.GPUBusy) }),
	gauge("vm_pressure_cpu_waiting_ratio", "PSI some avg10 of cpu.pressure.", vmLabel, func(v agent.VM) float64 { return v.Usage.CPUPressure }),
	gauge("vm_pressure_memory_waiting_ratio", "PSI some avg10 of memory.pressure.", vmLabel, func(v agent.VM) float64 { return v.Usage.MemoryPressure }),
	gauge("vm_pressure_io_waiting_ratio", "PSI some avg10 of io.pressure.", vmLabel, func(v agent.VM) float64 { return v.Usage.IOPressure }),
	gauge("vm_cloudlets", "Cloudlets that are starting, running or frozen in the VM.", vmLabel, func(v agent.VM) float64 { return float64(v.Cloudlets) }),
}

// Describe tells the registry every family.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, vmInfo, cloudlets, sampledAt} {
		ch <- d
	}
	for _, m := range hostMetrics {
		ch <- m.desc
	}
	for _, m := range vmMetrics {
		ch <- m.desc
	}
}

// Collect sends the values of one snapshot. Before the first there are none.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	one := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	one(buildInfo, 1, c.version)
	snap := c.source.Snapshot()
	if snap == nil {
		return
	}
	one(sampledAt, float64(snap.At.UnixMilli())/1000)
	for _, state := range cloudletStates {
		one(cloudlets, float64(snap.Host.CloudletsByState[state]), string(state))
	}
	send(ch, hostMetrics, snap.Host)
	for _, v := range snap.VMs {
		one(vmInfo, 1, v.ID, v.Name, v.Image, string(v.State))
		send(ch, vmMetrics, v, v.ID)
	}
}

func send[T any](ch chan<- prometheus.Metric, all []metric[T], from T, labels ...string) {
	for _, m := range all {
		if v := m.value(from); v != absent {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
		}
	}
}

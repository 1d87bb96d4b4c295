package agent

import (
	"math"

	"cloudflash/agent/meter"
)

// usageOf is a sample as the API has it.
func usageOf(s meter.Sample) Usage {
	n := func(c meter.Count) int64 { return int64(min(s.Counters[c], math.MaxInt64)) }
	seconds := func(c meter.Count) float64 { return float64(s.Counters[c]) / 1e6 }
	return Usage{
		At: s.At.UTC(), CPUs: s.CPUs, CPUSeconds: seconds(meter.CPUTime), UserSeconds: seconds(meter.UserTime), SystemSeconds: seconds(meter.SystemTime),
		Periods: n(meter.Periods), ThrottledPeriods: n(meter.ThrottledPeriods), ThrottledSeconds: seconds(meter.ThrottledTime),
		MemoryBytes: s.Memory, MemoryPeakBytes: s.MemoryPeak, WorkingSetBytes: s.WorkingSet,
		AnonBytes: s.Anon, FileBytes: s.File, KernelBytes: s.Kernel, SwapBytes: s.Swap, Refaults: n(meter.Refaults),
		MemoryHighEvents: n(meter.MemoryHigh), MemoryMaxEvents: n(meter.MemoryMax), OOMEvents: n(meter.OOMs), OOMKills: n(meter.OOMKills),
		PIDs: s.PIDs, ReadBytes: n(meter.ReadBytes), WrittenBytes: n(meter.WrittenBytes), ReadOps: n(meter.ReadOps), WriteOps: n(meter.WriteOps),
		ReceivedBytes: n(meter.ReceivedBytes), SentBytes: n(meter.SentBytes),
		ReceivedPackets: n(meter.ReceivedPackets), SentPackets: n(meter.SentPackets), DroppedPackets: n(meter.DroppedPackets),
		CPUPressure: s.CPUAvg10, MemoryPressure: s.MemoryAvg10, IOPressure: s.IOAvg10,
		CPUWaitingSeconds: seconds(meter.CPUWaiting), CPUStalledSeconds: seconds(meter.CPUStalled),
		MemoryWaitingSeconds: seconds(meter.MemoryWaiting), MemoryStalledSeconds: seconds(meter.MemoryStalled),
		IOWaitingSeconds: seconds(meter.IOWaiting), IOStalledSeconds: seconds(meter.IOStalled),
	}
}

func hostUsageOf(s meter.HostSample, collectors map[string]meter.Collector) HostUsage {
	u := HostUsage{
		At: s.At.UTC(), CPURatio: s.CPURatio, Load1: s.Load1, MemoryUsedBytes: s.MemoryUsed, MemoryAvailableBytes: s.MemoryAvailable,
		SwapUsedBytes: s.SwapUsed, StorageUsedBytes: s.StorageUsed,
		ReceivedBytes: int64(s.Network.In), SentBytes: int64(s.Network.Out), ReadBytes: int64(s.Disk.In), WrittenBytes: int64(s.Disk.Out),
		CPUWaitingSeconds: s.CPUWaiting.Seconds(), MemoryWaitingSeconds: s.MemoryWaiting.Seconds(), MemoryStalledSeconds: s.MemoryStalled.Seconds(),
		IOWaitingSeconds: s.IOWaiting.Seconds(), IOStalledSeconds: s.IOStalled.Seconds(),
		AgentCPUSeconds: s.AgentCPU.Seconds(), AgentMemoryBytes: s.AgentMemory, AgentGoroutines: s.AgentGoroutines, AgentDescriptors: s.AgentDescriptors,
		Collectors: make(map[string]Collector, len(collectors)),
	}
	for name, c := range collectors {
		u.Collectors[name] = Collector(c)
	}
	return u
}

package autoscale

import "time"

// A Sample is what one look at a VM saw. Counters are totals that never go back.
type Sample struct {
	At time.Time

	CPUSeconds        float64
	Periods           int64
	ThrottledPeriods  int64
	CPUWaitingSeconds float64 // PSI some: a task waited for a core
	CPUStalledSeconds float64 // PSI full: none had one, the quota included

	MemoryBytes          int64 // memory.current
	WorkingSetBytes      int64 // memory.current less inactive_file
	UnreclaimableBytes   int64 // anon (without swap), unevictable, slab_unreclaimable, kernel stacks
	SwapBytes            int64
	Refaults             int64 // pages, anon and file
	MemoryHighEvents     int64
	MemoryMaxEvents      int64
	OOMKills             int64
	MemoryWaitingSeconds float64
	MemoryStalledSeconds float64
	IOWaitingSeconds     float64
	// StatAt is when memory.stat was read, which may be seconds before At; zero is At.
	StatAt time.Time

	ReadBytes, WrittenBytes int64
	ReadOps, WriteOps       int64
	IOAt                    time.Time // when io.stat was read; zero is At
	ReceivedBytes           int64
	SentBytes               int64
	DroppedPackets          int64
	StorageBytes            int64

	// What could not be read. Nothing is shrunk on what is not known.
	NoPressure bool // PSI is off
	NoCPU      bool
	NoMemory   bool
	NoIO       bool
	NoNetwork  bool
	NoStorage  bool
}

// rates are two samples compared.
type rates struct {
	dt         time.Duration
	cpus       float64 // cores in use
	throttled  float64 // share of periods
	anyPeriods bool    // enough to tell
	cpuStalled float64 // shares of the time
	cpuWaiting float64
	memWaiting float64
	memStalled float64
	ioWaiting  float64
	refaults   float64 // pages per second
	highEvents int64
	maxEvents  int64
	oomKills   int64
	memGrowth  float64 // bytes per second
	dropped    int64
	flow       [Resources]float64 // bandwidth and IO
	flowFresh  bool               // io.stat is new
	statFresh  bool
	workingSet float64 // bytes, what grew since memory.stat was read included
}

func share(seconds, dt float64) float64 { return min(max(seconds/dt, 0), 1) }

func grown(before, after int64) float64 { return float64(max(after-before, 0)) }

// compare works out what happened between two samples.
func compare(a, b *Sample, io *Sample) rates {
	d := b.At.Sub(a.At)
	dt := d.Seconds()
	r := rates{
		dt:         d,
		cpus:       max(b.CPUSeconds-a.CPUSeconds, 0) / dt,
		cpuStalled: share(b.CPUStalledSeconds-a.CPUStalledSeconds, dt),
		cpuWaiting: share(b.CPUWaitingSeconds-a.CPUWaitingSeconds, dt),
		memWaiting: share(b.MemoryWaitingSeconds-a.MemoryWaitingSeconds, dt),
		memStalled: share(b.MemoryStalledSeconds-a.MemoryStalledSeconds, dt),
		ioWaiting:  share(b.IOWaitingSeconds-a.IOWaitingSeconds, dt),
		refaults:   grown(a.Refaults, b.Refaults) / dt,
		highEvents: max(b.MemoryHighEvents-a.MemoryHighEvents, 0),
		maxEvents:  max(b.MemoryMaxEvents-a.MemoryMaxEvents, 0),
		oomKills:   max(b.OOMKills-a.OOMKills, 0),
		memGrowth:  float64(b.MemoryBytes-a.MemoryBytes) / dt,
		dropped:    max(b.DroppedPackets-a.DroppedPackets, 0),
		statFresh:  !b.statAt().Equal(a.statAt()),
	}
	if periods := b.Periods - a.Periods; periods > 0 {
		r.anyPeriods = true
		r.throttled = min(grown(a.ThrottledPeriods, b.ThrottledPeriods)/float64(periods), 1)
	}
	r.flow[Bandwidth] = 8 * max(grown(a.ReceivedBytes, b.ReceivedBytes), grown(a.SentBytes, b.SentBytes)) / dt
	if span := b.ioAt().Sub(io.ioAt()).Seconds(); span > 0 {
		r.flowFresh = true
		r.flow[ReadBPS], r.flow[WriteBPS] = grown(io.ReadBytes, b.ReadBytes)/span, grown(io.WrittenBytes, b.WrittenBytes)/span
		r.flow[ReadIOPS], r.flow[WriteIOPS] = grown(io.ReadOps, b.ReadOps)/span, grown(io.WriteOps, b.WriteOps)/span
	}
	return r
}

func (s *Sample) statAt() time.Time {
	if s.StatAt.IsZero() {
		return s.At
	}
	return s.StatAt
}

func (s *Sample) ioAt() time.Time {
	if s.IOAt.IsZero() {
		return s.At
	}
	return s.IOAt
}

package meter

import (
	"errors"
	"hash/maphash"
	"math"
	"sync"
	"time"

	"cloudflash/cgroup"
	"golang.org/x/sys/unix"
)

const (
	// slowTicks is how often the files that are dear to read are read.
	slowTicks = 5
	// quietTicks is after how many samples without a move a VM counts as idle.
	quietTicks = 3
	// idleTicks is how often an idle VM is read in full. A multiple of slowTicks.
	idleTicks = 10
)

// A Probe reads one slice or scope through kept files. It is safe for concurrent
// use.
type Probe struct {
	mu      sync.Mutex
	r       *cgroup.Reader
	tick    int // of this probe; its phase is its own
	quiet   int // samples since something moved
	full    time.Time
	slow    time.Time
	missing [features]bool // this kernel does not have it
	raw     Counters       // as the kernel has them, at the last sample
	now     Counters
	given   Given
	closed  bool
	last    Sample

	id     string
	meter  *Meter   // nil for one that is read once
	past   *history // nil for a scope
	warned [warnings]bool
}

// What a kernel may lack.
const (
	featureMemory = iota
	featurePeak
	featureEvents
	featureStat
	featureSwap
	featurePIDs
	featureIO
	featurePressure
	features
)

// What is said once of a probe.
const (
	warnBack = iota
	warnRead
	warnings
)

func newProbe(o Opener, phase int) (*Probe, error) {
	r, err := o.OpenReader()
	if err != nil {
		return nil, err
	}
	return &Probe{r: r, tick: phase}, nil
}

// phaseOf spreads what many VMs do only now and then.
func phaseOf(seed maphash.Seed, id string) int { return int(maphash.String(seed, id) % idleTicks) }

// Last is the newest sample, zero before the first.
func (p *Probe) Last() Sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Tell takes what the next sample shall say of what the slice's files do not.
func (p *Probe) Tell(g Given) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.given = g
}

// Close ends the metering and closes the kept files. What is remembered of a VM
// stays. A nil Probe is fine.
func (p *Probe) Close() {
	if p == nil {
		return
	}
	p.meter.drop(p)
	p.release()
}

func (p *Probe) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	_ = p.r.Close()
}

// lateBy is more than a read takes when nothing comes between.
const lateBy = time.Millisecond

// sample reads what is due. The caller holds p.mu, or has the probe to itself.
func (p *Probe) sample(at time.Time) error {
	first := p.last.At.IsZero()
	began := time.Now()
	cpu, err := p.r.CPU()
	if err != nil {
		return err
	}
	// Who is preempted meanwhile would take the time of one second for the use of two.
	if late := time.Since(began); late > lateBy {
		at = at.Add(late)
	}
	p.now.setCPU(cpu)
	moved := p.now[CPUTime] != p.raw[CPUTime]
	full := first || moved || p.quiet < quietTicks || p.tick%idleTicks == 0
	slow := first || full && (p.tick%slowTicks == 0 || at.Sub(p.slow) >= slowTicks*time.Second)
	p.tick++
	next := p.last
	if full {
		if err := p.readFast(&next); err != nil {
			return err
		}
	}
	if slow {
		if err := p.readSlow(&next); err != nil {
			return err
		}
	}
	p.now.setTraffic(p.given.Traffic)
	p.conclude(&next, at, full, slow)
	return nil
}

// readFast reads what is cheap: single numbers, events, pressure.
func (p *Probe) readFast(s *Sample) error {
	var err error
	p.optional(featureMemory, &err, func() (err error) { s.Memory, err = p.r.MemoryCurrent(); return })
	p.optional(featurePeak, &err, func() (err error) { s.MemoryPeak, err = p.r.MemoryPeak(); return }) // Linux 5.19
	p.optional(featurePIDs, &err, func() (err error) { s.PIDs, err = p.r.PIDs(); return })
	p.optional(featureEvents, &err, p.readEvents)
	p.optional(featurePressure, &err, func() error { return p.readPressure(s) })
	return err
}

func (p *Probe) readEvents() error {
	e, err := p.r.MemoryEvents()
	if err == nil {
		p.now[MemoryHigh], p.now[MemoryMax], p.now[OOMs] = e.High, e.Max, e.OOM
		p.now[OOMKills] = e.OOMGroupKill // oom_kill counts the first process of a group twice
	}
	return err
}

func (p *Probe) readPressure(s *Sample) error {
	cpu, err := p.r.Pressure("cpu")
	if err != nil {
		return err
	}
	memory, err := p.r.Pressure("memory")
	if err != nil {
		return err
	}
	io, err := p.r.Pressure("io")
	if err != nil {
		return err
	}
	s.CPUAvg10, s.MemoryAvg10, s.IOAvg10 = cpu.Some.Avg10/100, memory.Some.Avg10/100, io.Some.Avg10/100
	p.now[CPUWaiting], p.now[CPUStalled] = micros(cpu.Some.Total), micros(cpu.Full.Total)
	p.now[MemoryWaiting], p.now[MemoryStalled] = micros(memory.Some.Total), micros(memory.Full.Total)
	p.now[IOWaiting], p.now[IOStalled] = micros(io.Some.Total), micros(io.Full.Total)
	return nil
}

// readSlow reads what is not: the kernel adds up memory.stat and io.stat over all
// CPUs first.
func (p *Probe) readSlow(s *Sample) error {
	var err error
	p.optional(featureStat, &err, func() error { return p.readStat(s) })
	p.optional(featureIO, &err, func() error { return p.readIO(s) })
	p.optional(featureSwap, &err, func() (err error) { s.Swap, err = p.r.SwapCurrent(); return })
	return err
}

func (p *Probe) readStat(s *Sample) error {
	m, err := p.r.MemoryStat()
	if err != nil {
		return err
	}
	s.Anon, s.File, s.Kernel, s.inactiveFile = int64(m.Anon), int64(m.File), int64(m.Kernel), int64(m.InactiveFile)
	if m.Kernel == 0 { // before Linux 5.18
		s.Kernel = int64(m.Slab)
	}
	p.now[Refaults] = m.RefaultAnon + m.RefaultFile
	return nil
}

func (p *Probe) readIO(s *Sample) error {
	io, err := p.r.IO()
	if err == nil {
		p.now[ReadBytes], p.now[WrittenBytes], p.now[ReadOps], p.now[WriteOps] = io.ReadBytes, io.WrittenBytes, io.ReadOps, io.WriteOps
		s.IOAt = time.Now()
	}
	return err
}

// optional reads, unless something before has failed. It does without what this
// kernel does not have, and does not ask for it again.
func (p *Probe) optional(feature int, failed *error, read func() error) {
	if *failed != nil || p.missing[feature] {
		return
	}
	err := read()
	if err == nil {
		return
	}
	// What is hidden while it is open (cgroup.pressure, Linux 6.1) reads as if the
	// whole cgroup had gone.
	hidden := errors.Is(err, cgroup.ErrGone) && p.alive()
	if hidden || errors.Is(err, cgroup.ErrUnsupported) || errors.Is(err, unix.EOPNOTSUPP) {
		p.missing[feature] = true
		return
	}
	*failed = err
}

func (p *Probe) alive() bool {
	_, err := p.r.CPU()
	return err == nil
}

// conclude works out the rates and makes the sample the last.
func (p *Probe) conclude(s *Sample, at time.Time, full, slow bool) {
	had, before, first := p.last.Counters, p.last.At, p.last.At.IsZero()
	back := s.Counters.advance(&p.raw, &p.now)
	if back {
		p.warn(warnBack, "counters went back", "what was lost stays uncounted")
	}
	seconds := func(since time.Time) float64 {
		if first {
			return 0
		}
		return at.Sub(since).Seconds()
	}
	grown := func(c Count) float64 { return float64(s.Counters[c] - had[c]) }
	s.At, s.given = at, p.given
	tick := seconds(before)
	s.CPUs = rate(grown(CPUTime)/1e6, tick)
	s.throttled = math.NaN() // no period, no data
	if n := grown(Periods); n > 0 && !first {
		s.throttled = grown(ThrottledPeriods) / n
	}
	s.received, s.sent = rate(8*grown(ReceivedBytes), tick), rate(8*grown(SentBytes), tick)
	if !full { // nothing has run: what is still being written back counts at the next look
		s.cpuWait, s.memoryWait, s.ioWait = p.share(0, 1), p.share(0, 1), p.share(0, 1)
		s.read, s.written, s.ops = 0, 0, 0
	}
	if full {
		t := seconds(p.full)
		s.cpuWait, s.memoryWait, s.ioWait = p.share(grown(CPUWaiting), t), p.share(grown(MemoryWaiting), t), p.share(grown(IOWaiting), t)
		p.full = at
	}
	if slow {
		t := seconds(p.slow)
		s.read, s.written, s.ops = rate(grown(ReadBytes), t), rate(grown(WrittenBytes), t), rate(grown(ReadOps)+grown(WriteOps), t)
		p.slow = at
	}
	s.WorkingSet = max(s.Memory-s.inactiveFile, 0)
	p.settle(s, &had)
	p.last = *s
}

// settle counts the samples in which nothing moved. Memory may shrink under an
// idle VM, and tasks may wait without running: both keep it awake.
func (p *Probe) settle(s *Sample, had *Counters) {
	if s.Counters == *had && s.Memory == p.last.Memory {
		p.quiet++
		return
	}
	p.quiet = 0
}

// share is the part of the time that somebody waited, NaN where the kernel does
// not tell.
func (p *Probe) share(us, seconds float64) float64 {
	if p.missing[featurePressure] {
		return math.NaN()
	}
	return min(rate(us/1e6, seconds), 1)
}

func rate(amount, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return amount / seconds
}

func micros(d time.Duration) uint64 { return uint64(d / time.Microsecond) }

func (c *Counters) setCPU(s cgroup.CPUStat) {
	c[CPUTime], c[UserTime], c[SystemTime], c[ThrottledTime] = micros(s.Usage), micros(s.User), micros(s.System), micros(s.ThrottledTime)
	c[Periods], c[ThrottledPeriods] = s.Periods, s.Throttled
}

func (c *Counters) setTraffic(t Traffic) {
	c[ReceivedBytes], c[SentBytes] = t.ReceivedBytes, t.SentBytes
	c[ReceivedPackets], c[SentPackets], c[DroppedPackets] = t.ReceivedPackets, t.SentPackets, t.DroppedPackets
}

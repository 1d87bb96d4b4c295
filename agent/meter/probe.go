package meter

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"cloudflash/cgroup"
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
	mu      sync.Mutex // held while the kernel's files are read
	r       *cgroup.Reader
	since   func(time.Time) time.Duration // time.Since
	tick    int                           // of this probe; its phase is its own
	quiet   int                           // samples since something moved
	full    time.Time
	slow    time.Time
	missing [features]bool // this kernel does not have it
	raw     Counters       // as the kernel has them, at the last sample
	now     Counters

	// Whoever asks or tells waits for no file: seen is held for a moment only, and taken after mu.
	seen   sync.Mutex
	given  Given
	last   Sample // written with mu too, so that its holder need not lock seen to look
	closed atomic.Bool

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
	return &Probe{r: r, since: time.Since, tick: phase}, nil
}

// phaseOf spreads what many VMs do only now and then.
func phaseOf(seed maphash.Seed, id string) int { return int(maphash.String(seed, id) % idleTicks) }

// Last is the newest sample, zero before the first.
func (p *Probe) Last() Sample {
	p.seen.Lock()
	defer p.seen.Unlock()
	return p.last
}

// Tell takes what the next sample shall say of what the slice's files do not.
func (p *Probe) Tell(g Given) {
	p.seen.Lock()
	defer p.seen.Unlock()
	p.given = g
}

// told is what Tell took last. A nil Probe was told nothing.
func (p *Probe) told() Given {
	if p == nil {
		return Given{}
	}
	p.seen.Lock()
	defer p.seen.Unlock()
	return p.given
}

// Close ends the metering and closes the kept files, or leaves that to whoever is
// reading them. What is remembered of a VM stays. A nil Probe is fine.
func (p *Probe) Close() {
	if p == nil {
		return
	}
	p.meter.drop(p)
	p.release()
}

func (p *Probe) release() {
	p.closed.Store(true)
	if p.mu.TryLock() {
		_ = p.r.Close()
		p.mu.Unlock()
	}
}

// unlock ends a read, and closes what Close has left to it.
func (p *Probe) unlock() {
	p.mu.Unlock()
	if p.closed.Load() {
		p.release()
	}
}

// sample reads what is due. The caller holds p.mu, or has the probe to itself.
func (p *Probe) sample(at time.Time) error {
	first := p.last.At.IsZero()
	at, err := p.readCPU(at)
	if err != nil {
		return err
	}
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
	next.given = p.told()
	p.now.setTraffic(next.given.Traffic)
	p.conclude(&next, at, full, slow)
	return nil
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
	s.At = at
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
		p.dateStat(s, at)
		p.dateIO(s, at)
	}
	p.derive(s)
	p.settle(s, &had)

	p.seen.Lock()
	defer p.seen.Unlock()
	p.last = *s
}

// derive works out what follows from the rest of a sample.
func (p *Probe) derive(s *Sample) {
	s.WorkingSet = max(s.Memory-s.inactiveFile, 0)
	s.Lacks = Lacks{
		Pressure: p.missing[featurePressure], Memory: p.missing[featureMemory] || p.missing[featureEvents],
		Stat: p.missing[featureStat], IO: p.missing[featureIO],
	}
}

func (p *Probe) dateStat(s *Sample, at time.Time) {
	if !p.missing[featureStat] {
		s.StatAt = at
	}
}

func (p *Probe) dateIO(s *Sample, at time.Time) {
	if !p.missing[featureIO] {
		s.IOAt = at
	}
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

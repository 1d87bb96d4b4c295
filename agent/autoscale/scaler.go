package autoscale

import (
	"fmt"
	"math"
	"time"
)

// A Scaler follows one VM. It is not safe for concurrent use.
type Scaler struct {
	vm     string
	policy Policy
	last   Sample
	io     Sample // when io.stat was read last
	seen   bool
	step   time.Duration // usual time between samples
	loops  [Resources]loop
	memory memory
	needs  Limits // of the last sample
	known  [Resources]bool
	spent  []int64 // when limits were changed, in the last hour
	hot    bool    // saturated now
	stride float64 // most that this look may grow a limit, times it
}

// loop is what is remembered of one resource.
type loop struct {
	limit    float64 // as it should be; 0 is not known
	changed  int64   // when, 0 is never
	since    int64   // use is known without a gap
	peaks    peaks   // of what was needed
	hold     hold
	harm     float64 // share of the time that the limit was too small, of late
	shrunk   shrunk
	grew     bool     // the last change did
	turns    [6]int64 // when growing and shrinking last alternated
	trimmed  bool     // the limit was sized to a whole window
	short    float64  // seconds of late in which a trimmed limit was too small
	waiting  int64    // since more is wished for, 0 is not
	proposed int64    // when, in dry runs
	wanted   float64
	pegged   bool // more is needed than the bounds allow
}

// shrunk is the last shrink that has not been undone by growing.
type shrunk struct {
	at             int64
	from, fromHigh float64
	window         time.Duration
}

const (
	remembered = longestHold // of use: what comes back later could not have been held
	deadBand   = 0.1         // changes of less are not worth it (HPA, VPA and Captain all have 10 %)
	mostGrowth = 2           // times the limit, in one tick (HPA)
	gentle     = 0.2         // most that a shrink on short evidence takes
	gapFactor  = 10          // times the usual time between samples: the machine slept
)

// NewScaler follows the VM of that id by a valid policy.
func NewScaler(vm string, p Policy) (*Scaler, error) {
	s := &Scaler{vm: vm}
	s.memory.day.keep = mostHalf
	if err := s.SetPolicy(p); err != nil {
		return nil, err
	}
	return s, nil
}

// Policy is the policy in force.
func (s *Scaler) Policy() Policy { return s.policy }

// SetPolicy changes the policy; what has been learned stays.
func (s *Scaler) SetPolicy(p Policy) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("policy of %s: %w", s.vm, err)
	}
	s.policy = p
	for r := range s.loops {
		s.loops[r].peaks.keep = max(remembered, 2*p.Rules[r].Window)
	}
	return nil
}

// Next is when the VM should be looked at again: soon while it is saturated.
func (s *Scaler) Next() time.Duration {
	if s.hot {
		return 100 * time.Millisecond
	}
	return time.Second
}

// NeedsStat reports whether the next sample should have a fresh memory.stat, however
// old the last is. Without it, all new memory counts as needed.
func (s *Scaler) NeedsStat() bool { return s.memory.asked }

// impatient reports whether more of a resource is wanted so badly that a second is
// long. What the host has not had for ten seconds can wait for the next.
func (s *Scaler) impatient(res Resource, at int64) bool {
	l := &s.loops[res]
	return l.limit < s.policy.Rules[res].Max && s.policy.Rules[res].Mode == Auto && (l.waiting == 0 || at-l.waiting < int64(10*time.Second))
}

// Observe takes a new sample and the limits as the kernel has them now (high is
// memory.high, 0 for none), and appends to out what should be done. Nothing has
// changed until Applied says so. A sample that is not later than the last one is
// no news; one after a long gap (the machine slept, the VM was frozen) begins anew.
func (s *Scaler) Observe(sample *Sample, now Limits, high float64, out []Decision) []Decision {
	dt := sample.At.Sub(s.last.At)
	if !s.seen || dt <= 0 || (s.step > 0 && dt > gapFactor*max(s.step, time.Second)) {
		s.begin(sample)
		return out
	}
	r := compare(&s.last, sample, &s.io)
	if s.step == 0 {
		s.step = dt
	}
	s.step += (dt - s.step) / 8
	at := sample.At.UnixNano()
	s.learn(sample, &r)
	s.hot, s.stride = false, stride(dt, sample.NoPressure)
	for res := range Resources {
		rule, l := &s.policy.Rules[res], &s.loops[res]
		if rule.Mode == Off || now[res] <= 0 {
			l.limit, l.since = 0, at // what is not followed is no evidence later
			continue
		}
		if d, ok := s.drift(res, at, now[res]); ok {
			out = append(out, d)
		}
		d, ok := s.decide(res, at, sample, &r, high)
		d.Resource = res
		if ok && s.permitted(&d, at) {
			out = append(out, s.complete(d, res, at))
		} else if !ok || d.Action == Shrink {
			l.waiting = 0
		}
	}
	s.last = *sample
	if r.flowFresh {
		s.io = *sample
	}
	return out
}

// learn works out what was needed of each resource since the last sample.
func (s *Scaler) learn(sample *Sample, r *rates) {
	for res := range Resources {
		s.known[res] = !unknown(res, sample) && !unknown(res, &s.last)
	}
	if s.known[Memory] {
		r.workingSet = s.memory.now(sample, r)
	}
	fresh := s.known[ReadBPS] && r.flowFresh
	s.known[ReadBPS], s.known[WriteBPS], s.known[ReadIOPS], s.known[WriteIOPS] = fresh, fresh, fresh, fresh
	s.needs = r.flow
	s.needs[CPU], s.needs[Memory], s.needs[Storage] = wanted(r, sample.NoPressure), s.memory.workingSet, float64(sample.StorageBytes)
}

// stride bounds what one wrong reading can do. A look back on many seconds is less
// often wrong than one on a second, but without pressure it does not show how much
// is missing.
func stride(dt time.Duration, blind bool) float64 {
	if blind {
		return mostGrowth
	}
	return math.Pow(mostGrowth, min(max(dt.Seconds(), 1), 10))
}

// begin takes a sample as the one that others are compared with.
func (s *Scaler) begin(sample *Sample) {
	at := sample.At.UnixNano()
	for r := range s.loops {
		l := &s.loops[r]
		if !s.seen || at < s.last.At.UnixNano() { // a clock that was set back: times of before mean nothing
			l.peaks.forget()
			l.changed, l.shrunk, l.hold, l.proposed, l.waiting, l.turns = 0, shrunk{}, hold{}, 0, 0, [6]int64{}
		}
		l.since = at
	}
	if s.seen && at < s.last.At.UnixNano() {
		s.spent = s.spent[:0]
		s.memory.day.forget()
		s.memory.born = at
	}
	if !s.seen {
		s.memory.born = at
	}
	s.memory.rebase(sample)
	s.last, s.io, s.seen, s.hot = *sample, *sample, true, false
}

// drift notices a limit that somebody else changed. Kernels round: a hundredth is
// no drift.
func (s *Scaler) drift(res Resource, at int64, now float64) (Decision, bool) {
	l := &s.loops[res]
	was := l.limit
	l.limit = now
	if was == 0 || math.Abs(now-was) <= 0.01*was {
		return Decision{}, false
	}
	l.shrunk, l.trimmed, l.changed = shrunk{}, false, at
	return Decision{VM: s.vm, Resource: res, At: s.time(at), Action: Drift, Signal: ByHand, From: was, To: now, Status: Granted, SLA: s.policy.SLA}, true
}

func (s *Scaler) time(at int64) time.Time { return time.Unix(0, at).UTC() }

func (s *Scaler) decide(res Resource, at int64, sample *Sample, r *rates, high float64) (Decision, bool) {
	l := &s.loops[res]
	if !s.known[res] {
		if res >= ReadBPS && !unknown(res, sample) {
			return Decision{}, false // io.stat was not read this time
		}
		l.since = at // nothing is done on what is not known, and the window begins anew
		return Decision{}, false
	}
	if rule := &s.policy.Rules[res]; l.limit < 0.99*rule.Min || l.limit > 1.01*rule.Max {
		l.since = at
		return s.intoBounds(res, sample, high)
	}
	switch res {
	case CPU:
		return s.cpu(at, sample, r)
	case Memory:
		return s.mem(at, sample, r, high)
	case Storage:
		return s.follow(res, at, float64(sample.StorageBytes), true)
	case Bandwidth:
		return s.follow(res, at, r.flow[res], true)
	}
	// Tasks wait for a slow disk too: only near the cap does it say that the cap is tight.
	return s.follow(res, at, r.flow[res], sample.NoPressure || r.ioWaiting >= pressed)
}

func unknown(res Resource, s *Sample) bool {
	switch res {
	case CPU:
		return s.NoCPU
	case Memory:
		return s.NoMemory
	case Storage:
		return s.NoStorage
	case Bandwidth:
		return s.NoNetwork
	}
	return s.NoIO
}

// intoBounds brings a limit that the policy does not allow to where it does.
// Memory in use is the one thing that may keep it out.
func (s *Scaler) intoBounds(res Resource, sample *Sample, high float64) (Decision, bool) {
	l, rule := &s.loops[res], &s.policy.Rules[res]
	d := Decision{Signal: ByBounds, Action: Grow, From: l.limit, To: rule.whole(res, rule.clamp(l.limit))}
	if d.To < l.limit {
		d.Action = Shrink
	}
	if res == Memory {
		floor := 1.2 * float64(sample.MemoryBytes)
		if d.Action == Shrink && d.To < floor {
			d.Reclaim = float64(sample.MemoryBytes) - d.To/1.2
			d.To = min(floor, l.limit)
		}
		d.HighFrom, d.HighTo = high, page(highShare*d.To)
		if d.To > 0.99*l.limit && d.Action == Shrink {
			return d, false
		}
	}
	return d, true
}

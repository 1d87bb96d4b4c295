package autoscale

import (
	"math"
	"time"
)

// memory is what is remembered of memory beside its loop.
type memory struct {
	statAt      int64
	base        float64 // memory.current when memory.stat was read
	workingSet  float64 // then
	unreclaimed float64 // then
	day         peaks   // of the working set, for memory.max
	born        int64
	oomAt       int64
	oomFloor    float64 // memory.max is not lowered below, for oomKeep after an OOM
	oomKeep     time.Duration
	calm        int64 // since when nothing waits or is read back
	asked       bool  // for a fresh memory.stat
}

const (
	highShare  = 0.9              // of what is left to max (KEP-2570)
	nearHigh   = 0.9              // of high: the VM is about to be slowed down
	growBytes  = 100 * mib        // least that memory grows by (VPA), or a quarter
	cushion    = 1.2              // memory.max above memory.current, when it is lowered
	calmShare  = 0.001            // Senpai: pressure below which memory may be taken
	stormShare = 0.01             // of high read back in a second is a storm of refaults
	oomMemory  = 24 * time.Hour   // VPA: peaks of a day
	oomAgain   = 10 * time.Minute // VPA: a quick OOM
	leastHalf  = 10 * time.Minute
	mostHalf   = 24 * time.Hour
	pageSize   = 4096
)

func page(v float64) float64 { return math.Ceil(v/pageSize) * pageSize }

func (m *memory) rebase(s *Sample) {
	m.statAt, m.base = s.statAt().UnixNano(), float64(s.MemoryBytes)
	m.workingSet, m.unreclaimed = float64(s.WorkingSetBytes), float64(s.UnreclaimableBytes)
	m.calm = s.At.UnixNano()
}

// now estimates the working set: as memory.stat said last, and all that has come
// since.
func (m *memory) now(s *Sample, r *rates) float64 {
	current := float64(s.MemoryBytes)
	if r.statFresh {
		m.asked = false
		m.statAt, m.base = s.statAt().UnixNano(), current
		m.workingSet, m.unreclaimed = float64(s.WorkingSetBytes), float64(s.UnreclaimableBytes)
	}
	more := max(current-m.base, 0)
	return min(m.workingSet+more, current)
}

// floor is what high may not go below: what cannot be reclaimed and a margin, or
// reclaim would run for ever (https://docs.kernel.org/admin-guide/cgroup-v2.html,
// memory.high never kills). Senpai's margin is 100 MiB; small VMs get a quarter.
func (m *memory) floor() float64 {
	return m.unreclaimed + min(growBytes, max(16*mib, m.unreclaimed/4))
}

// killed notes an OOM, and returns what memory.max is multiplied with: 1.5, since a
// fifth, the VPA's, is known to be too little; twice when it happens again at once.
// One that comes back after it was forgotten is remembered for twice as long.
func (m *memory) killed(at int64) (factor float64) {
	factor = 1.5
	switch {
	case m.oomAt == 0:
		m.oomKeep = oomMemory
	case at-m.oomAt <= int64(oomAgain):
		factor = 2
	case at-m.oomAt > int64(m.oomKeep):
		m.oomKeep = min(2*m.oomKeep, 30*oomMemory)
	}
	m.oomAt = at
	return factor
}

// mem scales memory.high and memory.max.
func (s *Scaler) mem(at int64, sample *Sample, r *rates, high float64) (Decision, bool) {
	l, m := &s.loops[Memory], &s.memory
	if high <= 0 || high > l.limit {
		high = l.limit
	}
	l.pegged = false
	s.suffer(Memory, r.dt, min(r.memWaiting/pressed, 1))
	storm := r.refaults*pageSize > stormShare*high
	if r.memWaiting >= calmShare || storm || r.highEvents > 0 {
		m.calm = at
	}
	d, ok := s.memUp(at, sample, r, high, storm)
	// What has come since memory.stat was read is no evidence of a need: it may be cache.
	held := min(m.workingSet, float64(sample.MemoryBytes))
	l.peaks.add(at, held)
	m.day.add(at, held)
	if ok {
		return d, true
	}
	return s.memDown(at, sample, r, high)
}

// memUp finds the strongest reason to grow.
func (s *Scaler) memUp(at int64, sample *Sample, r *rates, high float64, storm bool) (Decision, bool) {
	l, rule, m := &s.loops[Memory], &s.policy.Rules[Memory], &s.memory
	use, bar := r.workingSet, s.bar(Memory)
	d := Decision{Action: Grow, From: l.limit, HighFrom: high, Use: use}
	// What will be there when the limit can next be changed, and has been.
	ahead := max(r.memGrowth, 0) * (2*r.dt.Seconds() + 1)
	if use < float64(sample.MemoryBytes)/2 {
		ahead = 0 // it is mostly cache that grows
	}
	near := use >= nearHigh*high
	// What has come since memory.stat was read may all be cache of a big file. One look is
	// given to find out.
	crossed := near || use >= bar*high || use+ahead >= high
	if r.oomKills == 0 && crossed && use > m.workingSet && !m.asked {
		m.asked, s.hot = true, true
		return d, false
	}
	size := max((use+min(ahead, use))/rule.Target, high+max(0.25*high, min(growBytes, high)))
	waiting := !sample.NoPressure && r.memWaiting >= pressed
	switch {
	case r.oomKills > 0:
		factor := m.killed(at)
		d.Signal, d.Value, d.Use = ByOOM, float64(r.oomKills), l.limit
		size = highShare * max(factor*l.limit, l.limit+growBytes)
		m.oomFloor = min(size/highShare, rule.Max)
	case l.shrunk.at > 0 && at-l.shrunk.at <= int64(3*s.soon()) && (storm || r.memWaiting >= 10*calmShare || (r.highEvents > 0 && near)):
		d.Action, d.Signal, d.Value, d.Limit = Rollback, ByRefaults, r.refaults, stormShare*high/pageSize
		if !storm {
			d.Signal, d.Value, d.Limit = ByPressure, r.memWaiting, 10*calmShare
		}
		size = max(l.shrunk.fromHigh, high)
		l.hold.learn(at, 2*max(l.shrunk.window, time.Minute))
	case (r.highEvents > 0 || r.maxEvents > 0) && (near || waiting || storm):
		d.Signal, d.Value = ByEvents, float64(r.highEvents+r.maxEvents)
	case waiting && use >= rule.Up*high:
		d.Signal, d.Value, d.Limit = ByPressure, r.memWaiting, pressed
	case use >= bar*high:
		d.Signal, d.Value, d.Limit = ByUsage, use/high, bar
	case use+ahead >= high:
		d.Signal, d.Value, d.Limit = ByGrowth, r.memGrowth, 1
	default:
		return d, false
	}
	s.hot = s.impatient(Memory, at)
	return s.memGrow(at, d, size)
}

// memGrow sizes high, and max where it would stand too close above.
func (s *Scaler) memGrow(at int64, d Decision, size float64) (Decision, bool) {
	l, rule := &s.loops[Memory], &s.policy.Rules[Memory]
	s.regret(Memory, at, s.bar(Memory)*d.HighFrom)
	d.HighTo = min(size, max(s.stride*d.HighFrom, l.shrunk.fromHigh))
	if d.Signal == ByOOM {
		d.HighTo = size
	}
	d.To = max(l.limit, min(page(d.HighTo/highShare), rule.Max))
	if d.Action == Rollback {
		d.To = max(d.To, min(l.shrunk.from, rule.Max))
	}
	l.pegged = d.HighTo/highShare > 1.005*rule.Max
	// At its bound there is nothing to gain from slowing the VM down earlier.
	d.HighTo = min(page(min(d.HighTo, highest(d.To, rule.Max))), d.To)
	ok := d.HighTo > 1.005*d.HighFrom || d.To > 1.005*l.limit
	return d, ok && s.fresh(rule, l, at, d.To)
}

// highest is where high stands when it is as high as it may. At its bound a VM is not
// slowed down any more: without swap it would crawl to memory.max for half a minute,
// each few pages slept for up to two seconds (mem_cgroup_handle_over_high).
func highest(limit, most float64) float64 {
	if limit >= most {
		return limit
	}
	return limit * highShare
}

// memDown lowers high to the working set, and max to the peak of a longer past. It
// does so by a fresh memory.stat only; where all else speaks for it, it asks for one.
func (s *Scaler) memDown(at int64, sample *Sample, r *rates, high float64) (Decision, bool) {
	l, rule, m := &s.loops[Memory], &s.policy.Rules[Memory], &s.memory
	known, ok := s.rested(Memory, at)
	if !ok || at-m.calm < int64(rule.Cooldown) || known < rule.Cooldown {
		return Decision{}, false
	}
	w := s.windows(Memory, at)
	peak := func(w time.Duration) float64 { return max(l.peaks.over(at, w), r.workingSet) }
	d := Decision{Action: Shrink, From: l.limit, HighFrom: high, To: l.limit, HighTo: high, Use: r.workingSet}
	step := min(rule.Step, gentle)
	switch long := peak(w.long); {
	case known >= w.long && long*(1+rule.Margin) <= (1-deadBand)*high:
		d.Signal, d.Window, d.Peak, step = ByWindow, w.long, long, rule.Step
		d.HighTo = long * (1 + rule.Margin)
	case known >= w.short && peak(w.short) < rule.Down*high:
		d.Signal, d.Window, d.Peak = ByIdle, w.short, peak(w.short)
		d.HighTo = (1 - step) * high
	case known >= w.long:
		d.Signal, d.Window, d.Peak = ByWindow, w.long, long // max alone may have room
	default:
		return d, false
	}
	d.Value, d.Limit = d.Peak/high, rule.Down
	d.HighTo = min(page(max(d.HighTo, m.floor(), (1-step)*high, highShare*rule.Min)), high)
	current := float64(sample.MemoryBytes)
	d.Reclaim = max(current-d.HighTo, 0)
	d.To = s.net(at, current, d.HighTo, step)
	if d.HighTo > (1-deadBand)*high && d.To > (1-deadBand)*l.limit {
		return d, false
	}
	if !r.statFresh {
		if rule.Mode == Auto && !m.asked { // a proposal can wait for the next
			m.asked, s.hot = true, true
		}
		return d, false
	}
	return d, s.fresh(rule, l, at, d.To)
}

// net is how low memory.max may go: above high and what is in use, the peak of the
// longer past (half of the VM's life, ten minutes to a day), and what was killed
// for want of memory.
func (s *Scaler) net(at int64, current, high, step float64) float64 {
	l, rule, m := &s.loops[Memory], &s.policy.Rules[Memory], &s.memory
	past := min(max(time.Duration(at-m.born)/2, leastHalf), mostHalf)
	to := max(cushion*high, cushion*current, (1+rule.Margin)*m.day.over(at, past), (1-step)*l.limit, rule.Min)
	if m.oomAt > 0 && at-m.oomAt < int64(m.oomKeep) {
		to = max(to, m.oomFloor)
	}
	return min(page(to), l.limit)
}

package replay

import (
	"slices"
	"time"

	"cloudflash/agent/autoscale"
)

// A MemoryView is what a controller sees of the memory of the last look.
type MemoryView struct {
	At, Step  time.Duration
	Use       float64 // bytes, working set
	OOM       bool
	AboveHigh bool
	Max, High float64
}

// A MemoryController gives memory.max and memory.high for the next look.
type MemoryController interface {
	Next(v MemoryView) (limit, high float64)
}

// A MemoryPolicy makes one for each VM.
type MemoryPolicy struct {
	Name string
	New  func(Trace) MemoryController
}

// MemoryPolicies are all that are compared.
func MemoryPolicies() []MemoryPolicy {
	return []MemoryPolicy{
		{"static peak", func(t Trace) MemoryController { return fixed(slices.Max(t.Demand)) }},
		{"80/20", func(Trace) MemoryController { return oneKnob{&thresholds{}} }},
		{"VPA, in place", func(Trace) MemoryController { return newMemoryVPA() }},
		{"CloudFlash", func(t Trace) MemoryController { return NewOursMemory(t.Cap, 2) }},
	}
}

// A MemoryResult is what a policy did with a trace.
type MemoryResult struct {
	Max, High, Used   float64 // byte-seconds
	Seconds, SlowDown float64 // seconds above high
	OOMs, Resizes     int
}

// Slack is the share of memory.max that was not used, HighSlack that of memory.high.
func (r MemoryResult) Slack() float64     { return 1 - r.Used/r.Max }
func (r MemoryResult) HighSlack() float64 { return 1 - r.Used/r.High }

// RunMemory replays a trace of memory. Between two values demand goes straight from
// one to the other, if looks are finer than the trace; else it jumps.
// A VM that wants more than memory.max is killed, which it pays for with all it
// has; it wants the same again at the next look.
func RunMemory(t Trace, look time.Duration, c MemoryController) MemoryResult {
	if look <= 0 || look > t.Step {
		look = t.Step
	}
	var res MemoryResult
	n := int(t.Step / look)
	limit, high, dt, at := t.Cap, t.Cap, look.Seconds(), time.Duration(0)
	for i, d := range t.Demand {
		from := t.Demand[max(i-1, 0)]
		for k := range n {
			at += look
			want := from + (d-from)*float64(k+1)/float64(n)
			v := MemoryView{At: at, Step: look, Use: want, Max: limit, High: high, AboveHigh: want > high}
			if want > limit {
				v.Use, v.OOM, v.AboveHigh = limit, true, true
				res.OOMs++
			}
			if v.AboveHigh {
				res.SlowDown += dt
			}
			res.Max += limit * dt
			res.High += min(high, limit) * dt
			res.Used += min(v.Use, high) * dt
			wasMax, wasHigh := limit, high
			limit, high = c.Next(v)
			limit = min(limit, 4*t.Cap)
			high = min(high, limit)
			if limit != wasMax || high != wasHigh {
				res.Resizes++
			}
		}
	}
	res.Seconds = t.Step.Seconds() * float64(len(t.Demand))
	return res
}

type fixed float64

func (f fixed) Next(MemoryView) (limit, high float64) { return float64(f), float64(f) }

// oneKnob scales memory.max alone.
type oneKnob struct{ c Controller }

func (o oneKnob) Next(v MemoryView) (limit, high float64) {
	next := o.c.Next(View{At: v.At, Step: v.Step, Use: v.Use, Limit: v.Max})
	return next, next
}

// memoryVPA is the VPA: p90 of the peaks of days, 15 % more, a fifth more after a
// kill. It has one knob.
type memoryVPA struct {
	h       *autoscale.Histogram
	peak    float64
	day     int64
	counted time.Duration
}

func newMemoryVPA() *memoryVPA {
	return &memoryVPA{h: autoscale.NewHistogram(autoscale.Memory, 24*time.Hour)}
}

func (p *memoryVPA) Next(v MemoryView) (limit, high float64) {
	now := time.Unix(0, 0).Add(v.At)
	p.peak = max(p.peak, v.Use)
	if day := int64(v.At / (24 * time.Hour)); day != p.day || v.OOM || v.At-p.counted >= time.Hour {
		use := p.peak
		if v.OOM {
			use = max(1.2*v.Use, v.Use+100<<20)
		}
		p.h.Add(now, use, 1)
		p.counted = v.At
		if day != p.day {
			p.day, p.peak = day, 0
		}
	}
	target := max(1.15*p.h.Percentile(0.9), 250<<20)
	if d := target - v.Max; (d > 0.1*v.Max || d < -0.1*v.Max) && (v.At > time.Hour || d > 0) {
		return target, target
	}
	return v.Max, v.Max
}

// OursMemory is the Scaler of this project.
type OursMemory struct {
	s      *autoscale.Scaler
	sample autoscale.Sample
	out    []autoscale.Decision
}

// NewOursMemory scales the memory of a VM of that size, by the default policy.
func NewOursMemory(size float64, sla int) *OursMemory {
	p := autoscale.Default(autoscale.Limits{autoscale.Memory: size}, autoscale.Limits{autoscale.Memory: 32 << 20}, autoscale.Limits{})
	p.SLA = sla
	p.Rules[autoscale.Memory].Min = 32 << 20 // as little as is accepted: all policies may go as low
	s, err := autoscale.NewScaler("vm", p)
	if err != nil {
		return nil
	}
	o := &OursMemory{s: s, sample: autoscale.Sample{At: time.Unix(0, 0)}}
	s.Observe(&o.sample, autoscale.Limits{}, 0, nil)
	return o
}

// Next implements MemoryController.
func (o *OursMemory) Next(v MemoryView) (limit, high float64) {
	sm := &o.sample
	sm.At = time.Unix(0, 0).Add(v.At)
	use := int64(min(v.Use, v.Max))
	sm.MemoryBytes, sm.WorkingSetBytes, sm.UnreclaimableBytes = use, use, use
	if v.OOM {
		sm.OOMKills++
		sm.MemoryMaxEvents++
	}
	if v.AboveHigh {
		sm.MemoryHighEvents++
		sm.MemoryWaitingSeconds += 0.5 * v.Step.Seconds()
	}
	o.out = o.s.Observe(sm, autoscale.Limits{autoscale.Memory: v.Max}, v.High, o.out[:0])
	limit, high = v.Max, v.High
	for _, d := range o.out {
		if d.Status != autoscale.Proposed {
			continue
		}
		limit, high = d.To, d.HighTo
		o.s.Applied(d, sm.At, limit)
	}
	return limit, high
}

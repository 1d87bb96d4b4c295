package replay

import (
	"math"
	"slices"
	"time"

	"cloudflash/agent/autoscale"
)

// A Policy makes a controller for each VM.
type Policy struct {
	Name string
	New  func(Trace) Controller
}

// Policies are all that are compared. The oracle is the only one that reads the
// demand of the trace it is given.
func Policies() []Policy {
	return []Policy{
		{"static peak", func(t Trace) Controller { return static(slices.Max(t.Demand)) }},
		{"80/20", func(Trace) Controller { return &thresholds{} }},
		{"VPA", func(Trace) Controller { return newVPA(false) }},
		{"VPA in place", func(Trace) Controller { return newVPA(true) }},
		{"Autopilot window", func(Trace) Controller { return newAutopilot() }},
		{"CloudFlash", func(t Trace) Controller { return NewOurs(t.Cap, 2, false) }},
		{"CloudFlash, without PSI", func(t Trace) Controller { return NewOurs(t.Cap, 2, true) }},
		{"CloudFlash, SLA 3", func(t Trace) Controller { return NewOurs(t.Cap, 3, false) }},
		{"CloudFlash, SLA 1", func(t Trace) Controller { return NewOurs(t.Cap, 1, false) }},
		{"oracle 15 min", func(t Trace) Controller { return &oracle{t, 15 * time.Minute} }},
		{"oracle 60 min", func(t Trace) Controller { return &oracle{t, time.Hour} }},
	}
}

type static float64

func (s static) Next(View) float64 { return float64(s) }

// thresholds is the rule of the original: above 80 % a quarter more, below 20 % a
// fifth less, one change a minute.
type thresholds struct {
	changed time.Duration
	any     bool
}

func (p *thresholds) Next(v View) float64 {
	if p.any && v.At-p.changed < time.Minute {
		return v.Limit
	}
	next := v.Limit
	switch ratio := v.Use / v.Limit; {
	case ratio > 0.8:
		next *= 1.25
	case ratio < 0.2:
		next *= 0.8
	default:
		return next
	}
	p.changed, p.any = v.At, true
	return next
}

// averager turns looks into the samples of a slower controller.
type averager struct {
	sum, seconds float64
	every        time.Duration
}

func (a *averager) add(v View) (mean float64, ok bool) {
	a.sum += v.Use * v.Step.Seconds()
	a.seconds += v.Step.Seconds()
	if a.seconds < a.every.Seconds() {
		return 0, false
	}
	mean = a.sum / a.seconds
	a.sum, a.seconds = 0, 0
	return mean, true
}

// vpa is the recommender and updater of the Kubernetes VPA: a decaying histogram
// of one-minute samples weighted with the request, p90 and 15 % more; it acts when
// the request is outside of p50 and p95, widened by confidence, or is 10 % off and
// has stood for 12 hours. In place, it acts on every 10 %.
type vpa struct {
	averager
	h       *autoscale.Histogram
	inPlace bool
	changed time.Duration
	samples float64
}

func newVPA(inPlace bool) *vpa {
	return &vpa{averager: averager{every: time.Minute}, h: autoscale.NewHistogram(autoscale.CPU, 24*time.Hour), inPlace: inPlace}
}

func (p *vpa) Next(v View) float64 {
	mean, ok := p.add(v)
	if !ok {
		return v.Limit
	}
	p.h.Add(time.Unix(0, 0).Add(v.At), mean, max(v.Limit, 0.1))
	p.samples++
	confidence := min(v.At.Hours()/24, p.samples/1440)
	target := max(1.15*p.h.Percentile(0.9), least)
	off := math.Abs(target-v.Limit) >= 0.1*v.Limit
	if p.inPlace {
		if off {
			return target
		}
		return v.Limit
	}
	low := 1.15 * p.h.Percentile(0.5) * math.Pow(1+0.001/confidence, -2)
	high := 1.15 * p.h.Percentile(0.95) * (1 + 1/confidence)
	if v.Limit < low || v.Limit > high || (off && v.At-p.changed >= 12*time.Hour) {
		p.changed = v.At
		return target
	}
	return v.Limit
}

// autopilot is its moving window for CPU: the load-adjusted p95 of five-minute
// samples, half-life 12 h, 15 % more, the most advised in the last hour.
type autopilot struct {
	averager
	h      *autoscale.Histogram
	advice []float64
}

func newAutopilot() *autopilot {
	return &autopilot{averager: averager{every: 5 * time.Minute}, h: autoscale.NewHistogram(autoscale.CPU, 12*time.Hour)}
}

func (p *autopilot) Next(v View) float64 {
	mean, ok := p.add(v)
	if !ok {
		return v.Limit
	}
	p.h.Add(time.Unix(0, 0).Add(v.At), mean, max(mean, 1e-6))
	p.advice = append(p.advice, 1.15*p.h.Percentile(0.95))
	if len(p.advice) > 12 {
		p.advice = p.advice[1:]
	}
	if len(p.advice) < 12 {
		return v.Limit // nothing is lowered in the first hour
	}
	most := 0.0
	for _, a := range p.advice {
		most = max(most, a)
	}
	return most
}

// oracle gives every block of time its peak.
type oracle struct {
	t    Trace
	span time.Duration
}

func (p *oracle) Next(v View) float64 {
	block := v.At / p.span // the next step begins at v.At
	from, to := int(block*p.span/p.t.Step), int(((block+1)*p.span+p.t.Step-1)/p.t.Step)
	peak := 0.0
	for _, d := range p.t.Demand[min(from, len(p.t.Demand)):min(to, len(p.t.Demand))] {
		peak = max(peak, d)
	}
	return peak
}

// Ours is the Scaler of this project, fed with the counters that the kernel would
// show.
type Ours struct {
	s         *autoscale.Scaler
	sample    autoscale.Sample
	limits    autoscale.Limits
	out       []autoscale.Decision
	Decisions func(autoscale.Decision) // called with each, where not nil
}

// NewOurs scales the CPU of a VM of that size, by the default policy.
func NewOurs(size float64, sla int, noPressure bool) *Ours {
	return newOurs(size, sla, noPressure, func(*autoscale.Rule) {})
}

// Variants are ours with one value of the default rule changed by a factor of up to
// two each way: what depends on the exact value was fitted.
func Variants() []Policy {
	all := []Policy{{"CloudFlash", func(t Trace) Controller { return NewOurs(t.Cap, 2, false) }}}
	add := func(name string, change func(*autoscale.Rule)) {
		all = append(all, Policy{name, func(t Trace) Controller { return newOurs(t.Cap, 2, false, change) }})
	}
	add("margin 0.10", func(r *autoscale.Rule) { r.Margin = 0.10 })
	add("margin 0.20", func(r *autoscale.Rule) { r.Margin = 0.20 })
	add("margin 0.25", func(r *autoscale.Rule) { r.Margin = 0.25 })
	add("window 2m30s", func(r *autoscale.Rule) { r.Window = 150 * time.Second })
	add("window 10m", func(r *autoscale.Rule) { r.Window = 10 * time.Minute })
	add("cooldown 30s", func(r *autoscale.Rule) { r.Cooldown = 30 * time.Second })
	add("cooldown 2m", func(r *autoscale.Rule) { r.Cooldown = 2 * time.Minute })
	add("target 0.60", func(r *autoscale.Rule) { r.Target = 0.6 })
	add("target 0.75", func(r *autoscale.Rule) { r.Target = 0.75 })
	add("step 0.25", func(r *autoscale.Rule) { r.Step = 0.25 })
	add("up 0.70, target 0.60", func(r *autoscale.Rule) { r.Up, r.Target = 0.7, 0.6 })
	add("up 0.90", func(r *autoscale.Rule) { r.Up = 0.9 })
	return all
}

func newOurs(size float64, sla int, noPressure bool, change func(*autoscale.Rule)) *Ours {
	p := autoscale.Default(autoscale.Limits{}, autoscale.Limits{}, autoscale.Limits{})
	p.SLA = sla
	p.Rules[autoscale.CPU] = autoscale.DefaultRule(autoscale.CPU)
	p.Rules[autoscale.CPU].Min, p.Rules[autoscale.CPU].Max = least, size
	change(&p.Rules[autoscale.CPU])
	s, err := autoscale.NewScaler("vm", p)
	if err != nil {
		return nil
	}
	o := &Ours{s: s, sample: autoscale.Sample{At: time.Unix(0, 0), NoPressure: noPressure}}
	s.Observe(&o.sample, o.limits, 0, nil)
	return o
}

// Next implements Controller.
func (o *Ours) Next(v View) float64 {
	dt, sm := v.Step.Seconds(), &o.sample
	sm.At = time.Unix(0, 0).Add(v.At)
	sm.CPUSeconds += v.Use * dt
	sm.Periods += int64(math.Round(dt * 10))
	sm.ThrottledPeriods += int64(math.Round(v.Throttled * dt * 10))
	sm.CPUStalledSeconds += v.Stalled * dt
	sm.CPUWaitingSeconds += v.Stalled * dt
	o.limits[autoscale.CPU] = v.Limit
	o.out = o.s.Observe(sm, o.limits, 0, o.out[:0])
	limit := v.Limit
	for _, d := range o.out {
		if d.Status != autoscale.Proposed {
			continue
		}
		limit = d.To
		o.s.Applied(d, sm.At, limit)
		if o.Decisions != nil {
			o.Decisions(d)
		}
	}
	return limit
}

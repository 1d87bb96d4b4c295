package replay

import (
	"slices"
	"time"
)

// A View is what a controller sees of the last step.
type View struct {
	At        time.Duration // since the begin, at the end of the step
	Step      time.Duration
	Use       float64 // mean, never above the limit
	Throttled float64 // share of the periods
	Stalled   float64 // share of the time
	Limit     float64
}

// A Controller gives the limit for the next step.
type Controller interface {
	Next(v View) float64
}

// least is the smallest limit of any policy: the VPA's, 25 thousandths of a core.
const least = 0.025

// A Result is what a policy did with a trace, or with several.
type Result struct {
	Limit, Used float64 // core-seconds
	Demand      float64
	Short       float64 // demand above the limit
	Seconds     float64
	Stalled     float64 // seconds throttled
	Resizes     int
	Reversals   int // up after down, or down after up, within ten minutes
}

// Slack is the share of the limits that was not used.
func (r Result) Slack() float64 { return 1 - r.Used/r.Limit }

// Shortfall is the share of the demand that the limits withheld.
func (r Result) Shortfall() float64 {
	if r.Demand == 0 {
		return 0
	}
	return r.Short / r.Demand
}

// Throttled is the share of the time.
func (r Result) Throttled() float64 { return r.Stalled / r.Seconds }

// PerHour is how often a VM was resized.
func (r Result) PerHour() float64 { return float64(r.Resizes) / r.Seconds * 3600 }

// ReversalsPerHour is how often that took back another.
func (r Result) ReversalsPerHour() float64 { return float64(r.Reversals) / r.Seconds * 3600 }

// Run replays a trace, looking every step of it or, with a finer look, that often.
func Run(t Trace, look time.Duration, c Controller) Result {
	if look <= 0 || look > t.Step {
		look = t.Step
	}
	var res Result
	n := int(t.Step / look)
	limit, dt := t.Cap, look.Seconds()
	at := time.Duration(0)
	turn := turns{}
	for _, d := range t.Demand {
		for range n {
			at += look
			use := min(d, limit)
			v := View{At: at, Step: look, Use: use, Limit: limit}
			if d > limit {
				v.Throttled, v.Stalled = 1, 1-limit/d
			}
			res.Limit += limit * dt
			res.Used += use * dt
			res.Demand += d * dt
			res.Short += (d - use) * dt
			res.Stalled += v.Stalled * dt
			next := min(max(c.Next(v), least), t.Cap)
			if next != limit {
				res.Resizes++
				res.Reversals += turn.count(at, next > limit)
				limit = next
			}
		}
	}
	res.Seconds = t.Step.Seconds() * float64(len(t.Demand))
	return res
}

// turns counts changes of direction.
type turns struct {
	at    time.Duration
	up    bool
	known bool
}

func (t *turns) count(at time.Duration, up bool) int {
	turned := t.known && up != t.up && at-t.at <= 10*time.Minute
	t.at, t.up, t.known = at, up, true
	if turned {
		return 1
	}
	return 0
}

// A Summary is a policy's results over VMs: each VM counts the same, however big.
type Summary struct {
	Policy           string
	VMs              int
	Slack, Shortfall float64 // means
	SlackP95         float64
	ShortfallP95     float64
	Throttled        float64
	PerHour          float64
	Reversals        float64 // per hour
}

// RunAll replays every trace with a controller of its own.
func RunAll(all []Trace, look time.Duration, p Policy) Summary {
	s := Summary{Policy: p.Name, VMs: len(all)}
	n := float64(len(all))
	var slack, short []float64
	for _, t := range all {
		r := Run(t, look, p.New(t))
		slack, short = append(slack, r.Slack()), append(short, r.Shortfall())
		s.Slack += r.Slack() / n
		s.Shortfall += r.Shortfall() / n
		s.Throttled += r.Throttled() / n
		s.PerHour += r.PerHour() / n
		s.Reversals += r.ReversalsPerHour() / n
	}
	s.SlackP95, s.ShortfallP95 = p95(slack), p95(short)
	return s
}

func p95(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)*95/100, len(all)-1)]
}

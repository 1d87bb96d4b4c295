package autoscale

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// A Recommendation is advice for one number of a VM's spec.
type Recommendation struct {
	Resource   Resource `json:"resource"`
	Spec       float64  `json:"spec"` // as asked for
	Lower      float64  `json:"lower"`
	Target     float64  `json:"target"`
	Upper      float64  `json:"upper"`
	Uncapped   float64  `json:"uncapped"`   // target before the bounds
	Confidence float64  `json:"confidence"` // 0 to 1: days of history, at most one
	Reason     string   `json:"reason"`
	Saves      float64  `json:"saves"`     // of the spec, below 0 where it asks for more
	Throttled  float64  `json:"throttled"` // share of the time that more than target was used
}

// Profile is what a VM's use has been: what a spec should be chosen by. One for
// each template, merged from its VMs, lets a new VM start warm.
type Profile struct {
	Use  [Resources]*Histogram `json:"use"`
	Born time.Time             `json:"born"`
	Seen time.Duration         `json:"seen"` // how much of the time since then was looked at, of all VMs together
	peak [Resources]float64    // of the present five minutes
	from time.Time
	last time.Time
}

// NewProfile begins one.
func NewProfile(born time.Time) *Profile {
	p := &Profile{Born: born, from: born}
	for r := range p.Use {
		p.Use[r] = NewHistogram(Resource(r), leastHalf)
	}
	return p
}

// peakSpan is what one value of memory and storage stands for (Autopilot).
const peakSpan = 5 * time.Minute

// Add counts what a VM used since the last look: its cores weighted with time, of
// memory and storage the peak of each five minutes. Needs are what it would have used
// without its limits, as Needs tells.
func (p *Profile) Add(at time.Time, dt time.Duration, needs Limits, known [Resources]bool) {
	if dt <= 0 {
		return
	}
	close := at.Sub(p.from) >= peakSpan
	p.Seen += dt
	p.last = at
	for r := range Resources {
		if !known[r] {
			continue
		}
		if r != Memory && r != Storage {
			p.Use[r].Add(at, needs[r], dt.Seconds())
			continue
		}
		p.peak[r] = max(p.peak[r], needs[r])
		if close {
			p.Use[r].Add(at, p.peak[r], peakSpan.Seconds())
			p.peak[r] = 0
		}
	}
	if close {
		p.from = at
		for _, h := range p.Use {
			h.SetHalfLife(HalfLife(at.Sub(p.Born)))
		}
	}
}

// OOM counts one artificial value for a kill: a fifth more than was used, 100 MiB at
// least (VPA).
func (p *Profile) OOM(at time.Time, used float64) {
	p.Use[Memory].Add(at, max(1.2*used, used+growBytes), peakSpan.Seconds())
}

// Merge adds what another VM of the same template was seen to use, the peaks of the
// present five minutes included.
func (p *Profile) Merge(o *Profile) {
	if o.Born.Before(p.Born) {
		p.Born = o.Born
	}
	p.Seen += o.Seen
	for r, h := range p.Use {
		h.Merge(o.Use[r])
		if o.peak[r] > 0 {
			h.Add(o.last, o.peak[r], o.last.Sub(o.from).Seconds())
		}
		h.SetHalfLife(HalfLife(h.last.Sub(p.Born)))
	}
}

// History is how much time a profile knows of: a day without anybody looking is none,
// nor are two VMs in one hour two.
func (p *Profile) History() time.Duration {
	var life time.Duration
	for _, h := range p.Use {
		life = max(life, h.Life())
	}
	return min(life, p.Seen)
}

// UnmarshalJSON implements json.Unmarshaler. What is missing from a profile makes it
// none.
func (p *Profile) UnmarshalJSON(b []byte) error {
	type plain Profile // without this method
	var read plain
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	for r, h := range read.Use {
		if h == nil || h.resource != Resource(r) {
			return fmt.Errorf("profile: no histogram of %v", Resource(r))
		}
		if h.last.After(read.last) {
			read.last = h.last
		}
	}
	if read.Seen < 0 || read.Born.IsZero() {
		return fmt.Errorf("profile: born %v, seen for %v", read.Born, read.Seen)
	}
	read.from = read.last // the present five minutes began anew
	*p = Profile(read)
	return nil
}

// adviceMargin is added to every percentile (VPA; Autopilot has 10 to 15 %).
const adviceMargin = 1.15

// percentiles for lower, target and upper. Of memory the target is p98 (Autopilot):
// too little of it kills.
func percentiles(r Resource, sla int) (lower, target, upper float64) {
	switch {
	case r == Memory && sla == 3, r == Storage:
		return 0.5, 1, 1
	case r == Memory:
		return 0.5, 0.98, 1
	case sla == 3:
		return 0.5, 0.95, 0.99
	}
	return 0.5, 0.9, 0.95
}

// Recommend advises on every resource that something is known of and that has a
// limit.
func (p *Profile) Recommend(spec Limits, policy Policy) []Recommendation {
	var all []Recommendation
	for r := range Resources {
		if h := p.Use[r]; h.samples > 0 && spec[r] > 0 {
			all = append(all, p.advise(r, spec[r], policy))
		}
	}
	return all
}

func (p *Profile) advise(r Resource, spec float64, policy Policy) Recommendation {
	h := p.Use[r]
	low, mid, high := percentiles(r, policy.SLA)
	history := min(h.Life(), p.Seen)
	confidence := max(history.Hours()/24, 1e-6)
	if r != Memory && r != Storage {
		confidence = max(min(h.Confidence(), confidence), 1e-6)
	}
	rec := Recommendation{Resource: r, Spec: spec, Confidence: min(confidence, 1)}
	rec.Uncapped = adviceMargin * h.Percentile(mid)
	// The VPA widens its bounds while it knows little: after 12 h, upper is three times as far.
	rec.Lower = adviceMargin * h.Percentile(low) * math.Pow(1+0.001/confidence, -2)
	rec.Upper = adviceMargin * h.Percentile(high) * (1 + 1/confidence)
	rec.Target = rec.Uncapped
	if rule := policy.Rules[r]; rule.Min > 0 && rule.Max >= rule.Min {
		rec.Lower, rec.Target, rec.Upper = rule.clamp(rec.Lower), rule.clamp(rec.Target), rule.clamp(rec.Upper)
	}
	rec.Saves, rec.Throttled = spec-rec.Target, h.Above(rec.Target)
	rec.Reason = rec.reason(h.Percentile(mid), mid, history)
	return rec
}

func (rec *Recommendation) reason(used, share float64, history time.Duration) string {
	r := rec.Resource
	s := fmt.Sprintf("%s of the time %s or less were used, in %s; 15 %% more is %s", percent(share), r.Amount(used), Span(history), r.Amount(rec.Uncapped))
	if rec.Target != rec.Uncapped {
		s += ", which the bounds make " + r.Amount(rec.Target)
	}
	if !rec.Sure() {
		s = fmt.Sprintf("little is known yet: %s of history; so far, %s", Span(history), s)
	}
	return s
}

// Sure reports whether there is history enough to go by: half a day (the VPA's rule).
func (rec *Recommendation) Sure() bool { return rec.Confidence >= 0.5 }

// Span writes a time for people: 40s, 12m, 3h5m, 2d4h.
func Span(d time.Duration) string {
	pair := func(n time.Duration, unit string, rest time.Duration, small string) string {
		if rest == 0 {
			return fmt.Sprintf("%d%s", n, unit)
		}
		return fmt.Sprintf("%d%s%d%s", n, unit, rest, small)
	}
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(d, 0)/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return pair(d/time.Hour, "h", d%time.Hour/time.Minute, "m")
	}
	return pair(d/day, "d", d%day/time.Hour, "h")
}

// Changes reports whether advice is worth taking: less than lower was asked for, or the
// spec is a tenth off with half a day of history. The VPA takes what is above upper
// away at once; but of what is hardly used in the first minute, any spec is.
func (rec *Recommendation) Changes() bool {
	off := math.Abs(rec.Saves) >= deadBand*rec.Spec
	return rec.Spec < rec.Lower || (rec.Sure() && (off || rec.Spec > rec.Upper))
}

// Above is the share of the weight that is above v.
func (h *Histogram) Above(v float64) float64 {
	if h.total <= 0 {
		return 0
	}
	sum := 0.0
	for _, w := range h.weights[min(h.bucket(v)+1, len(h.weights)):] {
		sum += w
	}
	return min(sum/h.total, 1)
}

// Needs is what a VM would have used of each resource since the last sample, and
// which of that is known.
func (s *Scaler) Needs() (needs Limits, known [Resources]bool) { return s.needs, s.known }

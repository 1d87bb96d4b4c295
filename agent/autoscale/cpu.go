package autoscale

import "time"

// cpu scales cpu.max.
func (s *Scaler) cpu(at int64, sample *Sample, r *rates) (Decision, bool) {
	l, rule := &s.loops[CPU], &s.policy.Rules[CPU]
	theta := tolerated(s.policy.SLA)
	need := s.needs[CPU]
	l.pegged = false
	s.suffer(CPU, r.dt, r.throttled)
	bar := s.bar(CPU)
	d, ok := Decision{}, false
	if s.patient(r, need, bar) {
		s.hot = r.throttled > intolerable(s.policy.SLA) && s.impatient(CPU, at)
		l.peaks.add(at, need)
		return d, false
	}
	switch {
	case r.anyPeriods && r.throttled > intolerable(s.policy.SLA):
		// Where pressure does not say how much is missing, Captain's step does.
		to := need / rule.Target
		if to < (1+deadBand)*l.limit || sample.NoPressure {
			to = max(to, l.limit*(1+r.throttled-intolerable(s.policy.SLA)))
		}
		if sample.NoPressure && l.shrunk.at > 0 {
			to = max(to, 2*l.shrunk.from-l.limit)
		}
		s.hot = s.impatient(CPU, at)
		d, ok = s.grow(CPU, at, to, bar*l.limit)
		d.Signal, d.Value, d.Limit = ByThrottled, r.throttled, intolerable(s.policy.SLA)
	case r.cpus >= bar*l.limit && (r.dt >= time.Second || r.throttled > 0):
		// Less than a second is a few periods, and says little about use.
		s.hot = r.throttled > theta && s.impatient(CPU, at)
		d, ok = s.grow(CPU, at, r.cpus/rule.Target, bar*l.limit)
		d.Signal, d.Value, d.Limit = ByUsage, r.cpus/l.limit, bar
	default:
		l.peaks.add(at, need)
		if r.throttled > theta {
			return d, false // no time to take something away
		}
		return s.shrink(CPU, at, r.cpus)
	}
	d.Use = r.cpus
	l.peaks.add(at, need)
	return d, ok
}

const (
	little      = 1.25 // times the limit: a need that is not much more than it
	longEnough  = 1.0  // seconds of nothing but shortage, or twice as long of half of it
	forgetShort = 0.5  // of each second without
)

// patient reports whether a little more than a limit that was sized to a whole window
// was not needed for long enough yet. Such a limit has shown to be enough; the
// highest of some hundred seconds is exceeded by the next few now and then, and to
// grow for each, and shrink after, is to swing. What is short is summed up, and
// goes down again while nothing is: Page's CUSUM ("Continuous Inspection Schemes",
// Biometrika 41, 1954).
func (s *Scaler) patient(r *rates, need, bar float64) bool {
	l := &s.loops[CPU]
	if !l.trimmed || need >= little*l.limit {
		l.short = 0
		return false
	}
	theta := intolerable(s.policy.SLA)
	short := min(max((r.throttled-theta)/(1-theta), (r.cpus/l.limit-bar)/(1-bar), 0), 1)
	if short == 0 {
		l.short = max(l.short-forgetShort*r.dt.Seconds(), 0)
		return false // nothing that grows it
	}
	l.short += short * r.dt.Seconds()
	return l.short < longEnough
}

// wanted is how many cores a VM would use without its limit. While a group is
// throttled all its tasks stall, and had it run on it would have used as much in
// that time as in the rest: a quota of 90, 50 and 20 % of what one thread wants
// was seen to throttle it 9, 50 and 80 % of the time. Stalls without throttled
// periods are for want of cores on the host, which a bigger limit does not give.
func wanted(r *rates, noPressure bool) float64 {
	switch {
	case r.throttled == 0:
		return r.cpus
	case noPressure:
		return r.cpus * (1 + r.throttled)
	}
	return r.cpus / (1 - min(r.cpuStalled, 0.95))
}

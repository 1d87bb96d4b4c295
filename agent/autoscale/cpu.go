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

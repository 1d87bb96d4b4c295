package autoscale

import "time"

// pressed is the share of the time that tasks wait when a limit is too tight.
const pressed = 0.1

// flap is the time within which growing and shrinking are not to alternate.
const flap = 10 * time.Minute

// windows are how far a shrink looks back: short for use below Down, long for use
// above.
type windows struct{ short, long time.Duration }

func (s *Scaler) windows(res Resource, at int64) windows {
	rule, l := &s.policy.Rules[res], &s.loops[res]
	least := max(time.Duration(evidence(s.policy.SLA))*max(s.step, time.Second), l.hold.length(at))
	return windows{max(rule.Cooldown, least), max(rule.Window, least)}
}

// bar is the share of the limit above which use grows it: Up, or, of a limit that
// was sized to the peak of a whole window, where half of the margin above that
// peak is used up. Such a limit has shown that it is enough.
func (s *Scaler) bar(res Resource) float64 {
	rule := &s.policy.Rules[res]
	if s.loops[res].trimmed {
		return max(rule.Up, 1/(1+rule.Margin/2))
	}
	return rule.Up
}

// follow scales what is known by its use alone: storage, network, IO. Pressed is
// whether anything speaks for more than near the limit.
func (s *Scaler) follow(res Resource, at int64, use float64, pressed bool) (Decision, bool) {
	l, rule := &s.loops[res], &s.policy.Rules[res]
	l.pegged = false
	bar := s.bar(res)
	short := 0.0
	if pressed && use >= 0.98*l.limit {
		short = 1
	}
	s.suffer(res, s.step, short)
	if pressed && use >= bar*l.limit {
		d, ok := s.grow(res, at, use/rule.Target, bar*l.limit)
		d.Signal, d.Use, d.Value, d.Limit = ByUsage, use, use/l.limit, bar
		l.peaks.add(at, use)
		return d, ok
	}
	l.peaks.add(at, use)
	return s.shrink(res, at, use)
}

// grow proposes a limit of to. The level is what use had to reach for it: when it
// was reached before the last shrink, that shrink came too early.
func (s *Scaler) grow(res Resource, at int64, to, level float64) (Decision, bool) {
	l, rule := &s.loops[res], &s.policy.Rules[res]
	s.regret(res, at, level)
	d := Decision{Action: Grow, From: l.limit}
	if l.shrunk.at > 0 && at-l.shrunk.at <= int64(s.soon()) {
		d.Action, to = Rollback, max(to, l.shrunk.from)
	}
	to = min(max(to, (1+deadBand)*l.limit), max(s.stride*l.limit, l.shrunk.from))
	d.To = rule.whole(res, min(to, rule.Max))
	l.pegged = to > rule.Max
	return d, d.To > 1.005*l.limit && s.fresh(rule, l, at, d.To)
}

// regret learns from a need that comes back after a shrink has given it away. Where
// that is more than the VM's class has to bear, the hold becomes twice as long as
// the need was away. Where it comes so soon or so often that it is flapping (more
// than once in ten minutes, over an hour), a little more than ten minutes will do:
// then what grows shrinks no sooner than that.
func (s *Scaler) regret(res Resource, at int64, level float64) {
	l := &s.loops[res]
	seen, ok := l.peaks.reached(level)
	if !ok || l.shrunk.at == 0 || seen > l.shrunk.at {
		return
	}
	gap, oldest := time.Duration(at-seen), l.turns[len(l.turns)-1]
	often := oldest > 0 && at-oldest <= int64(len(l.turns))*int64(flap)
	if l.harm > tolerated(s.policy.SLA) {
		l.hold.learn(at, 2*gap)
	}
	if gap <= flap || often {
		l.hold.learn(at, flap+s.policy.Rules[res].Cooldown)
	}
}

// suffer keeps count of how much of the time a limit was too small. It looks back on
// twice the samples that tell the tolerated share from none.
func (s *Scaler) suffer(res Resource, dt time.Duration, share float64) {
	span := max(time.Hour, 2*time.Duration(evidence(s.policy.SLA))*s.step)
	l := &s.loops[res]
	l.harm += (share - l.harm) * min(float64(dt)/float64(span), 1)
}

// soon is how long after a shrink trouble is put down to it.
func (s *Scaler) soon() time.Duration { return max(10*time.Second, 2*s.step) }

// fresh keeps dry runs from repeating themselves: what was proposed and does not
// happen is wished for again at every look, a little more or less each time. Only
// what goes further, or back, is news.
func (s *Scaler) fresh(rule *Rule, l *loop, at int64, to float64) bool {
	if rule.Mode != Recommend {
		return true
	}
	grows := to > l.limit
	if l.proposed > 0 && at-l.proposed < int64(rule.Cooldown) && grows == (l.wanted > l.limit) &&
		(grows && to <= (1+deadBand)*l.wanted || !grows && to >= (1-deadBand)*l.wanted) {
		return false
	}
	l.proposed, l.wanted = at, to
	return true
}

// rested reports whether the cooldown is over, and how long use is known.
func (s *Scaler) rested(res Resource, at int64) (known time.Duration, ok bool) {
	l, rule := &s.loops[res], &s.policy.Rules[res]
	return time.Duration(at - l.since), l.changed == 0 || at-l.changed >= int64(rule.Cooldown)
}

// shrink proposes a smaller limit where the evidence is enough for it.
func (s *Scaler) shrink(res Resource, at int64, use float64) (Decision, bool) {
	l, rule := &s.loops[res], &s.policy.Rules[res]
	known, ok := s.rested(res, at)
	if !ok || known < rule.Cooldown {
		return Decision{}, false
	}
	w := s.windows(res, at)
	d := Decision{Action: Shrink, From: l.limit, Use: use}
	if known >= w.long {
		d.Signal, d.Window, d.Peak = ByWindow, w.long, l.peaks.over(at, w.long)
		d.Value, d.Limit = d.Peak/l.limit, (1-deadBand)/(1+rule.Margin)
		d.To = max(d.Peak*(1+rule.Margin), (1-rule.Step)*l.limit)
	}
	if (d.To == 0 || d.To > (1-deadBand)*l.limit) && known >= w.short {
		d.Signal, d.Window, d.Peak = ByIdle, w.short, l.peaks.over(at, w.short)
		d.Value, d.Limit = d.Peak/l.limit, rule.Down
		d.To = l.limit
		if d.Value < rule.Down {
			d.To = (1 - min(rule.Step, gentle)) * l.limit
		}
	}
	if d.To == 0 {
		return d, false
	}
	d.To = rule.whole(res, max(d.To, rule.Min))
	return d, d.To <= (1-deadBand)*l.limit && s.fresh(rule, l, at, d.To)
}

// Spare is how much of a resource a VM could give now if another needs it: what is
// above the peak of its long window and the margin.
func (s *Scaler) Spare(res Resource) (spare, peak float64, window time.Duration) {
	l, rule := &s.loops[res], &s.policy.Rules[res]
	at := s.last.At.UnixNano()
	w := s.windows(res, at)
	if rule.Mode != Auto || l.limit == 0 || at-l.since < int64(w.short) {
		return 0, 0, 0
	}
	peak = l.peaks.over(at, w.long)
	least := peak * (1 + rule.Margin)
	if res == Memory {
		least = max(least, s.memory.floor()/highShare, cushion*float64(s.last.MemoryBytes))
	}
	return max(l.limit-max(least, rule.Min), 0), peak, w.long
}

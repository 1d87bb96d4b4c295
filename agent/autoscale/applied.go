package autoscale

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// permitted holds the budget of changes. Shrinking may spend half of it, so that
// growing, which without shrinking ends at the bounds, is hardly ever refused. Memory
// always grows: a VM whose cores have used up the changes would be killed for want of
// it, and it grows by a quarter at least, so that a few changes reach its bound.
func (s *Scaler) permitted(d *Decision, at int64) bool {
	s.spent = slices.DeleteFunc(s.spent, func(t int64) bool { return t <= at-int64(time.Hour) })
	minute := 0
	for _, t := range s.spent {
		if t > at-int64(time.Minute) {
			minute++
		}
	}
	hour := len(s.spent)
	if !d.Up() {
		return minute < (s.policy.PerMinute+1)/2 && hour < (s.policy.PerHour+1)/2
	}
	if d.Resource != Memory && (minute >= s.policy.PerMinute || hour >= s.policy.PerHour) {
		d.Status, d.Why = Deferred, fmt.Sprintf("the limits were changed %d times in a minute and %d times in an hour, of %d and %d",
			minute, hour, s.policy.PerMinute, s.policy.PerHour)
	}
	return true
}

// complete fills in what all decisions have.
func (s *Scaler) complete(d Decision, res Resource, at int64) Decision {
	l, rule := &s.loops[res], &s.policy.Rules[res]
	d.VM, d.Resource, d.At, d.SLA = s.vm, res, s.time(at), s.policy.SLA
	if d.Status == "" {
		d.Status = Proposed
	}
	d.DryRun = rule.Mode == Recommend
	if d.Up() {
		if l.waiting == 0 {
			l.waiting = at
		}
		d.Waiting = s.time(l.waiting)
	}
	return d
}

// oneBurst is how soon after one step up the next belongs to it.
const oneBurst = 5 * time.Second

// Applied says that a decision was carried out, at a time, with what the kernel
// has then: limit, and for memory high.
func (s *Scaler) Applied(d Decision, at time.Time, limit float64) {
	l := &s.loops[d.Resource]
	if d.Action == Drift {
		return
	}
	t := at.UnixNano()
	if l.changed > 0 && d.Up() != l.grew && t-l.changed <= int64(flap) {
		copy(l.turns[1:], l.turns[:])
		l.turns[0] = t
	}
	burst := d.Up() && l.grew && l.changed > 0 && t-l.changed <= int64(oneBurst)
	l.grew = d.Up()
	l.trimmed, l.short = d.Action == Shrink && d.Signal == ByWindow, 0
	if d.Action == Shrink {
		l.shrunk = shrunk{at: t, from: d.From, fromHigh: d.HighFrom, window: d.Window}
	} else {
		l.shrunk = shrunk{}
	}
	// A limit that grows in steps to where it has to be is changed once, as to the budget.
	if !burst {
		s.spent = append(s.spent, t)
	}
	l.limit, l.changed, l.waiting = limit, t, 0
}

// Expect says that a limit is what it is on a user's request, which is no drift. One
// that has not changed goes on as it was.
func (s *Scaler) Expect(res Resource, limit float64, at time.Time) {
	l := &s.loops[res]
	if math.Abs(limit-l.limit) <= 0.01*l.limit {
		return
	}
	l.limit, l.changed, l.shrunk, l.trimmed, l.waiting = limit, at.UnixNano(), shrunk{}, false, 0
}

// Pegged reports whether more is needed of a resource than the bounds allow.
func (s *Scaler) Pegged(res Resource) bool { return s.loops[res].pegged }

// Held is how long a need of a resource is held on to now, and how much of that
// was learned from needs that came back.
func (s *Scaler) Held(res Resource) (window, learned time.Duration) {
	w := s.windows(res, s.last.At.UnixNano())
	return w.long, s.loops[res].hold.length(s.last.At.UnixNano())
}

// RestsUntil is when the cooldown of a resource ends: it is not shrunk before. It is
// zero when nothing has been changed.
func (s *Scaler) RestsUntil(res Resource) time.Time {
	if s.loops[res].changed == 0 {
		return time.Time{}
	}
	return s.time(s.loops[res].changed).Add(s.policy.Rules[res].Cooldown)
}

// Spent is how often limits were changed in the hour before.
func (s *Scaler) Spent(at time.Time) int {
	n := 0
	for _, t := range s.spent {
		if t > at.Add(-time.Hour).UnixNano() {
			n++
		}
	}
	return n
}

package scaling

import (
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/clock"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
)

// Polling says why the loop only polls; empty where the kernel wakes it.
func (l *Loop) Polling() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.polling
}

// Status is how scaling stands with every VM, by name. Room is what limits of VMs together
// may be at most.
func (l *Loop) Status(s state.View, room autoscale.Limits) []VMScaling {
	l.mu.Lock()
	defer l.mu.Unlock()
	rules := l.cfg.Rules()
	all := make([]VMScaling, 0, s.VMCount())
	for r := range s.VMs() {
		v := l.cfg.VM(r.ID)
		if v == nil {
			continue // it is being forgotten
		}
		now, _ := v.Now(s)
		p, _ := rules.Of(s, r, room)
		all = append(all, status(rules.ModeOf(s.Policy(), r), now, r, l.followers[r.ID], p))
	}
	return all
}

func status(mode string, now Now, r *state.VM, f *follower, p autoscale.Policy) VMScaling {
	out := VMScaling{
		VM:        r.ID,
		VMName:    r.Name,
		Mode:      mode,
		PerHour:   p.PerHour,
		Keep:      r.Keep,
		Resources: []Scaled{},
	}
	spec, use := policy.Amounts(r.Spec), now.Use
	if f != nil && f.scaler != nil {
		out.Spent = f.scaler.Spent(clock.Steady())
		use = f.use(use)
	}
	for res := range autoscale.Resources {
		if spec[res] <= 0 {
			continue
		}
		rule := p.Rules[res]
		one := Scaled{Resource: res.String(), Mode: string(rule.Mode), State: "steady", Spec: spec[res], Limit: now.Limits[res], Use: use[res],
			Min: rule.Min, Max: rule.Max, Up: rule.Up, Down: rule.Down}
		if res == autoscale.Memory {
			one.High = now.High
		}
		if rule.Mode == autoscale.Off || now.Limits[res] <= 0 {
			one.State = "off"
		} else if f != nil && f.scaler != nil {
			f.viewResource(res, &one)
		}
		if f != nil {
			one.LastDecision = f.recent[res]
		}
		out.Resources = append(out.Resources, one)
	}
	return out
}

// use is what the loop has seen beside.
func (f *follower) use(known autoscale.Limits) autoscale.Limits {
	needs, ok := f.scaler.Needs()
	for res := autoscale.Bandwidth; res < autoscale.Resources; res++ {
		if ok[res] {
			known[res] = needs[res]
		}
	}
	return known
}

func (f *follower) viewResource(res autoscale.Resource, one *Scaled) {
	window, learned := f.scaler.Held(res)
	one.HoldSeconds, one.LearnedHold = window.Round(time.Second).Seconds(), learned.Round(time.Second).Seconds()
	if left := f.scaler.RestsUntil(res).Sub(clock.Steady()); left > 0 {
		one.CooldownUntil = new(time.Now().UTC().Add(left))
		one.State = "cooldown"
	}
	t := f.told[res]
	wished := clock.Steady().Sub(t.seen) < 5*time.Second
	switch {
	case wished && t.result == state.DecisionDeferred:
		one.State = "deferred"
	case wished && t.result == state.DecisionInfeasible:
		one.State = "infeasible"
	case f.scaler.Pegged(res):
		one.State = "at_max"
	case f.looks > 0 && res == autoscale.CPU && f.scaler.Next() < time.Second:
		one.State = "saturated"
	}
}

package agent

import (
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/clock"
	"cloudflash/agent/policy"
)

// ScalingStatus tells how autoscaling stands with every VM.
func (a *Agent) ScalingStatus() ScalingStatus {
	s := &a.scaling
	s.mu.Lock()
	defer s.mu.Unlock()
	view := a.state.View()
	host, room := view.Policy(), a.roomNow(view)
	out := ScalingStatus{
		Mode:     a.rules().HostMode(host),
		Wakeups:  "events",
		Note:     s.polling,
		Idle:     a.rules().ShowIdle(host),
		Capacity: capacityOf(room.All),
		Free:     capacityOf(room.Free),
		VMs:      []VMScaling{},
	}
	if s.polling != "" {
		out.Wakeups = "polling"
	}

	a.held.Lock()
	defer a.held.Unlock()
	for r := range view.VMs() {
		v := a.vms[r.ID]
		if v == nil {
			continue // it is being forgotten
		}
		p, _ := a.rules().Of(view, r, room.All)
		out.VMs = append(out.VMs, a.viewScaling(host, v, r, s.followers[r.ID], p))
	}
	return out
}

func capacityOf(l autoscale.Limits) Capacity {
	return Capacity{CPUs: l[autoscale.CPU], MemoryBytes: int64(l[autoscale.Memory]), StorageBytes: int64(l[autoscale.Storage])}
}

func (a *Agent) viewScaling(host ownPolicy, v *vm, r *vmRecord, f *follower, p autoscale.Policy) VMScaling {
	out := VMScaling{
		VM:        r.ID,
		VMName:    r.Name,
		Mode:      a.rules().ModeOf(host, r),
		PerHour:   p.PerHour,
		Keep:      r.Keep,
		IdleSince: v.idleSince(r),
		DeleteAt:  v.deleteAt(r),
		Activity:  v.activity(r),
		Resources: []Scaled{},
	}
	now, spec, use := currentOf(v.limits), policy.Amounts(r.Spec), v.use()
	if f != nil && f.scaler != nil {
		out.Spent = f.scaler.Spent(clock.Steady())
		use = f.use(use)
	}
	for res := range autoscale.Resources {
		if spec[res] <= 0 {
			continue
		}
		rule := p.Rules[res]
		one := Scaled{Resource: res.String(), Mode: string(rule.Mode), State: "steady", Spec: spec[res], Limit: now[res], Use: use[res],
			Min: rule.Min, Max: rule.Max, Up: rule.Up, Down: rule.Down}
		if res == autoscale.Memory {
			one.High = highOf(v.limits)
		}
		if rule.Mode == autoscale.Off || now[res] <= 0 {
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

// use is what the last sample tells of use.
func (v *vm) use() autoscale.Limits {
	u := v.usage
	return autoscale.Limits{autoscale.CPU: u.CPUs, autoscale.Memory: float64(u.WorkingSetBytes), autoscale.Storage: float64(u.StorageBytes)}
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
	wished := clock.Steady().Sub(t.seen) < 5*sampleEvery
	switch {
	case wished && t.result == DecisionDeferred:
		one.State = "deferred"
	case wished && t.result == DecisionInfeasible:
		one.State = "infeasible"
	case f.scaler.Pegged(res):
		one.State = "at_max"
	case f.looks > 0 && res == autoscale.CPU && f.scaler.Next() < time.Second:
		one.State = "saturated"
	}
}

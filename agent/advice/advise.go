package advice

import (
	"slices"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/idle"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
)

// advised is what of a VM advice is made from.
type advised struct {
	id, name, template string
	spec               state.Spec
	now                Now
	host, own          state.PolicyLayer
	sla                int
	taken              *state.AppliedAdvice
}

// For tells how a VM should have been asked for, going by what it has used, and what
// ails it. Ref is a VM's id or name, or host; without it the answer is of all VMs by
// name, and of the host where there is something to say of it.
func (d *Advisor) For(ref string) ([]Advice, error) {
	s := d.cfg.State.View()
	id := ""
	if ref != "" && ref != hostName {
		r := s.FindVM(ref)
		if r == nil {
			return nil, state.NoVM(ref)
		}
		id = r.ID
	}

	out := d.advise(d.all(s), d.cfg.Room()) // of all: who is noisy, and what fits together, shows in the others
	host := &out[len(out)-1]
	switch {
	case ref == hostName:
		return []Advice{*host}, nil
	case ref == "" && len(host.Findings) == 0:
		return out[:len(out)-1], nil
	case ref == "":
		return out, nil
	}
	return slices.DeleteFunc(out, func(x Advice) bool { return x.VM != id }), nil
}

// hostName is the name of the host among VMs.
const hostName = "host"

// all is what advice is made from of all VMs, by name.
func (d *Advisor) all(s state.View) []advised {
	all := make([]advised, 0, s.VMCount())
	for r := range s.VMs() {
		if now, ok := d.cfg.Now(r.ID); ok {
			all = append(all, advisedOf(s, r, now))
		}
	}
	return all
}

func advisedOf(s state.View, r *state.VM, now Now) advised {
	return advised{
		id:       r.ID,
		name:     r.Name,
		template: r.Labels[TemplateLabel],
		spec:     r.Spec,
		now:      now,
		host:     s.Policy().Layer,
		own:      r.Own.Layer,
		sla:      policy.SLAOf(s, r.ID),
		taken:    r.Advice,
	}
}

// advise is the advice for each VM, in order, and last the host's.
func (d *Advisor) advise(all []advised, room autoscale.Limits) []Advice {
	out := make([]Advice, 0, len(all)+1)
	states := make([]autoscale.State, 0, len(all))
	places := make(map[string]int, len(all)+1)
	names := make(map[string]string, len(all))
	pressure := d.cfg.Pressure()
	for i := range all {
		v := &all[i]
		recs, history := d.recommend(v, room)
		one := Advice{VM: v.id, VMName: v.name, Template: v.template, HistorySeconds: history.Seconds(),
			Recommendations: viewRecommendations(recs), Findings: []Finding{}, Applied: v.undoable()}
		places[v.id], names[v.id] = len(out), v.name
		out = append(out, one)
		states = append(states, d.fared(v, recs, pressure))
	}
	places[""] = len(out)
	out = append(out, Advice{VMName: hostName, Recommendations: []Recommendation{}, Findings: []Finding{}})
	for _, f := range autoscale.Findings(states, d.machine()) {
		to := &out[places[f.VM]]
		to.Findings = append(to.Findings,
			Finding{Kind: string(f.Kind), Other: f.Other, OtherName: names[f.Other], Text: f.Text,
				Evidence: f.Evidence})
	}
	return out
}

// recommend is what the use of a VM speaks for in a host with so much room, and how
// long that has been seen.
func (d *Advisor) recommend(v *advised, room autoscale.Limits) ([]autoscale.Recommendation, time.Duration) {
	p := d.profile(v.id)
	if p == nil {
		return nil, 0
	}
	spec := policy.Amounts(v.spec)
	rules := d.cfg.Rules()
	floor, ceiling := rules.Bounds(v.spec, room)
	policy, from := rules.For(spec, floor, ceiling, v.host, v.own, v.sla)
	if from[autoscale.Storage]["min"] == "" { // scaling leaves a VM its storage; advice may be to ask for less
		policy.Rules[autoscale.Storage].Min = max(spec[autoscale.Storage]/4, floor[autoscale.Storage])
	}
	recs := p.Recommend(spec, policy)
	for i := range recs {
		r := &recs[i]
		r.Target = rounded(r.Resource, r.Target, policy.Rules[r.Resource])
		r.Lower, r.Upper, r.Saves = min(r.Lower, r.Target), max(r.Upper, r.Target), r.Spec-r.Target
	}
	return recs, p.History()
}

func viewRecommendations(recs []autoscale.Recommendation) []Recommendation {
	out := make([]Recommendation, len(recs))
	for i := range recs {
		r := &recs[i]
		out[i] = Recommendation{Resource: r.Resource.String(), Spec: r.Spec, Lower: r.Lower, Target: r.Target,
			Upper: r.Upper, Uncapped: r.Uncapped,
			Confidence: r.Confidence, Reason: r.Reason, Saves: r.Saves, Throttled: r.Throttled, Worth: worth(r)}
	}
	return out
}

// worth reports whether taking advice changes something for the better.
func worth(r *autoscale.Recommendation) bool { return r.Changes() && r.Target != r.Spec }

// fared is how a VM did in the last minutes. Before it has been watched for long
// enough nothing is known of it but the advice.
func (d *Advisor) fared(v *advised, recs []autoscale.Recommendation, pressure bool) autoscale.State {
	s := autoscale.State{VM: v.id, Name: v.name, Advice: recs, Limits: policy.Amounts(v.spec)}
	for _, res := range [...]autoscale.Resource{autoscale.CPU, autoscale.Memory} {
		if limit := v.now.Limits[res]; limit > 0 {
			s.Limits[res] = limit
		}
	}
	l, ok := d.lately(v.id, d.cfg.After)
	if !ok {
		return s
	}
	s.Span, s.PressureKnown = l.span, pressure
	s.CPUs, s.Throttled, s.CPUWaiting, s.CPUStalled = l.cpus, l.throttled, l.cpuWaiting, l.cpuStalled
	s.MemoryBytes, s.SwapBytes, s.SwapGrowth, s.RefaultsPerSec, s.MemoryWaiting, s.OOMKills = l.workingSet, l.swap, l.swapGrowth, l.refaultsPerSec, l.memoryWaiting, l.kills
	s.IOWaiting = l.ioWaiting
	if v.now.IdleFor >= d.cfg.After && l.cpus < idle.CPUs {
		s.IdleFor = v.now.IdleFor
	}
	return s
}

// machine is how the host fared in the same minutes.
func (d *Advisor) machine() autoscale.Machine {
	m := d.cfg.Machine()
	m.Busy = d.hostBusy(d.cfg.After)
	return m
}

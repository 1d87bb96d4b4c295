package agent

import (
	"slices"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/idle"
	"cloudflash/agent/state"
)

// advised is what of a VM advice is made from.
type advised struct {
	id, name, template string
	spec               Spec
	limits             Limits
	host, own          PolicyLayer
	sla                int
	idleSince          *time.Time
	taken              *AppliedAdvice
}

// Advice tells how a VM should have been asked for, going by what it has used, and
// what ails it. Ref is a VM's id or name, or host; without it the answer is of all VMs
// by name, and of the host where there is something to say of it.
func (a *Agent) Advice(ref string) ([]Advice, error) {
	all, id, room, err := a.allAdvised(ref)
	if err != nil {
		return nil, err
	}
	out := a.advise(all, room) // of all: who is noisy, and what fits together, shows in the others
	host := &out[len(out)-1]
	switch {
	case ref == OwnerHost:
		return []Advice{*host}, nil
	case ref == "" && len(host.Findings) == 0:
		return out[:len(out)-1], nil
	case ref == "":
		return out, nil
	}
	return slices.DeleteFunc(out, func(x Advice) bool { return x.VM != id }), nil
}

// allAdvised copies what all advice is made from, by name, and finds the VM that is
// asked for.
func (a *Agent) allAdvised(ref string) (all []advised, id string, room autoscale.Limits, err error) {
	s := a.state.View()
	if ref != "" && ref != OwnerHost {
		r := s.FindVM(ref)
		if r == nil {
			return nil, "", room, vmNotFound(ref)
		}
		id = r.ID
	}
	all = make([]advised, 0, s.VMCount())
	for r := range s.VMs() {
		if v := a.known(r.ID); v != nil {
			all = append(all, a.advised(s, v, r))
		}
	}
	return all, id, a.roomFor(), nil
}

// advised copies what advice is made from.
func (a *Agent) advised(s state.View, v *vm, r *vmRecord) advised {
	a.held.Lock()
	defer a.held.Unlock()
	return advised{
		id:        r.ID,
		name:      r.Name,
		template:  r.Labels[templateLabel],
		spec:      r.Spec,
		limits:    v.limits,
		host:      s.Policy().Layer,
		own:       r.Own.Layer,
		sla:       slaOf(s, r.ID),
		idleSince: v.idleSince(r),
		taken:     r.Advice,
	}
}

// advise is the advice for each VM, in order, and last the host's.
func (a *Agent) advise(all []advised, room autoscale.Limits) []Advice {
	out := make([]Advice, 0, len(all)+1)
	states := make([]autoscale.State, 0, len(all))
	places := make(map[string]int, len(all)+1)
	names := make(map[string]string, len(all))
	pressure := a.meter.Collectors()["pressure"].OK
	for i := range all {
		v := &all[i]
		recs, history := a.recommend(v, room)
		one := Advice{VM: v.id, VMName: v.name, Template: v.template, HistorySeconds: history.Seconds(),
			Recommendations: a.viewRecommendations(recs), Findings: []Finding{}, Applied: v.undoable()}
		places[v.id], names[v.id] = len(out), v.name
		out = append(out, one)
		states = append(states, a.fared(v, recs, pressure))
	}
	places[""] = len(out)
	out = append(out, Advice{VMName: OwnerHost, Recommendations: []Recommendation{}, Findings: []Finding{}})
	for _, f := range autoscale.Findings(states, a.machine()) {
		to := &out[places[f.VM]]
		to.Findings = append(to.Findings, Finding{Kind: string(f.Kind), Other: f.Other, OtherName: names[f.Other], Text: f.Text, Evidence: f.Evidence})
	}
	return out
}

// recommend is what the use of a VM speaks for in a host with so much room, and how
// long that has been seen.
func (a *Agent) recommend(v *advised, room autoscale.Limits) ([]autoscale.Recommendation, time.Duration) {
	p := a.advisor.profile(v.id)
	if p == nil {
		return nil, 0
	}
	spec := limitsOf(v.spec)
	floor, ceiling := a.boundsIn(v.spec, room)
	policy, from := a.policyFor(spec, floor, ceiling, v.host, v.own, v.sla)
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

func (a *Agent) viewRecommendations(recs []autoscale.Recommendation) []Recommendation {
	out := make([]Recommendation, len(recs))
	for i := range recs {
		r := &recs[i]
		out[i] = Recommendation{Resource: r.Resource.String(), Spec: r.Spec, Lower: r.Lower, Target: r.Target, Upper: r.Upper, Uncapped: r.Uncapped,
			Confidence: r.Confidence, Reason: r.Reason, Saves: r.Saves, Throttled: r.Throttled, Worth: worth(r)}
	}
	return out
}

// worth reports whether taking advice changes something for the better.
func worth(r *autoscale.Recommendation) bool { return r.Changes() && r.Target != r.Spec }

// fared is how a VM did in the last minutes. Before it has been watched for long
// enough nothing is known of it but the advice.
func (a *Agent) fared(v *advised, recs []autoscale.Recommendation, pressure bool) autoscale.State {
	s := autoscale.State{VM: v.id, Name: v.name, Advice: recs, Limits: limitsOf(v.spec)}
	if v.limits.CPUs != nil {
		s.Limits[autoscale.CPU] = *v.limits.CPUs
	}
	if v.limits.MemoryBytes != nil {
		s.Limits[autoscale.Memory] = float64(*v.limits.MemoryBytes)
	}
	l, ok := a.advisor.lately(v.id, a.cfg.FindingsAfter)
	if !ok {
		return s
	}
	s.Span, s.PressureKnown = l.span, pressure
	s.CPUs, s.Throttled, s.CPUWaiting, s.CPUStalled = l.cpus, l.throttled, l.cpuWaiting, l.cpuStalled
	s.MemoryBytes, s.SwapBytes, s.SwapGrowth, s.RefaultsPerSec, s.MemoryWaiting, s.OOMKills = l.workingSet, l.swap, l.swapGrowth, l.refaultsPerSec, l.memoryWaiting, l.kills
	s.IOWaiting = l.ioWaiting
	if v.idleSince != nil && l.cpus < idle.CPUs {
		if quiet := time.Since(*v.idleSince); quiet >= a.cfg.FindingsAfter {
			s.IdleFor = quiet
		}
	}
	return s
}

// machine is how the host fared in the same minutes.
func (a *Agent) machine() autoscale.Machine {
	m := autoscale.Machine{Cores: float64(a.host.Facts().CPUs), Busy: a.advisor.hostBusy(a.cfg.FindingsAfter), Fragmentation: -1}
	if mem := a.memory.current.Load(); mem != nil && mem.FragmentationRatio != nil {
		m.Fragmentation = *mem.FragmentationRatio
		m.FreeBytes, m.LargestFree = float64(mem.FreeBytes), 1-m.Fragmentation // what is not of use for a huge page is in smaller blocks
	}
	return m
}

package apitest

import (
	"context"

	"cloudflash/agent"
	"cloudflash/agent/advice"
	"cloudflash/agent/fault"
)

// advised is what the agent advises: for a VM that little is known of, one that a
// lot is, and the host.
func advised() []advice.Advice {
	return []advice.Advice{
		{VM: "v0", VMName: "db", Template: "postgres", HistorySeconds: 3 * 86400, Recommendations: []advice.Recommendation{
			{Resource: "cpus", Spec: 2, Lower: 0.3, Target: 0.5, Upper: 0.75, Uncapped: 0.48, Confidence: 1, Reason: "90 % of the time 0.42 cores or less were used", Saves: 1.5, Throttled: 0.04, Worth: true},
			{Resource: "memory_bytes", Spec: 1 << 30, Lower: 1 << 30, Target: 1 << 30, Upper: 2 << 30, Uncapped: 1 << 30, Confidence: 1, Reason: "fits"}},
			Findings: []advice.Finding{{Kind: "throttled",
				Text: "db used up its own limit of 0.50 cores in 80 % of the periods", Evidence: map[string]float64{"throttled": 0.8}}}},
		{VM: "v1", VMName: "web", HistorySeconds: 12 * 60, Recommendations: []advice.Recommendation{
			{Resource: "cpus", Spec: 2, Lower: 0.5, Target: 0.5, Upper: 8, Uncapped: 0.36, Confidence: 0.008, Reason: "little is known yet: 12m of history; so far, 90 % of the time 0.31 cores", Saves: 1.5}},
			Findings: []advice.Finding{}},
		{VMName: "host", Recommendations: []advice.Recommendation{},
			Findings: []advice.Finding{{Kind: "fragmented-host", Text: "huge pages are hard to come by",
				Evidence: map[string]float64{"fragmentation": 0.9}}}},
	}
}

func (f *Agent) Advice(ref string) ([]advice.Advice, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if f.Err != nil {
		return nil, f.Err
	}
	all := advised()
	if f.Has.Applied != nil {
		all[0].Applied = f.Has.Applied
	}
	if ref == "" {
		return all, nil
	}
	for _, v := range all {
		if v.VM == ref || v.VMName == ref {
			return []advice.Advice{v}, nil
		}
	}
	return nil, missing("vm", ref)
}

func (f *Agent) TakeAdvice(_ context.Context, ref string, resources []string) (agent.VM, error) {
	v, err := f.VM(ref)
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Got.Advice = resources
	if err == nil && v.Name != "db" && len(resources) == 0 {
		return v, &fault.Error{Kind: fault.ErrConflict, Code: "nothing_to_apply",
			Detail: "nothing is advised for VM \"" + v.Name + "\" that is worth a change"}
	}
	from := v.Spec
	v.Spec.CPUs = 0.5
	f.Has.Applied = &agent.AppliedAdvice{From: from, To: v.Spec}
	return v, err
}

func (f *Agent) UndoAdvice(_ context.Context, ref string) (agent.VM, error) {
	v, err := f.VM(ref)
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if err == nil && f.Has.Applied == nil {
		return v, &fault.Error{Kind: fault.ErrConflict, Code: "nothing_to_undo", Detail: "VM \"" + v.Name + "\" has taken no advice"}
	}
	f.Has.Applied = nil
	return v, err
}

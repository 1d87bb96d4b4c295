package api

import (
	"context"
	"fmt"

	"cloudflash/agent"
)

// scaling is what the fake knows of autoscaling. Its host's policy is at version 1.
type scaling struct {
	own       map[string]agent.PolicyLayer // by id, the host's under ""
	versions  map[string]int
	decisions []agent.Decision
	forgotten uint64 // decisions up to here are gone
}

func (f *fakeAgent) Policy(ref string) (agent.Policy, error) {
	p := agent.Policy{Rules: []agent.Rule{}}
	if ref != "" {
		v, err := f.VM(ref)
		if err != nil {
			return p, err
		}
		p.VM, p.VMName = v.ID, v.Name
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.Own, p.Version = f.scaling.own[p.VM], fmt.Sprint(f.scaling.versions[p.VM]+1)
	return p, f.err
}

// SetPolicy refuses thresholds that are crossed, as the agent does.
func (f *fakeAgent) SetPolicy(_ context.Context, ref string, own agent.PolicyLayer, version string) (agent.Policy, error) {
	p, err := f.Policy(ref)
	if err != nil {
		return p, err
	}
	if version != "" && version != p.Version {
		return p, &agent.Error{Kind: agent.ErrPrecondition, Code: "precondition_failed", Detail: "the policy is at version " + p.Version + ", not " + version}
	}
	for resource, r := range own.Rules {
		if r.Up != nil && r.Down != nil && *r.Down >= *r.Up {
			return p, &agent.Error{Kind: agent.ErrInvalid, Code: "invalid_policy", Detail: "down must be below up",
				Fields: []agent.Field{{Pointer: "/rules/" + resource + "/down", Detail: "must be below up", Max: *r.Up}}}
		}
	}
	f.mu.Lock()
	if f.scaling.own == nil {
		f.scaling.own, f.scaling.versions = map[string]agent.PolicyLayer{}, map[string]int{}
	}
	f.scaling.own[p.VM] = own
	f.scaling.versions[p.VM]++
	f.mu.Unlock()
	return f.Policy(ref)
}

func (f *fakeAgent) ScalingStatus() agent.ScalingStatus {
	return agent.ScalingStatus{Mode: "auto", Wakeups: "events", VMs: []agent.VMScaling{{VM: "v0", VMName: "db", Mode: "auto"}, {VM: "v1", VMName: "web", Mode: "off"}}}
}

func (f *fakeAgent) Decisions(since uint64, limit int) ([]agent.Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if since > 0 && since < f.scaling.forgotten {
		return nil, &agent.Error{Kind: agent.ErrExpired, Code: "history_gone", Detail: "decisions are gone"}
	}
	var out []agent.Decision
	for _, d := range f.scaling.decisions {
		if d.Seq > since && len(out) < limit {
			out = append(out, d)
		}
	}
	return out, nil
}

// decides adds n decisions, about the VMs by turns.
func (f *fakeAgent) decides(n int, vms ...string) {
	f.change(func() {
		for range n {
			seq := uint64(len(f.scaling.decisions) + 1)
			vm := vms[int(seq)%len(vms)]
			f.scaling.decisions = append(f.scaling.decisions, agent.Decision{Seq: seq, At: epoch, VM: vm, VMName: map[string]string{"v0": "db", "v1": "web", "v8": "gone"}[vm],
				Resource: "cpus", Action: "grow", Result: agent.DecisionApplied, From: 1, To: 2})
		}
	})
}

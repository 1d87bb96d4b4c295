package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"cloudflash/agent"
)

// scaling is what the fake knows of autoscaling.
type scaling struct {
	own       map[string]agent.PolicyLayer // by id, the host's under ""
	versions  map[string]int
	raced     int // so many writers come in between before SetPolicy
	status    []agent.VMScaling
	decisions []agent.Decision
}

func (f *fakeAgent) Policy(ref string) (agent.Policy, error) {
	p := agent.Policy{PerMinute: 6, PerHour: 60, Idle: agent.IdlePolicy{AfterSeconds: 60, NoticeSeconds: 30}}
	if ref != "" {
		v, err := f.VM(ref)
		if err != nil {
			return p, err
		}
		p.VM, p.VMName = v.ID, v.Name
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.Own, p.Version = f.scaling.own[p.VM], fmt.Sprint(f.scaling.versions[p.VM])
	if i := f.scaling.own[""].Idle; i != nil && i.AfterSeconds != nil {
		p.Idle.AfterSeconds, p.Idle.Sources = *i.AfterSeconds, map[string]string{"after_seconds": "host"}
	}
	for _, name := range []string{"cpus", "memory_bytes"} {
		p.Rules = append(p.Rules, f.rule(p.VM, name))
	}
	return p, f.err
}

// rule lays what was set over defaults.
func (f *fakeAgent) rule(vm, resource string) agent.Rule {
	r := agent.Rule{Resource: resource, Mode: "auto", Up: .8, Down: .2, CooldownSeconds: 300, WindowSeconds: 3600, Target: .625, Margin: .15, Step: .5, Sources: map[string]string{}}
	if vm != "" {
		r.Min, r.Max = ptr(0.5), ptr(8.0)
		if resource == "memory_bytes" {
			r.Min, r.Max = ptr(float64(256<<20)), ptr(float64(4<<30))
		}
		r.Sources["min"], r.Sources["max"] = "spec", "spec"
	}
	layers := []string{""}
	if vm != "" {
		layers = append(layers, vm)
	}
	for i, layer := range layers {
		source := []string{"host", "vm"}[i]
		for _, name := range []string{"all", resource} {
			c := f.scaling.own[layer].Rules[name]
			over(&r.Mode, c.Mode, r.Sources, "mode", source)
			over(&r.Up, c.Up, r.Sources, "up", source)
			over(&r.CooldownSeconds, c.CooldownSeconds, r.Sources, "cooldown_seconds", source)
			if c.Max != nil {
				r.Max, r.Sources["max"] = c.Max, source
			}
		}
	}
	return r
}

func over[T any](value *T, set *T, sources map[string]string, name, source string) {
	if set != nil {
		*value, sources[name] = *set, source
	}
}

// SetPolicy knows one way to be wrong.
func (f *fakeAgent) SetPolicy(_ context.Context, ref string, own agent.PolicyLayer, version string) (agent.Policy, error) {
	p, err := f.Policy(ref)
	if err != nil {
		return p, err
	}
	for name, r := range own.Rules {
		if r.Up != nil && *r.Up > 1 {
			return p, &agent.Error{Kind: agent.ErrInvalid, Code: "invalid_policy", Detail: "up of " + name + " must be at most 1", Hint: "0.8 is the default",
				Fields: []agent.Field{{Pointer: "/rules/" + name + "/up", Detail: "must be at most 1"}}}
		}
	}
	f.mu.Lock()
	if f.scaling.own == nil {
		f.scaling.own, f.scaling.versions = map[string]agent.PolicyLayer{}, map[string]int{}
	}
	if f.scaling.raced > 0 {
		f.scaling.raced--
		f.scaling.versions[p.VM]++
		before := maps.Clone(f.scaling.own[p.VM].Rules)
		if before == nil {
			before = map[string]agent.RuleChange{}
		}
		before["riops"] = agent.RuleChange{Mode: ptr("off")}
		f.scaling.own[p.VM] = agent.PolicyLayer{Rules: before}
	}
	if now := fmt.Sprint(f.scaling.versions[p.VM]); version != "" && version != now {
		f.mu.Unlock()
		return p, &agent.Error{Kind: agent.ErrPrecondition, Code: "precondition_failed", Detail: "the policy is at version " + now + ", not " + version}
	}
	f.scaling.own[p.VM] = own
	f.scaling.versions[p.VM]++
	f.mu.Unlock()
	return f.Policy(ref)
}

func (f *fakeAgent) ScalingStatus() agent.ScalingStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return agent.ScalingStatus{Mode: "auto", Wakeups: "events", Capacity: agent.Capacity{CPUs: 16, MemoryBytes: 28 << 30, StorageBytes: 200 << 30},
		Free: agent.Capacity{CPUs: 13.5, MemoryBytes: 20 << 30, StorageBytes: 80 << 30}, Idle: agent.IdlePolicy{AfterSeconds: 60, NoticeSeconds: 30, MinVMs: 1}, VMs: slices.Clone(f.scaling.status)}
}

func (f *fakeAgent) Decisions(since uint64, limit int) ([]agent.Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []agent.Decision
	for _, d := range f.scaling.decisions {
		if d.Seq > since && len(out) < limit {
			out = append(out, d)
		}
	}
	return out, f.err
}

// someScaling is a VM that needs more than it may have, and one that is to go.
func someScaling() scaling {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.Local)
	grown := agent.Decision{Seq: 1, At: at, VM: "v0", VMName: "db", Resource: "cpus", Action: "grow", Signal: "throttled", Result: agent.DecisionApplied,
		From: 0.5, To: 2, Use: 0.5, Value: 0.9, Limit: 0.1, Reason: "throttled in 90 % of periods", KernelSeconds: 0.043, Effect: &agent.Effect{Text: "calm"}}
	short := agent.Decision{Seq: 2, At: at.Add(time.Second), VM: "v0", VMName: "db", Resource: "memory_bytes", Action: "grow", Signal: "memory.events", Result: agent.DecisionDeferred,
		From: 1 << 30, To: 1 << 30, HighFrom: 900 << 20, HighTo: 960 << 20, Reason: "at its limit", Why: "the host is full"}
	last := grown
	last.At = ago(2 * time.Hour)
	return scaling{decisions: []agent.Decision{grown, short},
		status: []agent.VMScaling{
			{VM: "v0", VMName: "db", Mode: "auto", Spent: 2, PerHour: 60, Activity: "1 cloudlet runs", Resources: []agent.Scaled{
				{Resource: "cpus", Mode: "auto", State: "at_max", Spec: 2, Limit: 2, Use: 1.96, Min: 0.5, Max: 2, Up: .8, Down: .2, LastDecision: &last},
				{Resource: "memory_bytes", Mode: "auto", State: "steady", Spec: 1 << 30, Limit: 1 << 30, High: 900 << 20, Use: 100 << 20, Min: 256 << 20, Max: 4 << 30, Up: .9, Down: .2, HoldSeconds: 3600},
				{Resource: "rbps", Mode: "off", State: "off"}}},
			{VM: "v1", VMName: "web", Mode: "off", PerHour: 60, IdleSince: ptr(ago(3 * time.Hour)), Resources: []agent.Scaled{{Resource: "cpus", Mode: "off", State: "off", Limit: 1}}},
		}}
}

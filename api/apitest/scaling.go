package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
)

// Scaling is what there is of autoscaling. Every policy is at version 1 before it is set.
type Scaling struct {
	Own       map[string]agent.PolicyLayer // by id, the host's under ""
	Versions  map[string]int               // how often it was set
	Raced     int                          // so many writers come in between before SetPolicy
	Status    []scaling.VMScaling
	Decisions []agent.Decision
	Forgotten uint64 // decisions up to here are gone
}

func (f *Agent) Policy(ref string) (policy.Policy, error) {
	p := policy.Policy{PerMinute: 6, PerHour: 60, Idle: policy.IdlePolicy{AfterSeconds: 60, NoticeSeconds: 30, Sources: map[string]string{}}}
	if ref != "" {
		v, err := f.VM(ref)
		if err != nil {
			return p, err
		}
		p.VM, p.VMName = v.ID, v.Name
	}
	f.Mu.Lock()
	defer f.Mu.Unlock()
	p.Own, p.Version = f.Has.Scaling.Own[p.VM], fmt.Sprint(f.Has.Scaling.Versions[p.VM]+1)
	if i := f.Has.Scaling.Own[""].Idle; i != nil && i.AfterSeconds != nil {
		p.Idle.AfterSeconds, p.Idle.Sources = *i.AfterSeconds, map[string]string{"after_seconds": "host"}
	}
	for _, name := range []string{"cpus", "memory_bytes"} {
		p.Rules = append(p.Rules, f.rule(p.VM, name))
	}
	return p, f.Err
}

// rule lays what was set over defaults.
func (f *Agent) rule(vm, resource string) policy.Rule {
	r := policy.Rule{
		Resource:        resource,
		Mode:            "auto",
		Up:              .8,
		Down:            .2,
		CooldownSeconds: 300,
		WindowSeconds:   3600,
		Target:          .625,
		Margin:          .15,
		Step:            .5,
		Sources:         map[string]string{},
	}
	if vm != "" {
		r.Min, r.Max = new(0.5), new(8.0)
		if resource == "memory_bytes" {
			r.Min, r.Max = new(float64(256<<20)), new(float64(4<<30))
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
			c := f.Has.Scaling.Own[layer].Rules[name]
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

// SetPolicy refuses thresholds that are too high or crossed, as the agent does.
func (f *Agent) SetPolicy(_ context.Context, ref string, own agent.PolicyLayer, version string) (policy.Policy, error) {
	p, err := f.Policy(ref)
	if err != nil {
		return p, err
	}
	for name, r := range own.Rules {
		if err := rejected(name, r); err != nil {
			return p, err
		}
	}

	f.Mu.Lock()
	scaling := &f.Has.Scaling
	if scaling.Own == nil {
		scaling.Own, scaling.Versions = map[string]agent.PolicyLayer{}, map[string]int{}
	}
	if scaling.Raced > 0 {
		scaling.Raced--
		scaling.Versions[p.VM]++
		before := maps.Clone(scaling.Own[p.VM].Rules)
		if before == nil {
			before = map[string]agent.RuleChange{}
		}
		before["riops"] = agent.RuleChange{Mode: new("off")}
		scaling.Own[p.VM] = agent.PolicyLayer{Rules: before}
	}
	if now := fmt.Sprint(scaling.Versions[p.VM] + 1); version != "" && version != now {
		f.Mu.Unlock()
		return p, &fault.Error{
			Kind:   fault.ErrPrecondition,
			Code:   "precondition_failed",
			Detail: "the policy is at version " + now + ", not " + version,
		}
	}
	scaling.Own[p.VM] = own
	scaling.Versions[p.VM]++
	f.Mu.Unlock()
	return f.Policy(ref)
}

func rejected(name string, r agent.RuleChange) error {
	switch {
	case r.Up != nil && *r.Up > 1:
		return &fault.Error{
			Kind:   fault.ErrInvalid,
			Code:   "invalid_policy",
			Detail: "up of " + name + " must be at most 1",
			Hint:   "0.8 is the default",
			Fields: []fault.Field{{Pointer: "/rules/" + name + "/up", Detail: "must be at most 1"}},
		}
	case r.Up != nil && r.Down != nil && *r.Down >= *r.Up:
		return &fault.Error{
			Kind:   fault.ErrInvalid,
			Code:   "invalid_policy",
			Detail: "down must be below up",
			Fields: []fault.Field{{Pointer: "/rules/" + name + "/down", Detail: "must be below up", Max: *r.Up}},
		}
	}
	return nil
}

func (f *Agent) ScalingStatus() agent.ScalingStatus {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return agent.ScalingStatus{
		Mode:     "auto",
		Wakeups:  "events",
		Capacity: agent.Capacity{CPUs: 16, MemoryBytes: 28 << 30, StorageBytes: 200 << 30},
		Free:     agent.Capacity{CPUs: 13.5, MemoryBytes: 20 << 30, StorageBytes: 80 << 30},
		Idle:     policy.IdlePolicy{AfterSeconds: 60, NoticeSeconds: 30, MinVMs: 1, Sources: map[string]string{}},
		VMs:      slices.Clone(f.Has.Scaling.Status),
	}
}

func (f *Agent) Decisions(since uint64, limit int) ([]agent.Decision, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if since > 0 && since < f.Has.Scaling.Forgotten {
		return nil, &fault.Error{Kind: fault.ErrExpired, Code: "history_gone", Detail: "decisions are gone"}
	}
	var out []agent.Decision
	for _, d := range f.Has.Scaling.Decisions {
		if d.Seq > since && len(out) < limit {
			out = append(out, d)
		}
	}
	return out, f.Err
}

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"testing"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"

	"pgregory.net/rapid"
)

// scalingAgent knows a VM and nothing of a kernel.
func scalingAgent(t testing.TB) (*Agent, *heldVM) {
	t.Helper()
	a := bare(t)
	return a, a.add(t, vmRecord{
		ID:    "v1",
		Name:  "web",
		State: VMFailed,
		Spec:  Spec{CPUs: 0.5, MemoryBytes: 64 * mib, StorageBytes: gib, BandwidthBPS: 100e6, PIDs: 100},
	})
}

func fieldsOf(t *testing.T, err error) []string {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) {
		t.Fatalf("no refusal: %v", err)
	}
	var out []string
	for _, f := range e.Fields {
		out = append(out, f.Pointer)
	}
	return out
}

func TestPolicyLayers(t *testing.T) {
	a, _ := scalingAgent(t)
	a.cfg.Autoscale = "recommend"
	a.own(t, ownPolicy{Layer: PolicyLayer{Rules: map[string]RuleChange{"all": {Up: new(0.9)}, "cpus": {Up: new(0.7)}}}})
	a.edit(t, "v1", func(r *vmRecord) {
		r.Own.Layer = PolicyLayer{Rules: map[string]RuleChange{"cpus": {Mode: new("auto"), Max: new(1.0)}, "memory_bytes": {Mode: new("off")}}}
	})
	p, err := a.Policy("web")
	if err != nil {
		t.Fatal(err)
	}
	cpu, mem, disk := p.Rules[autoscale.CPU], p.Rules[autoscale.Memory], p.Rules[autoscale.Storage]
	if cpu.Mode != "auto" || cpu.Up != 0.7 || *cpu.Max != 1 || *cpu.Min != 0.125 || cpu.Down != 0.2 {
		t.Errorf("cpus: %+v", cpu)
	}
	for field, want := range map[string]string{"mode": policy.SourceVM, "up": policy.SourceHost,
		"max": policy.SourceVM, "min": policy.SourceSpec, "down": policy.SourceDefault} {
		if cpu.Sources[field] != want {
			t.Errorf("cpus.%s comes from %q, not %q", field, cpu.Sources[field], want)
		}
	}
	if mem.Mode != "off" || disk.Mode != "recommend" || disk.Up != 0.9 || disk.Sources["mode"] != policy.SourceServe {
		t.Errorf("memory %+v storage %+v", mem, disk)
	}
	if p.Rules[autoscale.ReadBPS].Mode != "off" {
		t.Error("a resource without a limit is scaled")
	}
	if v, err := a.VM("v1"); err != nil || v.Autoscale.Mode != "auto" {
		t.Errorf("mode %q", v.Autoscale.Mode)
	}
	host, err := a.Policy("")
	if err != nil || host.Rules[autoscale.CPU].Min != nil || host.Rules[autoscale.CPU].Up != 0.7 || host.Rules[autoscale.Memory].Mode != "recommend" {
		t.Errorf("host %+v %v", host, err)
	}
}

// What follows from a wrong value is not said beside it.
func TestPolicyFaultsAreOfWhatWasSet(t *testing.T) {
	a, _ := scalingAgent(t)
	for want, own := range map[string]PolicyLayer{
		"rules/all/cooldown_seconds 10000h0m0s: must be 1s to 24h0m0s":        {Rules: map[string]RuleChange{"all": {CooldownSeconds: new(3.6e7)}}},
		"rules/memory_bytes/min 1.00 TiB: must be at most the spec, 64.0 MiB": {Rules: map[string]RuleChange{"memory_bytes": {Min: new(float64(1 << 40))}}},
	} {
		_, err := a.SetPolicy(context.Background(), "web", own, "")
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestPolicyIsRefused(t *testing.T) {
	tests := map[string]struct {
		ref  string
		own  PolicyLayer
		want string
	}{
		"thresholds crossed":        {"web", PolicyLayer{Rules: map[string]RuleChange{"cpus": {Up: new(0.2), Down: new(0.8)}}}, "/rules/cpus/down"},
		"crossed with a default":    {"", PolicyLayer{Rules: map[string]RuleChange{"all": {Down: new(0.85)}}}, "/rules/all/down"},
		"no cooldown":               {"", PolicyLayer{Rules: map[string]RuleChange{"all": {CooldownSeconds: new(0.0)}}}, "/rules/all/cooldown_seconds"},
		"a year of cooldown":        {"web", PolicyLayer{Rules: map[string]RuleChange{"cpus": {CooldownSeconds: new(365 * 86400.0)}}}, "/rules/cpus/cooldown_seconds"},
		"more than time has":        {"web", PolicyLayer{Rules: map[string]RuleChange{"cpus": {CooldownSeconds: new(1e300)}}}, "/rules/cpus/cooldown_seconds"},
		"bounds that contradict":    {"web", PolicyLayer{Rules: map[string]RuleChange{"memory_bytes": {Min: new(60e6 * 2), Max: new(50e6)}}}, "/rules/memory_bytes/min"},
		"spec outside":              {"web", PolicyLayer{Rules: map[string]RuleChange{"cpus": {Max: new(0.25)}}}, "/rules/cpus/max"},
		"more than the host has":    {"web", PolicyLayer{Rules: map[string]RuleChange{"cpus": {Max: new(1e4)}}}, "/rules/cpus/max"},
		"bounds of the host":        {"", PolicyLayer{Rules: map[string]RuleChange{"cpus": {Max: new(2.0)}}}, "/rules/cpus/max"},
		"bounds of all":             {"web", PolicyLayer{Rules: map[string]RuleChange{"all": {Max: new(2.0)}}}, "/rules/all/max"},
		"no such resource":          {"web", PolicyLayer{Rules: map[string]RuleChange{"gpus": {}}}, "/rules/gpus"},
		"no such mode":              {"web", PolicyLayer{Rules: map[string]RuleChange{"all": {Mode: new("on")}}}, "/rules/all/mode"},
		"no number":                 {"web", PolicyLayer{Rules: map[string]RuleChange{"cpus": {Up: new(math.NaN())}}}, "/rules/cpus/up"},
		"idle of a VM":              {"web", PolicyLayer{Idle: &IdleChange{}}, "/idle"},
		"a VM's own stands against": {"", PolicyLayer{Rules: map[string]RuleChange{"cpus": {Up: new(0.3)}}}, "/rules/cpus/down"},
		"negative idle":             {"", PolicyLayer{Idle: &IdleChange{AfterSeconds: new(-1.0)}}, "/idle/after_seconds"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, v := scalingAgent(t)
			a.edit(t, "v1", func(r *vmRecord) {
				r.Own.Layer = PolicyLayer{Rules: map[string]RuleChange{"cpus": {Down: new(0.35)}}}
			})
			_, err := a.SetPolicy(context.Background(), tt.ref, tt.own, "")
			if got := fieldsOf(t, err); len(got) == 0 || got[0] != tt.want {
				t.Errorf("%v: %v, want %s", err, got, tt.want)
			}
			if a.state.View().Policy().Gen != 0 || a.record(v.VM).Own.Gen != 0 {
				t.Error("it was stored")
			}
		})
	}
}

func TestPolicyVersions(t *testing.T) {
	a, _ := scalingAgent(t)
	ctx := context.Background()
	p, err := a.SetPolicy(ctx, "web", PolicyLayer{Rules: map[string]RuleChange{"cpus": {Up: new(0.7)}}}, "0")
	if err != nil || p.Version != "1" || p.Rules[0].Target >= 0.7 {
		t.Fatalf("%+v %v", p, err)
	}
	if _, err := a.SetPolicy(ctx, "web", PolicyLayer{}, "0"); !errors.Is(err, fault.ErrPrecondition) {
		t.Errorf("an old version is taken: %v", err)
	}
	if _, err := a.SetPolicy(ctx, "none", PolicyLayer{}, ""); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("a VM that is not: %v", err)
	}
	if p, err := a.SetPolicy(ctx, "web", PolicyLayer{}, "1"); err != nil || p.Rules[0].Up != 0.8 {
		t.Errorf("taken back: %+v %v", p, err)
	}
}

// Whatever autoscaling has set, and whatever of it is given back, is a size.
func TestSizedIsARecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := vmRecord{Spec: Spec{CPUs: 1, MemoryBytes: gib, StorageBytes: gib, BandwidthBPS: 1e8, IO: IO{ReadBPS: 1e6}}}
		want := policy.Amounts(r.Spec)
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			res := autoscale.Resource(rapid.IntRange(0, int(autoscale.Resources)-1).Draw(t, "resource"))
			if rapid.Bool().Draw(t, "back") {
				r.Sized = scaling.Unsized(&r, func(x autoscale.Resource) bool { return x == res })
				want[res] = policy.Amounts(r.Spec)[res]
				continue
			}
			to := float64(rapid.IntRange(1, 1<<30).Draw(t, "to"))
			before := r.Size()
			next := scaling.Resized(&r, res, to, to)
			if r.Size() != before {
				t.Fatal("changed in place")
			}
			r.Sized, want[res] = next, to
		}
		if policy.Amounts(r.Size()) != want {
			t.Fatalf("%v, want %v", policy.Amounts(r.Size()), want)
		}
		h := r.Held()
		if h.MemoryBytes < r.Spec.MemoryBytes || h.MemoryBytes < r.Size().MemoryBytes || h.CPUs != r.Spec.CPUs {
			t.Fatalf("held %+v of %+v", h, r)
		}
	})
}

// A layer that is taken makes a policy that holds; one that does not is refused.
func FuzzPolicyLayer(f *testing.F) {
	for _, seed := range []string{`{}`, `{"rules":{"all":{"up":0.7,"mode":"auto"}}}`, `{"rules":{"cpus":{"min":0.2,"max":1,"cooldown_seconds":5}}}`,
		`{"rules":{"memory_bytes":{"max":1e300}}}`, `{"rules":{"":{"down":-0}}}`, `{"idle":{"after_seconds":1e-300}}`} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	a, v := scalingAgent(f)
	f.Fuzz(func(t *testing.T, text string, host bool) {
		a.own(t, ownPolicy{})
		a.edit(t, v.ID, func(r *vmRecord) { r.Own = ownPolicy{} })
		var own PolicyLayer
		if json.Unmarshal([]byte(text), &own) != nil {
			t.Skip()
		}
		target := a.record(v.VM)
		if host {
			target = nil
		}
		if err := a.rules().CheckLayer(a.state.View(), target, own, a.roomFor()); err != nil {
			if len(fieldsOf(t, err)) == 0 {
				t.Fatalf("%v names no field", err)
			}
			return
		}
		if host {
			a.own(t, ownPolicy{Layer: own})
		} else {
			a.edit(t, v.ID, func(r *vmRecord) { r.Own.Layer = own })
		}
		p, _ := a.rules().Of(a.state.View(), a.record(v.VM), a.roomFor())
		if _, err := autoscale.NewScaler(v.ID, p); err != nil {
			t.Fatalf("%s was taken: %v", text, err)
		}
		for res, rule := range p.Rules {
			if n := policy.Amounts(a.record(v.VM).Spec)[res]; rule.Mode != autoscale.Off && (n < rule.Min || n > rule.Max) {
				t.Fatalf("%s was taken, and the spec %v is not in %v to %v", text, n, rule.Min, rule.Max)
			}
		}
	})
}

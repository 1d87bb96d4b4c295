// Package policy says which rules hold for a VM, and where each value comes from: the
// defaults, what the agent was started with, the host's own policy, the VM's own. It
// refuses policies and specs that cannot hold. It is pure.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// Amounts are the amounts of a spec that are scaled.
func Amounts(s state.Spec) autoscale.Limits {
	return autoscale.Limits{
		autoscale.CPU: s.CPUs, autoscale.Memory: float64(s.MemoryBytes), autoscale.Storage: float64(s.StorageBytes),
		autoscale.Bandwidth: float64(s.BandwidthBPS), autoscale.ReadBPS: float64(s.IO.ReadBPS), autoscale.WriteBPS: float64(s.IO.WriteBPS),
		autoscale.ReadIOPS: float64(s.IO.ReadIOPS), autoscale.WriteIOPS: float64(s.IO.WriteIOPS),
	}
}

// Host is what all policies on a host go by.
type Host struct {
	Mode     string // of all limits unless a policy says otherwise: off, recommend or auto
	Idle     Idle   // VMs in which nothing goes on
	Ranges   Ranges
	Defaults state.Spec // of a VM that is asked for with nothing
	CPUs     float64
}

// Sources are where the values of the rules come from, by the names in package autoscale.
// What is not in them is a default.
type Sources [autoscale.Resources]map[string]string

// Bounds of the limits of a VM: the ranges that are accepted, and what the host has. Room
// is what limits of VMs together may be at most.
func (h *Host) Bounds(s state.Spec, room autoscale.Limits) (floor, ceiling autoscale.Limits) {
	r, spec := h.Ranges, Amounts(s)
	floor = autoscale.Limits{
		autoscale.CPU:       r.CPUs.Min,
		autoscale.Memory:    float64(r.MemoryBytes.Min),
		autoscale.Storage:   float64(r.StorageBytes.Min),
		autoscale.Bandwidth: float64(r.BandwidthBPS.Min),
	}
	ceiling = autoscale.Limits{
		autoscale.CPU:       min(r.CPUs.Max, h.CPUs),
		autoscale.Memory:    min(float64(r.MemoryBytes.Max), room[autoscale.Memory]),
		autoscale.Storage:   min(float64(r.StorageBytes.Max), room[autoscale.Storage]),
		autoscale.Bandwidth: float64(r.BandwidthBPS.Max),
	}
	for res, c := range ceiling {
		if c > 0 {
			ceiling[res] = max(c, spec[res]) // what it was asked for as, it may have
		}
	}
	return floor, ceiling
}

// Of is the policy of a VM.
func (h *Host) Of(s state.View, r *state.VM, room autoscale.Limits) (autoscale.Policy, Sources) {
	floor, ceiling := h.Bounds(r.Spec, room)
	return h.For(Amounts(r.Spec), floor, ceiling, s.Policy().Layer, r.Own.Layer, SLAOf(s, r.ID))
}

// For is the policy of a VM with those amounts, bounds, layers and class of cloudlets.
func (h *Host) For(spec, floor, ceiling autoscale.Limits, host, own state.PolicyLayer, sla int) (autoscale.Policy, Sources) {
	p := autoscale.Default(spec, floor, ceiling)
	p.SLA = sla
	var sources Sources
	for res := range autoscale.Resources {
		rule, from := autoscale.Effective(p.Rules[res], h.layers(res, host, own)...)
		follow(&rule, from)
		if spec[res] <= 0 || p.Rules[res].Mode == autoscale.Off { // no limit, or no room to move it
			rule.Mode = autoscale.Off
		}
		if rule.Mode == autoscale.Off { // what is not followed may say what it likes
			rule.Min, rule.Max = min(rule.Min, rule.Max), max(rule.Min, rule.Max)
		}
		p.Rules[res], sources[res] = rule, from
	}
	return p, sources
}

// follow lets defaults go along with what was set: the target stays as far below the
// threshold as it is by default, and a window is no shorter than the cooldown.
func follow(rule *autoscale.Rule, from map[string]string) {
	const share = 0.7 / 0.8
	if from["target"] == "" && from["up"] != "" {
		rule.Target, from["target"] = math.Round(share*rule.Up*1e4)/1e4, from["up"]
	}
	if from["window"] == "" && rule.Cooldown > rule.Window {
		rule.Window, from["window"] = rule.Cooldown, from["cooldown"]
	}
}

// layers of a resource, the lowest first.
func (h *Host) layers(res autoscale.Resource, host, own state.PolicyLayer) []autoscale.Layer {
	mode := autoscale.Mode(cmp.Or(h.Mode, string(autoscale.Auto)))
	var all []autoscale.Layer
	if mode != autoscale.Auto {
		all = append(all, autoscale.Layer{Name: SourceServe, Change: autoscale.Change{Mode: &mode}})
	}
	for _, l := range []struct {
		name string
		state.PolicyLayer
	}{{SourceHost, host}, {SourceVM, own}} {
		for _, key := range [...]string{RuleAll, res.String()} {
			if c, ok := l.Rules[key]; ok {
				all = append(all, autoscale.Layer{Name: l.name, Change: changeOfRule(c)})
			}
		}
	}
	return all
}

func changeOfRule(c state.RuleChange) autoscale.Change {
	seconds := func(v *float64) *time.Duration {
		if v == nil {
			return nil
		}
		return new(time.Duration(min(max(*v, -1e9), 1e9) * float64(time.Second))) // more is refused anyway, and overflows
	}
	out := autoscale.Change{Up: c.Up, Down: c.Down, Cooldown: seconds(c.CooldownSeconds), Window: seconds(c.WindowSeconds),
		Target: c.Target, Margin: c.Margin, Step: c.Step, Min: c.Min, Max: c.Max}
	if c.Mode != nil {
		out.Mode = new(autoscale.Mode(*c.Mode))
	}
	return out
}

// SLAOf is the highest class of the cloudlets in a VM.
func SLAOf(s state.View, vmID string) int {
	sla := 0
	for c := range s.HoldIn(vmID) {
		sla = max(sla, c.SLA)
	}
	return cmp.Or(sla, state.SLAMedium)
}

// Show is how limits are scaled: of a VM, or, where r is nil, of the host.
func (h *Host) Show(s state.View, r *state.VM, room autoscale.Limits) Policy {
	own, spec := s.Policy(), Amounts(h.Defaults)
	out := Policy{Idle: h.ShowIdle(own)}
	var p autoscale.Policy
	var sources Sources
	if r == nil {
		for res := range spec {
			spec[res] = max(spec[res], 1) // every resource has a rule, though it has no bounds yet
		}
		p, sources = h.For(spec, autoscale.Limits{}, autoscale.Limits{}, own.Layer, state.PolicyLayer{}, state.SLAMedium)
	} else {
		own = r.Own
		p, sources = h.Of(s, r, room)
		out.VM, out.VMName, out.Keep = r.ID, r.Name, r.Keep
	}
	out.Version, out.Own, out.PerMinute, out.PerHour = strconv.Itoa(own.Gen), own.Layer, p.PerMinute, p.PerHour
	for res, rule := range p.Rules {
		out.Rules = append(out.Rules, viewRule(autoscale.Resource(res), rule, sources[res], r != nil))
	}
	return out
}

// ruleFields are those of a rule in the API, by their names in package autoscale.
var ruleFields = map[string]string{"mode": "mode", "up": "up", "down": "down", "cooldown": "cooldown_seconds", "window": "window_seconds",
	"target": "target", "margin": "margin", "step": "step", "min": "min", "max": "max"}

func viewRule(res autoscale.Resource, r autoscale.Rule, sources map[string]string, bounded bool) Rule {
	out := Rule{Resource: res.String(), Mode: string(r.Mode), Up: r.Up, Down: r.Down, CooldownSeconds: r.Cooldown.Seconds(),
		WindowSeconds: r.Window.Seconds(), Target: r.Target, Margin: r.Margin, Step: r.Step, Sources: map[string]string{}}
	for inner, field := range ruleFields {
		from, ok := sources[inner]
		if !ok {
			from = SourceDefault
			if inner == "min" || inner == "max" {
				from = SourceSpec
			}
		}
		out.Sources[field] = from
	}
	if bounded {
		out.Min, out.Max = &r.Min, &r.Max
	}
	return out
}

// CheckLayer returns everything that is wrong with a layer; r is nil for the host's.
func (h *Host) CheckLayer(s state.View, r *state.VM, own state.PolicyLayer, room autoscale.Limits) error {
	var f fault.List
	checkRules(own, &f, r == nil)
	if !f.Empty() {
		return f.Err("invalid_policy")
	}
	if r != nil {
		return h.check(r.Spec, s.Policy().Layer, own, room)
	}
	spec := autoscale.Limits{}
	for res := range spec {
		spec[res] = 1
	}
	p, _ := h.For(spec, autoscale.Limits{}, autoscale.Limits{}, own, state.PolicyLayer{}, state.SLAMedium)
	if err := policyFaults(p.Validate(), own); err != nil {
		return err
	}
	for v := range s.VMs() {
		if err := h.check(v.Spec, own, v.Own.Layer, room); err != nil {
			var e *fault.Error
			if errors.As(err, &e) {
				e.Detail = fmt.Sprintf("with the policy of VM %s it would not hold: %s", v.Name, e.Detail)
				e.Hint = "change the VM's policy first: cloudflash autoscale policy " + v.Name
			}
			return err
		}
	}
	return nil
}

// CheckAsked refuses a spec that the VM's own bounds leave out, in the words of who
// asks for it.
func CheckAsked(next *state.VM) error {
	var f fault.List
	hint := "cloudflash autoscale set " + next.Name
	for res, n := range Amounts(next.Spec) {
		r := autoscale.Resource(res)
		c, at := next.Own.Layer.Rules[r.String()], "/"+r.String()
		if r >= autoscale.ReadBPS {
			at = "/io" + at
		}
		if c.Min != nil && n < *c.Min && n > 0 {
			f.Add(at, *c.Min, nil, "%s is less than the VM's policy allows, min %s", r.Amount(n), r.Amount(*c.Min))
			hint += " " + r.String() + " min="
		}
		if c.Max != nil && n > *c.Max {
			f.Add(at, nil, *c.Max, "%s is more than the VM's policy allows, max %s", r.Amount(n), r.Amount(*c.Max))
			hint += " " + r.String() + " max="
		}
	}
	err := f.Err("outside_policy")
	var e *fault.Error
	if errors.As(err, &e) {
		e.Hint = hint + " takes the bound back"
	}
	return err
}

// CheckSpec checks the own layer of a VM against a spec that it is to have.
func (h *Host) CheckSpec(s state.Spec, host, own state.PolicyLayer, room autoscale.Limits) error {
	var f fault.List
	checkRules(own, &f, false)
	if !f.Empty() {
		return f.Err("invalid_policy")
	}
	return h.check(s, host, own, room)
}

func (h *Host) check(s state.Spec, host, own state.PolicyLayer, room autoscale.Limits) error {
	floor, ceiling := h.Bounds(s, room)
	p, _ := h.For(Amounts(s), floor, ceiling, host, own, state.SLAMedium)
	var errs []error
	for res, rule := range p.Rules {
		r := autoscale.Resource(res)
		name := r.String()
		if hi := ceiling[res]; hi > 0 && rule.Max > hi*(1+1e-9) {
			errs = append(errs, &autoscale.Fault{Field: name + ".max", Detail: fmt.Sprintf("%s: must be at most %s, what the host has or the agent accepts", r.Amount(rule.Max), r.Amount(hi))})
		}
		switch n := Amounts(s)[res]; {
		case rule.Mode == autoscale.Off:
		case n < rule.Min*(1-1e-9):
			errs = append(errs, &autoscale.Fault{Field: name + ".min", Detail: fmt.Sprintf("%s: must be at most the spec, %s", r.Amount(rule.Min), r.Amount(n))})
		case n > rule.Max*(1+1e-9):
			errs = append(errs, &autoscale.Fault{Field: name + ".max", Detail: fmt.Sprintf("%s: must be at least the spec, %s", r.Amount(rule.Max), r.Amount(n))})
		}
		if rule.Min < floor[res]*(1-1e-9) {
			errs = append(errs, &autoscale.Fault{Field: name + ".min", Detail: fmt.Sprintf("%s: must be at least %s", r.Amount(rule.Min), r.Amount(floor[res]))})
		}
	}
	return policyFaults(errors.Join(append(errs, p.Validate())...), own)
}

func checkRules(l state.PolicyLayer, f *fault.List, host bool) {
	for _, name := range slices.Sorted(maps.Keys(l.Rules)) {
		c, at := l.Rules[name], "/rules/"+pointerEscape(name)
		if _, err := autoscale.ParseResource(name); err != nil && name != RuleAll {
			f.Add(at, nil, nil, "is no resource: all, cpus, memory_bytes, storage_bytes, bandwidth_bps, rbps, wbps, riops or wiops")
			continue
		}
		if (host || name == RuleAll) && (c.Min != nil || c.Max != nil) {
			field := "/min"
			if c.Min == nil {
				field = "/max"
			}
			f.Add(at+field, nil, nil, "bounds are set for one resource of one VM; without, they are a quarter and four times its spec")
		}
		for field, v := range map[string]*float64{"up": c.Up, "down": c.Down, "cooldown_seconds": c.CooldownSeconds, "window_seconds": c.WindowSeconds,
			"target": c.Target, "margin": c.Margin, "step": c.Step, "min": c.Min, "max": c.Max} {
			if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0)) {
				f.Add(at+"/"+field, nil, nil, "must be a number")
			}
		}
		if m := c.Mode; m != nil && !slices.Contains([]string{"off", "recommend", "auto"}, *m) {
			f.Add(at+"/mode", nil, nil, "must be off, recommend or auto, not %s", fault.Quote(*m))
		}
	}
	checkIdle(l, f, host)
}

// policyFaults names the fields of the request that a policy is wrong for. What is
// wrong with others only follows from that, unless there is nothing else.
func policyFaults(err error, own state.PolicyLayer) error {
	f, others := faultsIn(err, own)
	if f.Empty() {
		f = others
	}
	return f.Err("invalid_policy")
}

// faultsIn returns what is wrong with values of own, and with others.
func faultsIn(err error, own state.PolicyLayer) (said, others fault.List) {
	seen := map[string]bool{}
	for _, fault := range allFaults(err) {
		res, inner, _ := strings.Cut(fault.Field, ".")
		field, at, f := ruleFields[inner], res, &said
		switch {
		case names(own.Rules[res], field):
		case names(own.Rules[RuleAll], field):
			at = RuleAll
		default:
			f = &others
		}
		pointer := "/rules/" + at + "/" + cmp.Or(field, inner)
		if !seen[pointer] {
			seen[pointer] = true
			f.Add(pointer, nil, nil, "%s", fault.Detail)
		}
	}
	return said, others
}

// names reports whether a change says something of a field.
func names(c state.RuleChange, field string) bool {
	switch field {
	case "mode":
		return c.Mode != nil
	case "up":
		return c.Up != nil
	case "down":
		return c.Down != nil
	case "cooldown_seconds":
		return c.CooldownSeconds != nil
	case "window_seconds":
		return c.WindowSeconds != nil
	case "target":
		return c.Target != nil
	case "margin":
		return c.Margin != nil
	case "step":
		return c.Step != nil
	case "min":
		return c.Min != nil
	case "max":
		return c.Max != nil
	}
	return false
}

func allFaults(err error) []*autoscale.Fault {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*autoscale.Fault
		for _, e := range many.Unwrap() {
			out = append(out, allFaults(e)...)
		}
		return out
	}
	var f *autoscale.Fault
	if errors.As(err, &f) {
		return []*autoscale.Fault{f}
	}
	return []*autoscale.Fault{{Field: "", Detail: err.Error()}}
}

// pointerEscape writes a name as part of a JSON pointer (RFC 6901).
func pointerEscape(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}

// ModeOf says how a VM is scaled in one word.
func (h *Host) ModeOf(host state.OwnPolicy, r *state.VM) string {
	mode := string(autoscale.Off)
	for res, n := range Amounts(r.Spec) {
		if n <= 0 {
			continue
		}
		switch m := h.modeFor(host, r, autoscale.Resource(res)); {
		case m == string(autoscale.Auto):
			return m
		case m != string(autoscale.Off):
			mode = m
		}
	}
	return mode
}

// modeFor is the mode that the layers say, the last that says one.
func (h *Host) modeFor(host state.OwnPolicy, r *state.VM, res autoscale.Resource) string {
	mode := cmp.Or(h.Mode, string(autoscale.Auto))
	for _, l := range [...]map[string]state.RuleChange{host.Layer.Rules, r.Own.Layer.Rules} {
		for _, key := range [...]string{RuleAll, res.String()} {
			if c := l[key]; c.Mode != nil {
				mode = *c.Mode
			}
		}
	}
	return mode
}

// HostMode is the mode of a VM that says nothing.
func (h *Host) HostMode(host state.OwnPolicy) string {
	return h.ModeOf(host, &state.VM{Spec: state.Spec{CPUs: 1, MemoryBytes: 1, StorageBytes: 1, BandwidthBPS: 1}})
}

package advice

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
)

// Choose is the spec of a VM once it has what is advised for the named resources; none
// are all for which that is worth it. Named ones are taken whatever little is known.
func (d *Advisor) Choose(r *state.VM, resources []string) (state.Spec, error) {
	now, ok := d.cfg.Now(r.ID)
	if !ok {
		return r.Spec, state.NoVM(r.ID)
	}
	of := advisedOf(d.cfg.State.View(), r, now)
	recs, history := d.recommend(&of, d.cfg.Room())
	taken, err := chosen(&of, recs, history, resources)
	if err != nil {
		return r.Spec, err
	}
	to := r.Spec
	for i := range taken {
		to.Set(taken[i].Resource.String(), taken[i].Target)
	}
	return to, nil
}

// Undo is the spec of a VM once it has again what it had before advice was taken last.
// What has been changed since is in the way.
func Undo(r *state.VM) (state.Spec, error) {
	if r.Advice == nil {
		return r.Spec, fault.Refuse(fault.ErrConflict, "nothing_to_undo", "", "VM %s has taken no advice", fault.Quote(r.Name))
	}
	if changed := changedSince(r.Spec, r.Advice); len(changed) > 0 {
		return r.Spec, fault.Refuse(fault.ErrConflict, "nothing_to_undo", "cloudflash vm set changes it further",
			"advice was taken for VM %s, but it has been changed since: %s", fault.Quote(r.Name), strings.Join(changed, ", "))
	}
	to := r.Spec
	for _, res := range differing(r.Advice.From, r.Advice.To) {
		to.Set(res.String(), policy.Amounts(r.Advice.From)[res])
	}
	return to, nil
}

// CheckResources refuses what are no names of resources.
func CheckResources(names []string) error {
	var f fault.List
	for i, name := range names {
		if _, err := autoscale.ParseResource(name); err != nil {
			f.Add(fmt.Sprintf("/resources/%d", i), nil, nil, "is %s, not one of %s", fault.Quote(name), strings.Join(resourceNames(), ", "))
		}
	}
	return f.Err("invalid_resource")
}

func resourceNames() []string {
	var names []string
	for r := range autoscale.Resources {
		names = append(names, r.String())
	}
	return names
}

// chosen are the recommendations that are to be taken: all that are worth it, or the
// named ones, of which each must be there and differ from the spec.
func chosen(v *advised, recs []autoscale.Recommendation, history time.Duration, names []string) ([]autoscale.Recommendation, error) {
	nothing := func(format string, args ...any) error {
		return fault.Refuse(fault.ErrConflict, "nothing_to_apply", "cloudflash recommend "+v.name+" shows what is known", format, args...)
	}
	if len(names) == 0 {
		recs = slices.DeleteFunc(recs, func(r autoscale.Recommendation) bool { return !worth(&r) })
		if len(recs) == 0 {
			return nil, nothing("nothing is advised for VM %s that is worth a change, going by %s of history",
				fault.Quote(v.name), autoscale.Span(history))
		}
		return recs, nil
	}
	var taken []autoscale.Recommendation
	for _, name := range names {
		i := slices.IndexFunc(recs, func(r autoscale.Recommendation) bool { return r.Resource.String() == name })
		if i < 0 {
			return nil, nothing("nothing is advised for %s of VM %s: it has no such limit, or nothing is known of its use yet", name, fault.Quote(v.name))
		}
		if recs[i].Target == recs[i].Spec {
			return nil, nothing("%s of VM %s is what is advised, %s", name, fault.Quote(v.name), recs[i].Resource.Amount(recs[i].Spec))
		}
		taken = append(taken, recs[i])
	}
	return taken, nil
}

// undoable is the advice that was taken last, if it can be undone.
func (v *advised) undoable() *state.AppliedAdvice {
	if v.taken == nil || len(changedSince(v.spec, v.taken)) > 0 {
		return nil
	}
	return v.taken
}

// changedSince says which of what was taken is no longer so.
func changedSince(spec state.Spec, taken *state.AppliedAdvice) (changed []string) {
	now, to := policy.Amounts(spec), policy.Amounts(taken.To)
	for _, r := range differing(taken.From, taken.To) {
		if now[r] != to[r] {
			changed = append(changed, fmt.Sprintf("%s is %s, not %s", r, r.Amount(now[r]), r.Amount(to[r])))
		}
	}
	return changed
}

// differing are the resources of which one spec has another amount than another.
func differing(x, y state.Spec) (all []autoscale.Resource) {
	one, other := policy.Amounts(x), policy.Amounts(y)
	for r := range autoscale.Resources {
		if one[r] != other[r] {
			all = append(all, r)
		}
	}
	return all
}

// Difference says in words what a change of the spec does.
func Difference(from, to state.Spec) string {
	before, after := policy.Amounts(from), policy.Amounts(to)
	var parts []string
	for _, r := range differing(from, to) {
		parts = append(parts, fmt.Sprintf("%s %s → %s", r, r.Amount(before[r]), r.Amount(after[r])))
	}
	return strings.Join(parts, ", ")
}

// rounded makes a number that a person would ask for: hundredths of a core, MiB,
// kbit/s, KiB/s, whole operations. It is not less than is advised, except where the
// bounds leave no more, and an IO limit never becomes 0, which is none.
func rounded(r autoscale.Resource, v float64, rule autoscale.Rule) float64 {
	unit := 1.0
	switch r {
	case autoscale.CPU:
		unit = 0.01
	case autoscale.Memory, autoscale.Storage:
		unit = 1 << 20
	case autoscale.Bandwidth:
		unit = 1000
	case autoscale.ReadBPS, autoscale.WriteBPS:
		unit = 1024
	}
	in := func(n float64) bool { return rule.Min <= n && (n <= rule.Max || rule.Max <= 0) }
	units := max(math.Ceil(v/unit-1e-9), 1)
	for _, n := range [...]float64{units, units - 1} {
		size := n * unit
		if r == autoscale.CPU {
			size = n / 100 // 0.07, not 0.07 and a bit
		}
		if n > 0 && in(size) {
			return size
		}
	}
	if r == autoscale.CPU {
		return v
	}
	return max(math.Trunc(v), 1) // the bounds are closer together than that
}

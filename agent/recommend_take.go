package agent

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
)

// TakeAdvice gives a VM what is advised for the named resources; none are all for
// which that is worth it. Named ones are taken whatever little is known. It is all or
// nothing, and UndoAdvice takes it back, also after a restart.
func (a *Agent) TakeAdvice(ctx context.Context, ref string, resources []string) (VM, error) {
	v, err := a.lookup(ref)
	if err != nil {
		return VM{}, err
	}
	if err := checkResources(resources); err != nil {
		return VM{}, err
	}
	v.work.Lock()
	defer v.work.Unlock()
	s := a.state.View()
	of, room := a.advised(s, v, v.in(s)), a.roomFor()
	recs, history := a.recommend(&of, room)
	taken, err := chosen(&of, recs, history, resources)
	if err != nil {
		return VM{}, err
	}
	to := of.spec
	for i := range taken {
		to.Set(taken[i].Resource.String(), taken[i].Target)
	}
	out, err := a.change(ctx, v, changeOf(of.spec, to), func(next *vmRecord) {
		next.Advice = &AppliedAdvice{At: time.Now().UTC(), From: of.spec, To: to}
	})
	if err != nil {
		return VM{}, err
	}
	a.note(Event{Level: LevelInfo, Kind: "advice.applied", VM: v.ID, Message: fmt.Sprintf("VM %s has what is advised: %s", v.Name, difference(of.spec, to)),
		Data: map[string]any{"from": of.spec, "to": to}})
	return out, nil
}

// UndoAdvice gives a VM back what it had of the resources for which advice was taken
// last, unless they have been changed since.
func (a *Agent) UndoAdvice(ctx context.Context, ref string) (VM, error) {
	v, err := a.lookup(ref)
	if err != nil {
		return VM{}, err
	}
	v.work.Lock()
	defer v.work.Unlock()
	s := a.state.View()
	of := a.advised(s, v, v.in(s))
	if of.taken == nil {
		return VM{}, fault.Refuse(fault.ErrConflict, "nothing_to_undo", "", "VM %s has taken no advice", fault.Quote(v.Name))
	}
	if changed := of.changedSince(); len(changed) > 0 {
		return VM{}, fault.Refuse(fault.ErrConflict, "nothing_to_undo", "cloudflash vm set changes it further",
			"advice was taken for VM %s, but it has been changed since: %s", fault.Quote(v.Name), strings.Join(changed, ", "))
	}
	to := of.spec
	for _, r := range differing(of.taken.From, of.taken.To) {
		to.Set(r.String(), limitsOf(of.taken.From)[r])
	}
	out, err := a.change(ctx, v, changeOf(of.spec, to), func(next *vmRecord) { next.Advice = nil })
	if err != nil {
		return VM{}, err
	}
	a.note(Event{Level: LevelInfo, Kind: "advice.undone", VM: v.ID, Message: fmt.Sprintf("VM %s has again what it had before advice was taken: %s", v.Name, difference(of.spec, to)),
		Data: map[string]any{"from": of.spec, "to": to}})
	return out, nil
}

func checkResources(names []string) error {
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
			return nil, nothing("nothing is advised for VM %s that is worth a change, going by %s of history", fault.Quote(v.name), autoscale.Span(history))
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
func (v *advised) undoable() *AppliedAdvice {
	if v.taken == nil || len(v.changedSince()) > 0 {
		return nil
	}
	return v.taken
}

// changedSince says which of what was taken is no longer so.
func (v *advised) changedSince() (changed []string) {
	now, to := limitsOf(v.spec), limitsOf(v.taken.To)
	for _, r := range differing(v.taken.From, v.taken.To) {
		if now[r] != to[r] {
			changed = append(changed, fmt.Sprintf("%s is %s, not %s", r, r.Amount(now[r]), r.Amount(to[r])))
		}
	}
	return changed
}

// differing are the resources of which one spec has another amount than another.
func differing(x, y Spec) (all []autoscale.Resource) {
	one, other := limitsOf(x), limitsOf(y)
	for r := range autoscale.Resources {
		if one[r] != other[r] {
			all = append(all, r)
		}
	}
	return all
}

// difference says in words what a change of the spec does.
func difference(from, to Spec) string {
	before, after := limitsOf(from), limitsOf(to)
	var parts []string
	for _, r := range differing(from, to) {
		parts = append(parts, fmt.Sprintf("%s %s → %s", r, r.Amount(before[r]), r.Amount(after[r])))
	}
	return strings.Join(parts, ", ")
}

// changeOf is the change that turns one spec into another.
func changeOf(from, to Spec) VMChange {
	var ch VMChange
	if from.CPUs != to.CPUs {
		ch.CPUs = &to.CPUs
	}
	if from.MemoryBytes != to.MemoryBytes {
		ch.MemoryBytes = &to.MemoryBytes
	}
	if from.StorageBytes != to.StorageBytes {
		ch.StorageBytes = &to.StorageBytes
	}
	if from.BandwidthBPS != to.BandwidthBPS {
		ch.BandwidthBPS = &to.BandwidthBPS
	}
	if from.IO != to.IO {
		ch.IO = &to.IO
	}
	return ch
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
		unit = float64(mib)
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

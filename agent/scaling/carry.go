package scaling

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/clock"
	"cloudflash/agent/fault"
	"cloudflash/agent/meter"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

// carried is what became of the decisions of one VM.
type carried struct {
	f       *follower
	results []result
	base    meter.Sample // right after
}

// result is what became of one decision.
type result struct {
	seq   uint64
	d     autoscale.Decision
	limit float64 // that the kernel has now
	high  float64
	took  time.Duration // from the look to the kernel
	err   error
}

// planned is a decision with what becomes of it.
type planned struct {
	f      *follower
	d      autoscale.Decision
	result state.DecisionResult
	high   float64 // memory.high as it is
}

// carryOut does what was decided. What the limits shall be is stored in one commit
// before any is written: an agent that is killed in between writes them when it comes
// back. The leases of VMs of which something is written are taken out of leases, and
// given back when that is done.
func (l *Loop) carryOut(plan []autoscale.Decision, leases map[*follower]Lease, began time.Time) {
	news := l.news(plan, leases)
	if len(news) == 0 {
		return
	}
	todo := map[*follower][]result{}
	old := map[*follower]map[string]float64{}
	var stored []state.Decision
	err := l.cfg.State.Update(func(tx *state.Tx) error {
		for _, p := range news {
			r := tx.VM(p.f.id)
			if r == nil || r.State != state.VMRunning {
				continue // deleted in between
			}
			if _, seen := old[p.f]; !seen {
				old[p.f] = r.Sized
			}
			decision := shown(p.f, p.d, p.result)
			decision.Seq = tx.AddDecision(decision)
			stored = append(stored, decision)

			rec := *r
			switch p.result {
			case state.DecisionApplied:
				rec.Sized = Resized(r, p.d.Resource, p.d.To, p.d.HighTo)
				todo[p.f] = append(todo[p.f], result{seq: decision.Seq, d: p.d})
			case state.DecisionNoticed:
				rec.Sized = Resized(r, p.d.Resource, p.d.To, p.high)
			}
			if !maps.Equal(rec.Sized, r.Sized) {
				tx.PutVM(rec)
			}
			if p.result != state.DecisionApplied { // those are told of, and count, when they are done
				tx.Tell(eventOf(decision))
				tx.Then(func() { l.cfg.Count(decision) })
			}
		}
		return nil
	})
	if err != nil {
		return // tried again at the next look
	}
	l.remember(stored...)
	for f, results := range todo {
		lease := leases[f]
		if l.cfg.Spawn(func(ctx context.Context) { l.carryOutVM(ctx, f, lease, results, old[f], began) }) {
			delete(leases, f)
		}
	}
}

// news are the decisions that have not been told of, of VMs whose leases we have.
func (l *Loop) news(plan []autoscale.Decision, leases map[*follower]Lease) (news []planned) {
	l.mu.Lock()
	defer l.mu.Unlock()
	view := l.cfg.State.View()
	for _, d := range plan {
		f := l.leased(d, leases)
		if f == nil {
			continue
		}
		r := resultOf(f, d)
		if r == "" {
			continue // told before
		}
		now, _ := f.v.Now(view)
		news = append(news, planned{f, d, r, now.High})
	}
	return news
}

// leased is the follower of a decision once we have its VM's lease. Those of others that
// are asked to give something are taken here. The caller holds l.mu.
func (l *Loop) leased(d autoscale.Decision, leases map[*follower]Lease) *follower {
	f := l.followers[d.VM]
	if f == nil {
		return nil
	}
	if leases[f] == nil {
		lease, ok := f.v.Work()
		if !ok {
			return nil
		}
		leases[f] = lease
	}
	return f
}

// toldAgain is how often a wish that is not granted is told of.
const toldAgain = 10 * time.Minute

// resultOf is what becomes of a decision; empty where that has been told already.
func resultOf(f *follower, d autoscale.Decision) state.DecisionResult {
	before := &f.told[d.Resource]
	r := state.DecisionApplied
	switch {
	case d.Action == autoscale.Drift:
		return state.DecisionNoticed
	case d.Status == autoscale.Deferred:
		r = state.DecisionDeferred
	case d.Status == autoscale.Infeasible:
		r = state.DecisionInfeasible
	case d.DryRun:
		r = state.DecisionRecommended
	default:
		*before = told{}
		return r
	}
	before.seen = d.At
	again := before.result == r && d.At.Sub(before.at) < toldAgain && !another(d, before.decision)
	if again || autoscale.Settled(before.decision, d) {
		return ""
	}
	*before = told{result: r, at: d.At, seen: d.At, decision: d}
	return r
}

// another reports whether a dry run would now do something else.
func another(x, y autoscale.Decision) bool {
	return x.DryRun && (x.Up() != y.Up() || math.Abs(x.To-y.To) > 0.1*y.To)
}

// writeTime is what the kernel may take to have the new limits of one VM.
const writeTime = 30 * time.Second

// carryOutVM writes the new limits of one VM, whose lease it was given.
func (l *Loop) carryOutVM(ctx context.Context, f *follower, lease Lease, results []result, old map[string]float64, began time.Time) {
	defer lease.Release()
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	// CPU and memory first: they are quick, and urgent
	slices.SortFunc(results, func(x, y result) int { return cmp.Compare(x.d.Resource, y.d.Resource) })
	for i := range results {
		r := &results[i]
		r.limit, r.high, r.err = lease.Write(ctx, r.d)
		r.took = time.Since(began)
		if r.err == nil {
			l.took(f, lease, r)
		}
	}
	l.correct(f, results, old)
	c := carried{f: f, results: results}
	if now, _ := f.v.Now(l.cfg.State.View()); now.Probe != nil {
		c.base, _ = now.Probe.Look(false)
	}
	select {
	case l.done <- c:
	case <-ctx.Done():
	}
}

// took lets everybody know the limit that the kernel has now.
func (l *Loop) took(f *follower, lease Lease, r *result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease.Took(r.d.Resource, r.limit, r.high)
	if f.scaler != nil { // its policy may have ceased to hold meanwhile
		f.scaler.Applied(r.d, clock.Steady(), r.limit)
	}
}

// correct stores what the limits are where they did not become what was stored.
func (l *Loop) correct(f *follower, results []result, old map[string]float64) {
	wrong := slices.DeleteFunc(slices.Clone(results), func(r result) bool {
		return r.err == nil && r.limit == r.d.To && r.high == r.d.HighTo
	})
	if len(wrong) == 0 {
		return
	}
	before := state.VM{Sized: old}
	err := l.cfg.State.UpdateAnyway(func(tx *state.Tx) error {
		r := tx.VM(f.id)
		if r == nil {
			return state.NoVM(f.id)
		}
		rec := *r
		for _, one := range wrong {
			res := one.d.Resource
			if one.err == nil {
				rec.Sized = Resized(&rec, res, one.limit, one.high)
				continue
			}
			rec.Sized = Unsized(&rec, func(x autoscale.Resource) bool { return x == res })
			rec.Sized = Keeping(&rec, &before, res)
		}
		tx.PutVM(rec)
		return nil
	})
	if err != nil {
		l.cfg.Log.Error("store the limits of a VM", "vm", f.name, "err", err)
	}
}

// failAgain is how long a limit that the kernel refused is left alone, and twice as
// long each time that it is refused again, up to toldAgain: each try is stored and
// told of, and a VM that has filled a full disk's share would try for ever.
const failAgain = 10 * time.Second

// failed notes that a limit was refused, or was not.
func (f *follower) failed(res autoscale.Resource, now time.Time, failed bool) {
	if !failed {
		f.fails[res] = 0
		return
	}
	f.wait[res] = now.Add(min(failAgain<<min(f.fails[res], 8), toldAgain))
	f.fails[res]++
}

// finishDecisions stores what became of decisions, all that have gathered in one
// commit.
func (l *Loop) finishDecisions(c carried) {
	all := []carried{c}
	for more := true; more && len(all) < cap(l.done); {
		select {
		case c := <-l.done:
			all = append(all, c)
		default:
			more = false
		}
	}
	var stored []state.Decision
	_ = l.cfg.State.Update(func(tx *state.Tx) error { // it has logged why; what the limits are is stored in any case
		for _, c := range all {
			for _, r := range c.results {
				d := tx.Decision(r.seq)
				if d == nil {
					continue
				}
				next := *d
				finishDecision(&next, r)
				tx.PutDecision(next)
				if !errors.Is(r.err, cgroup.ErrGone) {
					tx.Tell(eventOf(next))
				}
				tx.Then(func() { l.cfg.Count(next) })
				stored = append(stored, next)
			}
		}
		return nil
	})
	l.remember(stored...)

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range all {
		for _, r := range c.results {
			c.f.failed(r.d.Resource, time.Now(), r.err != nil)
			if r.err == nil {
				c.f.effects = append(c.f.effects, effect{seq: r.seq, res: r.d.Resource, base: c.base})
			}
		}
	}
}

// finishDecision tells what became of a decision.
func finishDecision(d *state.Decision, r result) {
	d.KernelSeconds = r.took.Seconds()
	switch {
	case errors.Is(r.err, cgroup.ErrGone):
		d.Result, d.Why = state.DecisionFailed, "the VM was deleted meanwhile"
	case errors.Is(r.err, fault.ErrCapacity):
		d.Result, d.Why = state.DecisionDeferred, r.err.Error()
	case r.err != nil:
		d.Result, d.Why = state.DecisionFailed, r.err.Error()
	default:
		if math.Abs(r.limit-d.To) > 1 {
			d.Why = "memory in use does not let memory.max be lowered yet"
		}
		d.To, d.HighTo = r.limit, r.high
	}
	if d.Result != state.DecisionApplied {
		d.KernelSeconds = 0
	}
}

package agent

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
	"cloudflash/agent/storage"
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
	result DecisionResult
	high   float64 // memory.high as it is
}

// carryOut does what was decided. What the limits shall be is stored in one commit
// before any is written: an agent that is killed in between writes them when it comes
// back. VMs of which something is written are taken out of locked; their work is
// given back when that is done.
func (a *Agent) carryOut(plan []autoscale.Decision, locked map[string]*follower, began time.Time) {
	news := a.news(plan, locked)
	if len(news) == 0 {
		return
	}
	todo := map[*follower][]result{}
	old := map[*follower]map[string]float64{}
	var stored []Decision
	err := a.state.Update(func(tx *state.Tx) error {
		for _, p := range news {
			r := tx.VM(p.f.v.ID)
			if r == nil || r.State != VMRunning {
				continue // deleted in between
			}
			if _, seen := old[p.f]; !seen {
				old[p.f] = r.Sized
			}
			shown := viewDecision(p.f.v, p.d, p.result)
			shown.Seq = tx.AddDecision(shown)
			stored = append(stored, shown)

			rec := *r
			switch p.result {
			case DecisionApplied:
				rec.Sized = resized(r, p.d.Resource, p.d.To, p.d.HighTo)
				todo[p.f] = append(todo[p.f], result{seq: shown.Seq, d: p.d})
			case DecisionNoticed:
				rec.Sized = resized(r, p.d.Resource, p.d.To, p.high)
			}
			if !maps.Equal(rec.Sized, r.Sized) {
				tx.PutVM(rec)
			}
			if p.result != DecisionApplied { // those are told of, and count, when they are done
				tx.Tell(eventOf(shown))
				tx.Then(func() { a.scaled(shown) })
			}
		}
		return nil
	})
	if err != nil {
		return // tried again at the next look
	}
	a.remember(stored...)
	for f, results := range todo {
		if a.spawn(func(ctx context.Context) { a.carryOutVM(ctx, f, results, old[f], began) }) {
			delete(locked, f.v.ID)
		}
	}
}

// scaled counts a decision.
func (a *Agent) scaled(d Decision) {
	a.held.Lock()
	defer a.held.Unlock()
	a.outcomes.scaled(d)
}

// news are the decisions that have not been told of, as they are for VMs whose work
// is ours.
func (a *Agent) news(plan []autoscale.Decision, locked map[string]*follower) (news []planned) {
	a.scaling.mu.Lock()
	defer a.scaling.mu.Unlock()
	for _, d := range plan {
		f := a.lockedFor(d, locked)
		if f == nil {
			continue
		}
		r := resultOf(f, d)
		if r == "" {
			continue // told before
		}
		a.held.Lock()
		high := highOf(f.v.limits)
		a.held.Unlock()
		news = append(news, planned{f, d, r, high})
	}
	return news
}

// lockedFor is the follower of a decision once its VM's work is ours. Others that are
// asked to give something are locked here. The caller holds scaling.mu.
func (a *Agent) lockedFor(d autoscale.Decision, locked map[string]*follower) *follower {
	f := a.scaling.followers[d.VM]
	if f == nil {
		return nil
	}
	if locked[d.VM] == nil {
		if !f.v.work.TryLock() {
			return nil
		}
		locked[d.VM] = f
	}
	return f
}

// toldAgain is how often a wish that is not granted is told of.
const toldAgain = 10 * time.Minute

// resultOf is what becomes of a decision; empty where that has been told already.
func resultOf(f *follower, d autoscale.Decision) DecisionResult {
	before := &f.told[d.Resource]
	r := DecisionApplied
	switch {
	case d.Action == autoscale.Drift:
		return DecisionNoticed
	case d.Status == autoscale.Deferred:
		r = DecisionDeferred
	case d.Status == autoscale.Infeasible:
		r = DecisionInfeasible
	case d.DryRun:
		r = DecisionRecommended
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

// carryOutVM writes the new limits of one VM, whose work it was given.
func (a *Agent) carryOutVM(ctx context.Context, f *follower, results []result, old map[string]float64, began time.Time) {
	defer f.v.work.Unlock()
	ctx, cancel := context.WithTimeout(ctx, kernelTimeout)
	defer cancel()
	slices.SortFunc(results, func(x, y result) int { return cmp.Compare(x.d.Resource, y.d.Resource) }) // CPU and memory first: they are quick, and urgent
	for i := range results {
		r := &results[i]
		r.limit, r.high, r.err = a.write(ctx, f.v, r.d)
		r.took = time.Since(began)
		if r.err == nil {
			a.took(f, r)
		}
	}
	a.correct(f, results, old)
	c := carried{f: f, results: results}
	a.held.Lock()
	p := f.v.probe
	a.held.Unlock()
	if p != nil {
		c.base, _ = p.Look(false)
	}
	select {
	case a.scaling.done <- c:
	case <-ctx.Done():
	}
}

// took lets everybody know the limit that the kernel has now.
func (a *Agent) took(f *follower, r *result) {
	a.scaling.mu.Lock()
	defer a.scaling.mu.Unlock()
	a.held.Lock()
	f.v.limits.setLimit(r.d.Resource, r.limit, r.high)
	a.held.Unlock()
	if f.scaler != nil { // its policy may have ceased to hold meanwhile
		f.scaler.Applied(r.d, clock.Steady(), r.limit)
	}
}

// correct stores what the limits are where they did not become what was stored.
func (a *Agent) correct(f *follower, results []result, old map[string]float64) {
	wrong := slices.DeleteFunc(slices.Clone(results), func(r result) bool {
		return r.err == nil && r.limit == r.d.To && r.high == r.d.HighTo
	})
	if len(wrong) == 0 {
		return
	}
	err := a.updateAnyway(f.v, func(rec *vmRecord) {
		for _, r := range wrong {
			if r.err == nil {
				rec.Sized = resized(rec, r.d.Resource, r.limit, r.high)
				continue
			}
			before := vmRecord{Sized: old}
			rec.Sized = unsized(rec, func(res autoscale.Resource) bool { return res == r.d.Resource })
			if v, ok := before.Sized[r.d.Resource.String()]; ok {
				rec.Sized = resized(rec, r.d.Resource, v, before.Sized[sizedHigh])
			}
		}
	})
	if err != nil {
		a.log.Error("store the limits of a VM", "vm", f.v.Name, "err", err)
	}
}

// write makes the kernel have a new limit and returns what it has.
func (a *Agent) write(ctx context.Context, v *vm, d autoscale.Decision) (limit, high float64, err error) {
	switch d.Resource {
	case autoscale.CPU:
		err = v.slice.Apply(cgroup.Limits{CPU: cpuLimit(d.To)})
	case autoscale.Memory:
		return a.writeMemory(ctx, v, d)
	case autoscale.Storage:
		err = a.applyStorage(v, int64(d.To))
	case autoscale.Bandwidth:
		err = a.applyBandwidth(v, int64(d.To))
	default:
		io := a.record(v).Size().IO
		var l cgroup.Limits
		if l.IO, err = a.ioLimits(io); err == nil {
			err = v.slice.Apply(l)
		}
	}
	return d.To, d.HighTo, err
}

// writeMemory moves both knobs. Up, max goes first. Down, memory is reclaimed before
// high is lowered, so that no task of the VM has to do it, and max only if what is in
// use has then stayed below it: the kernel would kill (Linux has no limit that waits).
func (a *Agent) writeMemory(ctx context.Context, v *vm, d autoscale.Decision) (limit, high float64, err error) {
	most, working := int64(d.To), int64(d.HighTo)
	if d.Up() {
		if err := v.slice.Apply(cgroup.Limits{MemoryMax: &most}); err != nil {
			return 0, 0, err
		}
		return d.To, d.HighTo, v.slice.Apply(cgroup.Limits{MemoryHigh: &working})
	}
	if d.Reclaim > 0 {
		if err := v.slice.Reclaim(ctx, int64(d.Reclaim)); err != nil && !errors.Is(err, cgroup.ErrReclaim) {
			return 0, 0, err
		}
	}
	if err := v.slice.Apply(cgroup.Limits{MemoryHigh: &working}); err != nil {
		return 0, 0, err
	}
	use, err := memoryInUse(v.slice)
	if err != nil || most >= int64(d.From) || float64(use) > leastSpare*d.To {
		return d.From, d.HighTo, err
	}
	return d.To, d.HighTo, v.slice.Apply(cgroup.Limits{MemoryMax: &most})
}

// leastSpare is how full of use a new memory.max may be. A VM may take memory between
// the look and the write.
const leastSpare = 0.9

// setLimit notes a limit that was written. The caller has a.held.
func (l *Limits) setLimit(res autoscale.Resource, v, high float64) {
	n := int64(v)
	switch res {
	case autoscale.CPU:
		l.CPUs = &v
	case autoscale.Memory:
		l.MemoryBytes, l.MemoryHighBytes = &n, new(int64(high))
		if int64(high) >= n {
			l.MemoryHighBytes = new(n)
		}
	case autoscale.Storage:
		l.StorageBytes = &n
	case autoscale.Bandwidth:
		l.BandwidthBPS = &n
	default:
		if l.IO != nil {
			io := Spec{IO: *l.IO}
			io.Set(res.String(), v)
			l.IO = &io.IO
		}
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
func (a *Agent) finishDecisions(c carried) {
	all := []carried{c}
	for more := true; more && len(all) < cap(a.scaling.done); {
		select {
		case c := <-a.scaling.done:
			all = append(all, c)
		default:
			more = false
		}
	}
	var stored []Decision
	_ = a.state.Update(func(tx *state.Tx) error { // it has logged why; what the limits are is stored in any case
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
				tx.Then(func() { a.scaled(next) })
				stored = append(stored, next)
			}
		}
		return nil
	})
	a.remember(stored...)

	a.scaling.mu.Lock()
	defer a.scaling.mu.Unlock()
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
func finishDecision(d *Decision, r result) {
	d.KernelSeconds = r.took.Seconds()
	var room *storage.RoomError
	switch {
	case errors.Is(r.err, cgroup.ErrGone):
		d.Result, d.Why = DecisionFailed, "the VM was deleted meanwhile"
	case errors.As(r.err, &room), errors.Is(r.err, fault.ErrCapacity):
		d.Result, d.Why = DecisionDeferred, r.err.Error()
	case r.err != nil:
		d.Result, d.Why = DecisionFailed, r.err.Error()
	default:
		if math.Abs(r.limit-d.To) > 1 {
			d.Why = "memory in use does not let memory.max be lowered yet"
		}
		d.To, d.HighTo = r.limit, r.high
	}
	if d.Result != DecisionApplied {
		d.KernelSeconds = 0
	}
}

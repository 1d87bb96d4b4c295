package agent

import (
	"fmt"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/meter"
	"cloudflash/agent/state"
)

// Decisions returns at most limit decisions after seq since, oldest first. fault.ErrExpired
// means that decisions right after since are no longer kept.
func (a *Agent) Decisions(since uint64, limit int) ([]Decision, error) {
	found, oldest := a.state.View().Decisions(since, limit)
	if since > 0 && oldest > 0 && since < oldest-1 {
		return nil, fault.Refuse(fault.ErrExpired, "history_gone", "start again from since=0",
			"decisions after %d are gone, the oldest kept is %d", since, oldest)
	}
	return found, nil
}

func viewDecision(v *vm, d autoscale.Decision, r DecisionResult) Decision {
	return Decision{At: time.Now().UTC(), VM: v.ID, VMName: v.Name, Resource: d.Resource.String(), Action: string(d.Action), Signal: string(d.Signal), Result: r,
		From: d.From, To: d.To, HighFrom: d.HighFrom, HighTo: d.HighTo, Use: d.Use, Value: d.Value, Limit: d.Limit, Reason: d.Reason(), Why: d.Why}
}

// eventOf tells of a decision in the system log.
func eventOf(d Decision) Event {
	res, _ := autoscale.ParseResource(d.Resource)
	from, to := res.Amount(d.From), res.Amount(d.To)
	if res == autoscale.Memory && d.HighTo > 0 {
		high := "none"
		if d.HighFrom > 0 {
			high = res.Amount(d.HighFrom)
		}
		from, to = fmt.Sprintf("%s (working limit %s)", from, high), fmt.Sprintf("%s (%s)", to, res.Amount(d.HighTo))
	}
	change := fmt.Sprintf("%s of VM %s: %s → %s: %s", d.Resource, d.VMName, from, to, d.Reason)
	var e Event
	switch d.Result {
	case DecisionApplied:
		e = Event{Level: LevelInfo, Kind: "vm.scaled", Message: change}
	case DecisionRecommended:
		e = Event{Level: LevelInfo, Kind: "autoscale.recommended", Message: "would change " + change + " (a dry run: nothing was changed)"}
	case DecisionDeferred:
		e = Event{Level: LevelWarn, Kind: "autoscale.deferred", Message: "cannot change now " + change}
	case DecisionInfeasible:
		e = Event{Level: LevelWarn, Kind: "autoscale.infeasible", Message: "cannot change " + change}
	case DecisionFailed:
		e = Event{Level: LevelError, Kind: "autoscale.failed", Message: "could not change " + change}
	case DecisionNoticed:
		e = Event{Level: LevelWarn, Kind: "autoscale.drift",
			Message: fmt.Sprintf("somebody else changed %s of VM %s: %s → %s; autoscaling goes on from there", d.Resource, d.VMName, from, to)}
	}
	e.VM = d.VM
	e.Data = map[string]any{"decision": d.Seq, "resource": d.Resource, "from": d.From, "to": d.To, "signal": d.Signal, "kernel_seconds": d.KernelSeconds}
	if d.Why != "" {
		e.Message += " (" + d.Why + ")"
	}
	return e
}

// effect is a change whose effect is to be seen.
type effect struct {
	seq  uint64
	res  autoscale.Resource
	base meter.Sample
}

// effectAfter is when the effect of a change is looked at.
const effectAfter = time.Second

// seeEffects tells what changes of a second ago have done.
func (a *Agent) seeEffects() {
	seen := a.effects()
	if len(seen) == 0 {
		return
	}
	var stored []Decision
	if a.state.Update(func(tx *state.Tx) error {
		for seq, e := range seen {
			if d := tx.Decision(seq); d != nil {
				next := *d
				next.Effect = e
				tx.PutDecision(next)
				stored = append(stored, next)
			}
		}
		return nil
	}) != nil {
		return // it has logged why
	}
	a.remember(stored...)
}

// effects are those that can be told by now, by the number of their decision.
func (a *Agent) effects() map[uint64]*Effect {
	a.scaling.mu.Lock()
	defer a.scaling.mu.Unlock()
	seen := map[uint64]*Effect{}
	for _, f := range a.scaling.followers {
		left := f.effects[:0]
		for _, e := range f.effects {
			if e.base.At.IsZero() || f.last.At.Sub(e.base.At) < effectAfter {
				if !e.base.At.IsZero() && time.Since(e.base.At) < 10*effectAfter {
					left = append(left, e)
				}
				continue
			}
			a.held.Lock()
			limit := currentOf(f.v.limits)[e.res]
			a.held.Unlock()
			seen[e.seq] = effectOf(e, &f.last, limit)
		}
		f.effects = left
	}
	return seen
}

// remember keeps the last decisions of the VMs that they are of.
func (a *Agent) remember(stored ...Decision) {
	a.scaling.mu.Lock()
	defer a.scaling.mu.Unlock()
	for _, d := range stored {
		f := a.scaling.followers[d.VM]
		if res, err := autoscale.ParseResource(d.Resource); err == nil && f != nil {
			f.recent[res] = &d
		}
	}
}

func effectOf(e effect, now *meter.Sample, limit float64) *Effect {
	dt := now.At.Sub(e.base.At).Seconds()
	grown := func(k meter.Count) float64 { // an idle VM is not read in full: its last numbers may be older than base
		return max(float64(now.Counters[k])-float64(e.base.Counters[k]), 0)
	}
	share := func(k meter.Count) float64 { return min(max(grown(k)/1e6/dt, 0), 1) }
	out := &Effect{Seconds: dt, Limit: limit, CPUWaiting: share(meter.CPUWaiting), MemoryWaiting: share(meter.MemoryWaiting)}
	if n := grown(meter.Periods); n > 0 {
		out.Throttled = min(grown(meter.ThrottledPeriods)/n, 1)
	}
	suffers := ""
	switch e.res {
	case autoscale.CPU:
		out.Use = grown(meter.CPUTime) / 1e6 / dt
		suffers = fmt.Sprintf(", throttled in %.0f %% of the periods", 100*out.Throttled)
	case autoscale.Memory:
		out.Use = float64(now.WorkingSet)
		suffers = fmt.Sprintf(", waited for memory %.1f %% of the time", 100*out.MemoryWaiting)
	case autoscale.Bandwidth:
		out.Use = 8 * max(grown(meter.ReceivedBytes), grown(meter.SentBytes)) / dt
	case autoscale.Storage:
		out.Use = 0
	case autoscale.ReadBPS:
		out.Use = grown(meter.ReadBytes) / dt
	case autoscale.WriteBPS:
		out.Use = grown(meter.WrittenBytes) / dt
	case autoscale.ReadIOPS:
		out.Use = grown(meter.ReadOps) / dt
	case autoscale.WriteIOPS:
		out.Use = grown(meter.WriteOps) / dt
	}
	if e.res != autoscale.Storage {
		out.Text = fmt.Sprintf("%s of %s used%s", e.res.Amount(out.Use), e.res.Amount(limit), suffers)
	}
	return out
}

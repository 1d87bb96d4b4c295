package scaling

import (
	"fmt"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/meter"
	"cloudflash/agent/state"
)

// shown is a decision as it is stored and shown.
func shown(f *follower, d autoscale.Decision, r state.DecisionResult) state.Decision {
	return state.Decision{At: time.Now().UTC(), VM: f.id, VMName: f.name, Resource: d.Resource.String(),
		Action: string(d.Action), Signal: string(d.Signal), Result: r,
		From: d.From, To: d.To, HighFrom: d.HighFrom, HighTo: d.HighTo, Use: d.Use, Value: d.Value, Limit: d.Limit, Reason: d.Reason(), Why: d.Why}
}

// eventOf tells of a decision in the system log.
func eventOf(d state.Decision) state.Event {
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
	var e state.Event
	switch d.Result {
	case state.DecisionApplied:
		e = state.Event{Level: state.LevelInfo, Kind: "vm.scaled", Message: change}
	case state.DecisionRecommended:
		e = state.Event{Level: state.LevelInfo, Kind: "autoscale.recommended",
			Message: "would change " + change + " (a dry run: nothing was changed)"}
	case state.DecisionDeferred:
		e = state.Event{Level: state.LevelWarn, Kind: "autoscale.deferred", Message: "cannot change now " + change}
	case state.DecisionInfeasible:
		e = state.Event{Level: state.LevelWarn, Kind: "autoscale.infeasible", Message: "cannot change " + change}
	case state.DecisionFailed:
		e = state.Event{Level: state.LevelError, Kind: "autoscale.failed", Message: "could not change " + change}
	case state.DecisionNoticed:
		e = state.Event{Level: state.LevelWarn, Kind: "autoscale.drift",
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
func (l *Loop) seeEffects() {
	seen := l.effects()
	if len(seen) == 0 {
		return
	}
	var stored []state.Decision
	if l.cfg.State.Update(func(tx *state.Tx) error {
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
	l.remember(stored...)
}

// effects are those that can be told by now, by the number of their decision.
func (l *Loop) effects() map[uint64]*state.Effect {
	l.mu.Lock()
	defer l.mu.Unlock()
	view := l.cfg.State.View()
	seen := map[uint64]*state.Effect{}
	for _, f := range l.followers {
		left := f.effects[:0]
		for _, e := range f.effects {
			if e.base.At.IsZero() || f.last.At.Sub(e.base.At) < effectAfter {
				if !e.base.At.IsZero() && time.Since(e.base.At) < 10*effectAfter {
					left = append(left, e)
				}
				continue
			}
			now, _ := f.v.Now(view)
			seen[e.seq] = effectOf(e, &f.last, now.Limits[e.res])
		}
		f.effects = left
	}
	return seen
}

// remember keeps the last decisions of the VMs that they are of.
func (l *Loop) remember(stored ...state.Decision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range stored {
		f := l.followers[d.VM]
		if res, err := autoscale.ParseResource(d.Resource); err == nil && f != nil {
			f.recent[res] = &d
		}
	}
}

func effectOf(e effect, now *meter.Sample, limit float64) *state.Effect {
	dt := now.At.Sub(e.base.At).Seconds()
	grown := func(k meter.Count) float64 { // an idle VM is not read in full: its last numbers may be older than base
		return max(float64(now.Counters[k])-float64(e.base.Counters[k]), 0)
	}
	share := func(k meter.Count) float64 { return min(max(grown(k)/1e6/dt, 0), 1) }
	out := &state.Effect{Seconds: dt, Limit: limit, CPUWaiting: share(meter.CPUWaiting), MemoryWaiting: share(meter.MemoryWaiting)}
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

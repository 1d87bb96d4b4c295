// Package outcomes counts what became of cloudlets, of decisions of autoscaling and of
// changes, for the metrics.
package outcomes

import (
	"maps"

	"cloudflash/agent/state"
)

// Counts are what became of cloudlets and of decisions of autoscaling, and
// the events, since this agent began. A copy is in every snapshot.
type Counts struct {
	Ended     map[Ending]int64 // no key is missing that Endings has
	Deadlines [state.SLAHigh + 1]Deadlines
	Waiting   [state.SLAHigh + 1]Waiting
	Events    map[string]int64        // by kind
	Scaling   map[ScaledOutcome]int64 // no key is missing that Scalings has
	Kernel    KernelTime
	Unstored  int64 // changes that could not be written to the disk
}

// Ending is how a cloudlet ended, in one of few words: its Reason tells more.
type Ending struct {
	State  state.CloudletState
	Reason string
}

// Endings are all outcomes there are.
var Endings = []Ending{
	{state.CloudletSucceeded, "done"},
	{state.CloudletFailed, "exit_code"}, {state.CloudletFailed, "signal"}, {state.CloudletFailed,
		"oom"}, {state.CloudletFailed, "not_started"},
	{state.CloudletCancelled, "request"}, {state.CloudletCancelled, "queued"}, {state.CloudletCancelled, "vm_deleted"},
	{state.CloudletDeadlineExceeded, "killed"}, {state.CloudletDeadlineExceeded, "late"}, {state.CloudletDeadlineExceeded, "not_started"},
	{state.CloudletLost, "vm_lost"},
}

// countedKinds are the events whose count is there before the first of them.
var countedKinds = []string{"agent.started", "cloudlet.queued", "cloudlet.started", "cloudlet.stopping", "cloudlet.finished",
	"vm.created", "vm.create_failed", "vm.resized", "vm.frozen", "vm.thawed", "vm.deleting", "vm.deleted", "vm.delete_failed",
	"vm.keep", "vm.idle", "vm.busy", "vm.idle_deleted",
	"vm.recovered", "vm.failed", "vm.init_died", "vm.thrashing", "vm.port_taken", "network.lost", "data.set_aside",
	"vm.scaled", "autoscale.policy", "autoscale.recommended", "autoscale.deferred", "autoscale.infeasible", "autoscale.failed", "autoscale.drift",
	"advice.applied", "advice.undone", "token.created", "token.revoked", "session.created"}

// Deadlines counts ended cloudlets that had one. Those that failed, were
// cancelled or lost before it are in neither number.
type Deadlines struct {
	Met    int64 // succeeded by then
	Missed int64 // ended later, or was ended at it
}

// WaitingBounds are the upper bounds of Waiting's buckets, in seconds. A last
// one has no bound.
var WaitingBounds = [...]float64{.01, .05, .1, .5, 1, 5, 30, 60, 300, 1800}

// Waiting is a histogram of the seconds from submission to start.
type Waiting struct {
	Buckets [len(WaitingBounds) + 1]int64
	Seconds float64
}

// New has a zero for everything that may come.
func New() Counts {
	o := Counts{Ended: map[Ending]int64{}, Events: map[string]int64{}, Scaling: map[ScaledOutcome]int64{}}
	for _, e := range Endings {
		o.Ended[e] = 0
	}
	for _, kind := range countedKinds {
		o.Events[kind] = 0
	}
	for _, s := range Scalings() {
		o.Scaling[s] = 0
	}
	return o
}

// Clone is a copy that stays as it is.
func (o *Counts) Clone() *Counts {
	c := *o
	c.Ended, c.Events, c.Scaling = maps.Clone(o.Ended), maps.Clone(o.Events), maps.Clone(o.Scaling)
	return &c
}

// CloudletBegan counts the wait of a cloudlet that has started.
func (o *Counts) CloudletBegan(c *state.Cloudlet) {
	if c.StartedAt == nil || c.SLA < state.SLALow || c.SLA > state.SLAHigh {
		return
	}
	w := &o.Waiting[c.SLA]
	waited := max(c.StartedBoot-c.SubmittedBoot, 0).Seconds()
	i := 0
	for i < len(WaitingBounds) && waited > WaitingBounds[i] {
		i++
	}
	w.Buckets[i]++
	w.Seconds += waited
}

// CloudletEnded counts a cloudlet whose final state is stored.
func (o *Counts) CloudletEnded(c *state.Cloudlet) {
	o.Ended[Ending{c.State, causeOf(c)}]++
	if c.DeadlineAt == nil || c.SLA < state.SLALow || c.SLA > state.SLAHigh {
		return
	}
	switch {
	case c.State == state.CloudletDeadlineExceeded || c.OverrunSeconds > 0:
		o.Deadlines[c.SLA].Missed++
	case c.State == state.CloudletSucceeded:
		o.Deadlines[c.SLA].Met++
	}
}

// causeOf is the reason of a final state among those of Endings.
func causeOf(r *state.Cloudlet) string {
	never := r.StartedAt == nil
	switch r.State {
	case state.CloudletSucceeded:
		return "done"
	case state.CloudletFailed:
		return failureOf(r)
	case state.CloudletCancelled:
		switch {
		case r.Reason == state.ReasonVMDeleted:
			return "vm_deleted"
		case never:
			return "queued"
		}
		return "request"
	case state.CloudletDeadlineExceeded:
		switch {
		case never:
			return "not_started"
		case r.Stop == state.StopDeadline:
			return "killed"
		}
		return "late"
	}
	return "vm_lost"
}

func failureOf(r *state.Cloudlet) string {
	switch {
	case r.Reason == "oom":
		return "oom"
	case r.Signal != "":
		return "signal"
	case r.StartedAt == nil:
		return "not_started"
	}
	return "exit_code"
}

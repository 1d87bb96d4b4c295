package agent

import (
	"maps"
	"time"
)

// Outcomes counts what became of cloudlets and of decisions of autoscaling, and
// the events, since this agent began. A copy is in every snapshot.
type Outcomes struct {
	Ended     map[Outcome]int64 // no key is missing that Endings has
	Deadlines [SLAHigh + 1]Deadlines
	Waiting   [SLAHigh + 1]Waiting
	Events    map[string]int64        // by kind
	Scaling   map[ScaledOutcome]int64 // no key is missing that Scalings has
	Kernel    KernelTime
	Unstored  int64 // changes that could not be written to the disk
}

// reasonVMDeleted is the reason of cloudlets that their VM took with it.
const reasonVMDeleted = "its VM was deleted"

// Outcome is how a cloudlet ended, in one of few words: its Reason tells more.
type Outcome struct {
	State  CloudletState
	Reason string
}

// Endings are all outcomes there are.
var Endings = []Outcome{
	{CloudletSucceeded, "done"},
	{CloudletFailed, "exit_code"}, {CloudletFailed, "signal"}, {CloudletFailed, "oom"}, {CloudletFailed, "not_started"},
	{CloudletCancelled, "request"}, {CloudletCancelled, "queued"}, {CloudletCancelled, "vm_deleted"},
	{CloudletDeadlineExceeded, "killed"}, {CloudletDeadlineExceeded, "late"}, {CloudletDeadlineExceeded, "not_started"},
	{CloudletLost, "vm_lost"},
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

func newOutcomes() Outcomes {
	o := Outcomes{Ended: map[Outcome]int64{}, Events: map[string]int64{}, Scaling: map[ScaledOutcome]int64{}}
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

func (o *Outcomes) clone() *Outcomes {
	c := *o
	c.Ended, c.Events, c.Scaling = maps.Clone(o.Ended), maps.Clone(o.Events), maps.Clone(o.Scaling)
	return &c
}

// began counts the wait of a cloudlet that has started.
func (o *Outcomes) began(c *cloudletRecord) {
	if c.StartedAt == nil || c.SLA < SLALow || c.SLA > SLAHigh {
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

// ended counts a cloudlet whose final state is stored.
func (o *Outcomes) ended(c *cloudletRecord) {
	o.Ended[Outcome{c.State, causeOf(c)}]++
	if c.DeadlineAt == nil || c.SLA < SLALow || c.SLA > SLAHigh {
		return
	}
	switch {
	case c.State == CloudletDeadlineExceeded || c.OverrunSeconds > 0:
		o.Deadlines[c.SLA].Missed++
	case c.State == CloudletSucceeded:
		o.Deadlines[c.SLA].Met++
	}
}

// causeOf is the reason of a final state among those of Endings.
func causeOf(r *cloudletRecord) string {
	never := r.StartedAt == nil
	switch r.State {
	case CloudletSucceeded:
		return "done"
	case CloudletFailed:
		return failureOf(r)
	case CloudletCancelled:
		switch {
		case r.Reason == reasonVMDeleted:
			return "vm_deleted"
		case never:
			return "queued"
		}
		return "request"
	case CloudletDeadlineExceeded:
		switch {
		case never:
			return "not_started"
		case r.Stop == stopDeadline:
			return "killed"
		}
		return "late"
	}
	return "vm_lost"
}

func failureOf(r *cloudletRecord) string {
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

// Overdue tells whether a cloudlet has not ended though its deadline has passed.
func (c Cloudlet) Overdue(now time.Time) bool {
	return !c.State.Final() && c.DeadlineAt != nil && now.After(*c.DeadlineAt)
}

package autoscale

import (
	"fmt"
	"time"
)

// Action is what a decision does.
type Action string

// The actions.
const (
	Grow     Action = "grow"
	Shrink   Action = "shrink"
	Rollback Action = "rollback" // a shrink that hurt is taken back
	Drift    Action = "drift"    // somebody else changed the limit: nothing is written, what was learned of it is forgotten
)

// Signal is what a decision rests on.
type Signal string

// The signals.
const (
	ByUsage     Signal = "usage"         // above Up
	ByThrottled Signal = "throttled"     // share of throttled periods
	ByPressure  Signal = "pressure"      // share of the time that tasks waited
	ByEvents    Signal = "memory.events" // high or max was reached
	ByGrowth    Signal = "growth"        // memory that will be full before the next look
	ByOOM       Signal = "oom"
	ByRefaults  Signal = "refaults"
	ByIdle      Signal = "below"  // below Down for the cooldown
	ByWindow    Signal = "window" // well below the peak of the window
	ByShare     Signal = "share"  // well below what is enough nearly all the time
	ByBounds    Signal = "bounds" // the limit is outside of the policy's bounds
	ByHost      Signal = "host"   // another VM needs it
	ByHand      Signal = "by hand"
)

// Status is what became of a decision.
type Status string

// The statuses. Deferred may work later; Infeasible not before something else is
// asked for.
const (
	Proposed   Status = "proposed"
	Granted    Status = "granted"
	Deferred   Status = "deferred"
	Infeasible Status = "infeasible"
)

// A Decision is one change of one limit, with what it rests on.
type Decision struct {
	At       time.Time     `json:"at"`
	VM       string        `json:"vm"`
	Resource Resource      `json:"resource"`
	Action   Action        `json:"action"`
	Signal   Signal        `json:"signal"`
	From     float64       `json:"from"`
	To       float64       `json:"to"`
	Use      float64       `json:"use"`   // now
	Value    float64       `json:"value"` // of the signal
	Limit    float64       `json:"limit"` // that it crossed
	Peak     float64       `json:"peak,omitempty"`
	Window   time.Duration `json:"window,omitempty"` // that Peak is of

	// Memory has a second knob: From and To are memory.max, these are memory.high.
	// To grow, max is written before high. To shrink, Reclaim bytes are asked of
	// memory.reclaim first, then high is written, then max, if memory.current has
	// stayed below it.
	HighFrom float64 `json:"high_from,omitempty"`
	HighTo   float64 `json:"high_to,omitempty"`
	Reclaim  float64 `json:"reclaim,omitempty"`

	// Owed is the limit up to which a VM may always grow: its spec. Arrange counts what
	// is above against what the host has left.
	Owed    float64   `json:"owed,omitempty"`
	SLA     int       `json:"sla"`
	Waiting time.Time `json:"waiting,omitzero"` // since when it is wished for
	DryRun  bool      `json:"dry_run,omitempty"`
	Status  Status    `json:"status"`
	Why     string    `json:"why,omitempty"` // it is not granted, or not in full
}

// spill makes of a wish for more memory, which cannot be granted, one for all of what
// the VM has: memory.high goes up to memory.max. A VM that is kept below memory.high
// and may not grow would crawl for as long as that lasts, each few pages slept for up
// to two seconds, and meet neither its limit nor the OOM killer. It reports false
// where high is there already.
func (d *Decision) spill(why string) bool {
	if d.Resource != Memory || d.HighFrom >= d.From {
		return false
	}
	d.To, d.HighTo, d.Why = d.From, d.From, why
	return true
}

// Up reports whether a decision asks the host for more.
func (d *Decision) Up() bool { return d.Action == Grow || d.Action == Rollback }

// Reason says in words what a decision rests on.
func (d *Decision) Reason() string {
	r := d.Resource
	switch d.Signal {
	case ByUsage:
		return fmt.Sprintf("%s in use is %s of the limit, above %s", r.Amount(d.Use), percent(d.Value), percent(d.Limit))
	case ByThrottled:
		return fmt.Sprintf("throttled in %s of the periods, above %s", percent(d.Value), percent(d.Limit))
	case ByPressure:
		return fmt.Sprintf("tasks waited %s of the time, above %s", percent(d.Value), percent(d.Limit))
	case ByEvents:
		return fmt.Sprintf("the limit was reached %.0f times", d.Value)
	case ByGrowth:
		return fmt.Sprintf("%s in use grow by %s each second and would be above %s of the limit within seconds", r.Amount(d.Use), r.Amount(d.Value), percent(d.Limit))
	case ByOOM:
		return fmt.Sprintf("%.0f OOM kills with %s in use", d.Value, r.Amount(d.Use))
	case ByRefaults:
		return fmt.Sprintf("%.0f pages each second were read back, above %.0f", d.Value, d.Limit)
	case ByIdle:
		return fmt.Sprintf("use stayed below %s of the limit for %v", percent(d.Limit), d.Window.Round(time.Second))
	case ByWindow:
		return fmt.Sprintf("the peak of the last %v is %s, %s of the limit", d.Window.Round(time.Second), r.Amount(d.Peak), percent(d.Value))
	case ByBounds:
		return fmt.Sprintf("%s is outside of the bounds", r.Amount(d.From))
	case ByHost:
		return fmt.Sprintf("the host is full, and %s is all that was needed in the last %v", r.Amount(d.Peak), d.Window.Round(time.Second))
	case ByHand:
		return fmt.Sprintf("the limit is %s where %s was written last", r.Amount(d.To), r.Amount(d.From))
	}
	return string(d.Signal)
}

func (d *Decision) String() string {
	s := fmt.Sprintf("%s %s %s → %s: %s", d.Action, d.Resource, d.Resource.Amount(d.From), d.Resource.Amount(d.To), d.Reason())
	if d.Why != "" {
		s += " (" + string(d.Status) + ": " + d.Why + ")"
	}
	return s
}

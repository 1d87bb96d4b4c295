package state

import "time"

// Event levels.
const (
	LevelInfo  = "info"
	LevelWarn  = "warn"
	LevelError = "error"
)

// Event is one line of the system log.
type Event struct {
	Seq      uint64         `json:"seq"`
	At       time.Time      `json:"at"`
	Level    string         `json:"level" enum:"info,warn,error"`
	Kind     string         `json:"kind" doc:"Such as vm.created, vm.resized, cloudlet.finished, agent.started"`
	VM       string         `json:"vm,omitempty" doc:"Id of the VM it is about"`
	Cloudlet string         `json:"cloudlet,omitempty" doc:"Id of the cloudlet it is about"`
	Message  string         `json:"message"`
	Data     map[string]any `json:"data,omitempty"`
}

// DecisionResult is what became of a decision.
type DecisionResult string

// The results.
const (
	DecisionApplied     DecisionResult = "applied"
	DecisionRecommended DecisionResult = "recommended" // a dry run: nothing was written
	DecisionDeferred    DecisionResult = "deferred"    // no room now, or the budget of changes is spent
	DecisionInfeasible  DecisionResult = "infeasible"  // the host will never have room
	DecisionFailed      DecisionResult = "failed"      // the kernel refused
	DecisionNoticed     DecisionResult = "noticed"     // somebody else changed the limit
)

// Decision is one decision of autoscaling and what it did. Amounts are in the unit
// of the resource.
type Decision struct {
	Seq      uint64         `json:"seq"`
	At       time.Time      `json:"at"`
	VM       string         `json:"vm"`
	VMName   string         `json:"vm_name"`
	Resource string         `json:"resource"`
	Action   string         `json:"action" enum:"grow,shrink,rollback,drift"`
	Signal   string         `json:"signal" doc:"Such as usage, throttled, pressure, memory.events, oom, window"`
	Result   DecisionResult `json:"result" enum:"applied,recommended,deferred,infeasible,failed,noticed"`
	From     float64        `json:"from"`
	To       float64        `json:"to"`
	HighFrom float64        `json:"high_from,omitempty" doc:"memory.high, the working limit; from and to are memory.max"`
	HighTo   float64        `json:"high_to,omitempty"`
	Use      float64        `json:"use" doc:"At the decision"`
	Value    float64        `json:"value" doc:"Of the signal"`
	Limit    float64        `json:"limit" doc:"That the value crossed"`
	Reason   string         `json:"reason"`
	Why      string         `json:"why,omitempty" doc:"It was not done, or not in full"`
	// KernelSeconds is from the look that showed the need to the kernel having the
	// new limit.
	KernelSeconds float64 `json:"kernel_seconds,omitempty"`
	Effect        *Effect `json:"effect,omitempty" doc:"A second later; null until then"`
}

// Effect is how a VM fared in the second after a change of its limits.
type Effect struct {
	Seconds       float64 `json:"seconds" doc:"How long was looked at"`
	Use           float64 `json:"use"`
	Limit         float64 `json:"limit"`
	Throttled     float64 `json:"throttled" doc:"Share of CPU periods"`
	CPUWaiting    float64 `json:"cpu_waiting" doc:"Share of the time, PSI some"`
	MemoryWaiting float64 `json:"memory_waiting"`
	Text          string  `json:"text"`
}

package scaling

import (
	"time"

	"cloudflash/agent/state"
)

// Scaled is how one resource of a VM stands.
type Scaled struct {
	Resource      string          `json:"resource"`
	Mode          string          `json:"mode" enum:"off,recommend,auto"`
	State         string          `json:"state" enum:"off,steady,saturated,cooldown,at_max,deferred,infeasible" doc:"saturated: more is wanted now; at_max: more is needed than max allows"`
	Spec          float64         `json:"spec"`
	Limit         float64         `json:"limit" doc:"As the kernel has it"`
	High          float64         `json:"high,omitempty" doc:"memory.high"`
	Use           float64         `json:"use"`
	Min           float64         `json:"min"`
	Max           float64         `json:"max"`
	Up            float64         `json:"up"`
	Down          float64         `json:"down"`
	CooldownUntil *time.Time      `json:"cooldown_until" doc:"No shrink before; null when none holds it"`
	HoldSeconds   float64         `json:"hold_seconds" doc:"How long a need is held on to now"`
	LearnedHold   float64         `json:"learned_hold_seconds" doc:"How much of that was learned from needs that came back"`
	LastDecision  *state.Decision `json:"last_decision,omitempty"`
}

// VMScaling is how autoscaling and idle clean-up stand with one VM.
type VMScaling struct {
	VM        string     `json:"vm"`
	VMName    string     `json:"vm_name"`
	Mode      string     `json:"mode" enum:"off,recommend,auto"`
	Resources []Scaled   `json:"resources"`
	Spent     int        `json:"changes_last_hour"`
	PerHour   int        `json:"changes_per_hour"`
	Keep      bool       `json:"keep"`
	IdleSince *time.Time `json:"idle_since"`
	DeleteAt  *time.Time `json:"delete_at" doc:"When idle clean-up deletes the VM unless it gets busy; null while it is not announced"`
	Activity  string     `json:"activity,omitempty" doc:"Why it is not idle"`
}

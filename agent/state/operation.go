package state

import "time"

// OperationState is where an operation is in its life.
type OperationState string

// The states of an operation.
const (
	OperationRunning   OperationState = "running"
	OperationSucceeded OperationState = "succeeded"
	OperationFailed    OperationState = "failed"
)

// Operation is work that may take over a second.
type Operation struct {
	ID         string         `json:"id"`
	Kind       string         `json:"kind" doc:"Such as vm.delete"`
	Target     string         `json:"target" doc:"Id of the VM or cloudlet it works on"`
	State      OperationState `json:"state"`
	CreatedAt  time.Time      `json:"created_at"`
	FinishedAt *time.Time     `json:"finished_at"`
	Error      string         `json:"error,omitempty"`
	Progress   *float64       `json:"progress,omitempty" doc:"0-1, where it is known"`
}

// NewOperation is one that begins now.
func NewOperation(kind, target string) Operation {
	return Operation{
		ID:        NewID(),
		Kind:      kind,
		Target:    target,
		State:     OperationRunning,
		CreatedAt: time.Now().UTC(),
	}
}

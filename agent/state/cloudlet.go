package state

import "time"

// CloudletState is where a cloudlet is in its life.
type CloudletState string

// The states of a cloudlet. Those from Succeeded on are final.
const (
	CloudletQueued           CloudletState = "queued"
	CloudletStarting         CloudletState = "starting"
	CloudletRunning          CloudletState = "running"
	CloudletFrozen           CloudletState = "frozen"
	CloudletSucceeded        CloudletState = "succeeded"
	CloudletFailed           CloudletState = "failed"
	CloudletCancelled        CloudletState = "cancelled"
	CloudletDeadlineExceeded CloudletState = "deadline_exceeded"
	CloudletLost             CloudletState = "lost"
)

// Final reports whether a cloudlet in state s has ended for good.
func (s CloudletState) Final() bool {
	switch s {
	case CloudletSucceeded, CloudletFailed, CloudletCancelled, CloudletDeadlineExceeded, CloudletLost:
		return true
	}
	return false
}

// What happens to a cloudlet that is not done at its deadline.
const (
	OnDeadlineKill     = "kill"
	OnDeadlineContinue = "continue"
)

// Reasons that the agent ends a cloudlet for.
const (
	StopCancel   = "cancel"
	StopDeadline = "deadline"
	StopDelete   = "delete" // of its VM
	StopOOM      = "oom"    // its VM thrashed
)

// Request is what a cloudlet asks of the VM that runs it. It decides
// placement; the hard limits are the VM's.
type Request struct {
	CPUs         float64 `json:"cpus" required:"false"`
	MemoryBytes  int64   `json:"memory_bytes" required:"false"`
	StorageBytes int64   `json:"storage_bytes" required:"false"`
	BandwidthBPS int64   `json:"bandwidth_bps" required:"false"`
	GPUs         int     `json:"gpus" required:"false"`
}

// Cloudlet is one command to run inside a VM, and what the agent has decided
// about it. A record that was read is never written to, nor is what it points to.
type Cloudlet struct {
	ID              string            `json:"id"`
	Name            string            `json:"name"`
	VM              string            `json:"vm"`      // id, empty while it is still to be chosen
	VMName          string            `json:"vm_name"` // as last known: the VM may be gone
	Argv            []string          `json:"argv"`
	Env             map[string]string `json:"env"`
	WorkDir         string            `json:"workdir"`
	State           CloudletState     `json:"state"`
	SLA             int               `json:"sla"`
	DeadlineSeconds float64           `json:"deadline_seconds"`
	DeadlineAt      *time.Time        `json:"deadline_at"`
	OnDeadline      string            `json:"on_deadline"`
	OverrunSeconds  float64           `json:"overrun_seconds"`
	Request         Request           `json:"request"`
	Usage           Usage             `json:"usage"` // in all, once it has ended
	CreatedAt       time.Time         `json:"created_at"`
	StartedAt       *time.Time        `json:"started_at"`
	FinishedAt      *time.Time        `json:"finished_at"`
	PID             int               `json:"pid"`
	ExitCode        *int              `json:"exit_code"`
	Signal          string            `json:"signal"`
	Reason          string            `json:"reason"`

	// LeftRunning is how many processes the command had left when it ended. They were killed.
	LeftRunning int `json:"left_running,omitempty"`
	// Stop is why the agent is ending it: a constant above, or empty.
	Stop string `json:"stop,omitempty"`
	// Times on CLOCK_BOOTTIME, for what must happen within a time, and the id of the boot
	// that they are of. Stopping is when it was told to stop; cgroup.kill follows a grace after SIGTERM.
	Boot          string        `json:"boot,omitempty"`
	SubmittedBoot time.Duration `json:"submitted_boot,omitempty"`
	StartedBoot   time.Duration `json:"started_boot,omitempty"`
	StoppingBoot  time.Duration `json:"stopping_boot,omitempty"`
	DeadlineBoot  time.Duration `json:"deadline_boot,omitempty"` // means something where there is a DeadlineAt
	// Pinned says that the user, not the scheduler, chose the VM.
	Pinned bool `json:"pinned,omitempty"`
	// Duration is how long the built-in burn runs when Argv is empty.
	Duration float64 `json:"duration_seconds,omitempty"`
}

// Holds reports whether the cloudlet occupies room in its VM.
func (r *Cloudlet) Holds() bool { return !r.State.Final() && r.State != CloudletQueued }

// Graceful reports whether it was told to end and has a time for that: SIGTERM, a grace,
// then cgroup.kill.
func (r *Cloudlet) Graceful() bool {
	return !r.State.Final() && (r.Stop == StopCancel || r.Stop == StopDeadline || r.Stop == StopDelete)
}

// SLA priorities.
const (
	SLALow    = 1
	SLAMedium = 2
	SLAHigh   = 3
)

// ReasonVMDeleted is the reason of cloudlets that their VM took with it.
const ReasonVMDeleted = "its VM was deleted"

package agent

import "time"

// Cloudlet is one command run inside a VM.
type Cloudlet struct {
	ID              string            `json:"id"`
	Name            string            `json:"name"`
	VM              string            `json:"vm" doc:"Id of the VM, empty while it is still to be chosen"`
	VMName          string            `json:"vm_name"`
	Argv            []string          `json:"argv"`
	Env             map[string]string `json:"env"`
	WorkDir         string            `json:"workdir"`
	State           CloudletState     `json:"state"`
	SLA             int               `json:"sla"`
	DeadlineSeconds float64           `json:"deadline_seconds"`
	DeadlineAt      *time.Time        `json:"deadline_at"`
	OnDeadline      string            `json:"on_deadline"`
	OverrunSeconds  float64           `json:"overrun_seconds" doc:"Seconds past the deadline when it ended"`
	Request         Request           `json:"request"`
	Usage           Usage             `json:"usage"`
	CreatedAt       time.Time         `json:"created_at"`
	StartedAt       *time.Time        `json:"started_at"`
	FinishedAt      *time.Time        `json:"finished_at"`
	PID             int               `json:"pid" doc:"Host process id while it runs"`
	ExitCode        *int              `json:"exit_code" doc:"Exit code of the command; null while it runs or when a signal ended it"`
	Signal          string            `json:"signal" doc:"Signal that ended the command, such as SIGKILL; empty otherwise"`
	Reason          string            `json:"reason" doc:"Why it is in this state: oom, no VM fits..., command not found..."`
}

// Overdue tells whether a cloudlet has not ended though its deadline has passed.
func (c Cloudlet) Overdue(now time.Time) bool {
	return !c.State.Final() && c.DeadlineAt != nil && now.After(*c.DeadlineAt)
}

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/output"
	"cloudflash/agent/state"
)

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
	LeftRunning     int               `json:"left_running,omitempty" doc:"Processes that the command left running; they were killed"`
}

// Overdue tells whether a cloudlet has not ended though its deadline has passed.
func (c Cloudlet) Overdue(now time.Time) bool {
	return !c.State.Final() && c.DeadlineAt != nil && now.After(*c.DeadlineAt)
}

// SubmitCloudlet queues a command, or, where nothing waits and there is room, has it
// started, and returns at once.
func (a *Agent) SubmitCloudlet(_ context.Context, req cloudlet.Submit) (Cloudlet, error) {
	key, err := askedWith("cloudlet", req.Key, req)
	if err != nil {
		return Cloudlet{}, err
	}
	req = req.WithDefaults()
	if err := req.Check(); err != nil {
		return Cloudlet{}, err
	}

	var rec cloudletRecord
	var placed []placement
	made := ""
	err = a.state.Update(func(tx *state.Tx) error {
		if made, err = a.madeBy(tx.View, key); made != "" || err != nil {
			return err
		}
		vmID, err := pin(tx.View, req)
		if err != nil {
			return err
		}
		rec = req.Record(vmID, a.boot, clock.Now())
		if rec.Name == "" {
			rec.Name = state.DefaultName(rec.ID)
		}
		for other := range tx.LiveNamed(rec.Name) {
			return fault.Refuse(fault.ErrExists, "name_taken", "choose another name, or wait until it has ended",
				"a cloudlet named %s is %s (%s)", fault.Quote(rec.Name), other.State, other.ID)
		}
		tx.PutCloudlet(rec)
		a.keepKey(tx, key, rec.ID)
		tx.Tell(Event{Level: LevelInfo, Kind: "cloudlet.queued", VM: vmID, Cloudlet: rec.ID,
			Message: fmt.Sprintf("cloudlet %s queued, SLA %d", rec.Name, rec.SLA)})
		a.touch(vmID, "a cloudlet waits for it")
		if tx.CloudletCounts()[CloudletQueued] == 1 { // else it is decided on with the others
			placed = a.placeQueued(tx)
			rec = *tx.Cloudlet(rec.ID)
		}
		return nil
	})
	if err != nil {
		return Cloudlet{}, err
	}
	a.startPlaced(placed)
	if made != "" {
		r := a.state.View().Cloudlet(made)
		if r == nil {
			return Cloudlet{}, spent("cloudlet")
		}
		rec = *r
	}
	defer a.poke()
	s := a.state.View()
	a.held.Lock()
	defer a.held.Unlock()
	return a.viewCloudlet(s, &rec, clock.Now()), nil
}

// pin resolves the VM a cloudlet asks for and refuses what it can never hold.
func pin(s state.View, req cloudlet.Submit) (string, error) {
	if req.VM == "" || req.VM == "auto" {
		return "", nil
	}
	v := s.FindVM(req.VM)
	if v == nil {
		return "", state.NoVM(req.VM)
	}
	if v.State == VMDeleting || v.State == VMFailed {
		return "", wrongState(v, "given cloudlets")
	}

	var fields []fault.Field
	if req.Request.CPUs > v.Spec.CPUs {
		fields = append(fields, fault.Field{Pointer: "/request/cpus", Max: v.Spec.CPUs, Detail: "is more than the VM has"})
	}
	if req.Request.MemoryBytes > v.Spec.MemoryBytes {
		fields = append(fields, fault.Field{Pointer: "/request/memory_bytes", Max: v.Spec.MemoryBytes, Detail: "is more than the VM has"})
	}
	if req.Request.GPUs > len(v.GPUs) {
		fields = append(fields, fault.Field{Pointer: "/request/gpus", Max: len(v.GPUs), Detail: "is more than the VM has"})
	}

	if len(fields) > 0 {
		return "", &fault.Error{Kind: fault.ErrCapacity, Code: "insufficient_vm", Fields: fields, Hint: "ask for less, or resize the VM",
			Detail: fmt.Sprintf("VM %s has %s; the cloudlet asks for %.3g cpus, %d MiB, %d GPUs", v.Name, v.Spec, req.Request.CPUs, req.Request.MemoryBytes>>20, req.Request.GPUs)}
	}
	return v.ID, nil
}

func cloudletNotFound(ref string) error {
	return fault.Refuse(fault.ErrNotFound, "cloudlet_not_found", "cloudflash cloudlet list shows what there is",
		"cloudlet %s not found", fault.Quote(ref))
}

// Cloudlet returns the cloudlet with that id, or the newest of that name.
func (a *Agent) Cloudlet(ref string) (Cloudlet, error) {
	s := a.state.View()
	r := s.FindCloudlet(ref)
	if r == nil {
		return Cloudlet{}, cloudletNotFound(ref)
	}
	a.held.Lock()
	defer a.held.Unlock()
	return a.viewCloudlet(s, r, clock.Now()), nil
}

// WatchCloudlet returns a channel that is closed when what is stored of the cloudlet with
// that id changes next.
func (a *Agent) WatchCloudlet(id string) <-chan struct{} { return a.state.View().WatchCloudlet(id) }

// Cloudlets returns all that are remembered, newest first.
func (a *Agent) Cloudlets() []Cloudlet {
	s := a.state.View()
	return a.viewCloudlets(s, s.CloudletCount())
}

// viewCloudlets are all that have not ended and at most so many of those that ended
// last, newest first.
func (a *Agent) viewCloudlets(s state.View, ended int) []Cloudlet {
	m := clock.Now()
	all := make([]Cloudlet, 0, s.LiveCount()+min(ended, s.CloudletCount()-s.LiveCount()))
	for r := range s.Ended() { // nothing is held of them: nobody waits for a long list
		if ended--; ended < 0 {
			break
		}
		all = append(all, a.viewCloudlet(s, r, m))
	}

	a.held.Lock()
	for r := range s.Live() {
		all = append(all, a.viewCloudlet(s, r, m))
	}
	a.held.Unlock()

	slices.SortFunc(all, func(x, y Cloudlet) int {
		return cmp.Or(y.CreatedAt.Compare(x.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	return all
}

// viewCloudlet is how the world sees a cloudlet. The caller has a.held, unless it has
// ended.
func (a *Agent) viewCloudlet(s state.View, r *cloudletRecord, m clock.Moment) Cloudlet {
	out := Cloudlet{
		ID:              r.ID,
		Name:            r.Name,
		VM:              r.VM,
		VMName:          r.VMName,
		Argv:            r.Argv,
		Env:             r.Env,
		WorkDir:         r.WorkDir,
		State:           r.State,
		SLA:             r.SLA,
		DeadlineSeconds: r.DeadlineSeconds,
		DeadlineAt:      r.DeadlineAt,
		OnDeadline:      r.OnDeadline,
		OverrunSeconds:  r.OverrunSeconds,
		Request:         r.Request,
		Usage:           r.Usage,
		CreatedAt:       r.CreatedAt,
		StartedAt:       r.StartedAt,
		FinishedAt:      r.FinishedAt,
		PID:             r.PID,
		ExitCode:        r.ExitCode,
		Signal:          r.Signal,
		Reason:          r.Reason,
		LeftRunning:     r.LeftRunning,
	}
	if out.Env == nil {
		out.Env = noEnv
	}
	if v := s.VM(r.VM); v != nil {
		out.VMName = v.Name
	}
	if r.State.Final() {
		return out
	}

	if c := a.cloudlets[r.ID]; c != nil {
		out.Usage = c.usage
	}
	if r.State == CloudletQueued {
		out.Reason = cmp.Or(a.waiting[r.ID], r.Reason)
	}
	told := *r
	cloudlet.TellTimes(&told, m)
	out.CreatedAt, out.StartedAt, out.DeadlineAt = told.CreatedAt, told.StartedAt, told.DeadlineAt
	return out
}

// noEnv is shown as {}, and never written to.
var noEnv = map[string]string{}

// CancelCloudlet ends a cloudlet: at once while it is queued, else by SIGTERM
// and, a grace later, cgroup.kill.
func (a *Agent) CancelCloudlet(_ context.Context, ref string) (Cloudlet, error) {
	id := ""
	err := a.stop(stopCancel, func(s state.View) ([]*cloudletRecord, error) {
		r := s.FindCloudlet(ref)
		if r == nil {
			return nil, cloudletNotFound(ref)
		}
		if r.State.Final() {
			return nil, fault.Refuse(fault.ErrConflict, "already_finished", "", "cloudlet %s has ended: %s", r.Name, r.State)
		}
		id = r.ID
		return []*cloudletRecord{r}, nil
	})
	if err != nil {
		return Cloudlet{}, err
	}
	return a.Cloudlet(id)
}

func noOutputYet(c Cloudlet) error {
	return fault.Refuse(fault.ErrConflict, "not_started", "", "cloudlet %s has no output yet: %s", c.Name, c.State)
}

// OpenOutput opens what a cloudlet has written to stdout or stderr. It grows
// while the cloudlet runs.
func (a *Agent) OpenOutput(ref, stream string) (*output.Reader, error) {
	if !slices.Contains(output.Streams, stream) {
		var f fault.List
		f.Add("/stream", nil, nil, "must be stdout or stderr, not %s", fault.Quote(stream))
		return nil, f.Err("invalid_stream")
	}

	c, err := a.Cloudlet(ref)
	if err != nil {
		return nil, err
	}
	if c.VM == "" || c.State == CloudletQueued {
		return nil, noOutputYet(c)
	}

	r, err := a.outputs(c.VM).Open(c.ID, stream)
	switch {
	case errors.Is(err, output.ErrLeased):
		return nil, fault.Refuse(fault.ErrNotYet, "output_leased", "try again; the kernel takes a lease back within a minute",
			"%s of cloudlet %s cannot be opened now: %v", stream, c.Name, err)
	case !errors.Is(err, os.ErrNotExist):
		return r, err
	case c.State == CloudletStarting:
		return nil, noOutputYet(c)
	}
	return nil, fault.Refuse(fault.ErrNotFound, "no_output", "output is kept as long as the VM",
		"cloudlet %s has no %s", c.Name, stream)
}

// outputs is where the cloudlets of a VM write to.
func (a *Agent) outputs(vmID string) output.Dir {
	return output.Dir(a.platform.LogDir(vmID))
}

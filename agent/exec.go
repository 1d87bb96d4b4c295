package agent

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"
)

// ExecRequest asks for a command whose life is bound to its caller's: a shell in
// a VM. It is no cloudlet: it is not queued, not stored, and ends with the agent.
type ExecRequest struct {
	Argv    []string
	Env     map[string]string
	WorkDir string
	// Terminal connects the command to a pseudo-terminal: Stderr is not used then.
	Terminal bool
	Sizes    <-chan TerminalSize   // of the terminal: the first at the start, then each new one
	Signals  <-chan syscall.Signal // for the command and all that it has started; may be nil

	Stdin          io.ReadCloser // closed when the command has ended
	Stdout, Stderr io.Writer
}

// ExecResult is how a command of Exec ended.
type ExecResult struct {
	ExitCode *int   `json:"exit_code" doc:"Null when a signal ended it"`
	Signal   string `json:"signal" doc:"Such as SIGKILL; empty otherwise"`
	Reason   string `json:"reason" doc:"oom, command not found..., VM deleted; empty otherwise"`
}

// vmGone is how a command ends that is in a VM without an init.
var vmGone = ExecResult{Reason: "the VM went down with it"}

// session is a running command of Exec.
type session struct {
	vm       string
	starting bool            // its scope has no process yet, or one that the init waits for
	oom      bool            // killed because the VM thrashed
	hungUp   bool            // its caller has gone
	exit     chan guest.Exit // closed without a value when the VM's init is gone
}

// Exec runs a command in a VM and returns when it has ended. When ctx ends it is told to end,
// with everything it has started, and killed after the grace.
func (a *Agent) Exec(ctx context.Context, ref string, req ExecRequest) (ExecResult, error) {
	if err := req.check(); err != nil {
		return ExecResult{}, err
	}
	v, g, id, s, err := a.openSession(ref)
	if err != nil {
		return ExecResult{}, err
	}
	defer a.closeSession(v, id)
	scope, err := v.MakeScope(id, SLAMedium)
	if err != nil {
		return ExecResult{}, err
	}
	env := cloudlet.Environ(&cloudletRecord{ID: id, VM: v.ID, Env: req.Env})
	p := guest.Process{ID: id, Argv: req.Argv, Env: env, WorkDir: req.WorkDir, Scope: scope, Terminal: req.Terminal}
	streams := guest.Streams{Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr, Sizes: req.Sizes}
	pumps, err := g.Attach(ctx, p, streams, v.UIDBase())
	var se *guest.StartError
	if errors.As(err, &se) {
		end := startEnding(se)
		return ExecResult{ExitCode: &end.Code, Reason: end.Reason}, nil
	}
	if errors.Is(err, guest.ErrGone) {
		return vmGone, nil
	}
	if err != nil {
		return ExecResult{}, err
	}
	defer pumps.Close()
	if err := a.sessionStarted(ctx, v, s, scope); err != nil {
		return ExecResult{}, err
	}
	for {
		select {
		case <-ctx.Done():
			a.hangUp(s, scope)
			return ExecResult{}, ctx.Err()
		case sig := <-req.Signals:
			if err := cgroup.IgnoreGone(scope.Signal(sig)); err != nil {
				a.log.Warn("signal a command of vm exec", "err", err)
			}
		case e, ok := <-s.exit:
			if !ok {
				return vmGone, nil
			}
			pumps.Drain(ctx)
			return sessionResult(e, usageOf(meter.Read(scope)).OOMKills > 0 || a.sessionThrashed(s)), nil
		}
	}
}

// hangUp tells a command, and all that it has started, that its caller has gone, and waits
// for a grace.
func (a *Agent) hangUp(s *session, scope *cgroup.Scope) {
	a.held.Lock()
	s.hungUp = true
	a.held.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.Grace)
	defer cancel()
	_ = scope.Signal(syscall.SIGHUP) // a shell on a terminal heeds this one only
	_ = scope.Signal(syscall.SIGTERM)
	_ = scope.AwaitEmpty(ctx)
}

func (r ExecRequest) check() error {
	var f fault.List
	c := cloudlet.Submit{Argv: r.Argv, Env: r.Env, WorkDir: r.WorkDir, SLA: SLAMedium, OnDeadline: OnDeadlineKill}
	if len(r.Argv) == 0 {
		f.Add("/argv", nil, nil, "must name a command")
		return f.Err("invalid_command")
	}
	return c.Check()
}

// openSession registers a command before it starts, so that its end is not missed.
// It is a change, of nothing that is stored: an idle VM is deleted before it, and the
// command refused, or is not idle any more.
func (a *Agent) openSession(ref string) (v *vm.VM, g *guest.Guest, id string, s *session, err error) {
	err = a.state.Update(func(tx *state.Tx) error {
		r := tx.FindVM(ref)
		if r == nil {
			return state.NoVM(ref)
		}
		a.held.Lock()
		defer a.held.Unlock()
		held := a.vms[r.ID]
		if held != nil {
			v, g = held.VM, held.Guest()
		}
		if r.State != VMRunning || g == nil {
			return wrongState(r, "entered")
		}
		held.idle.Touch(time.Now(), "a command of vm exec was run in it")
		a.changed()
		id = state.NewID()
		s = &session{vm: v.ID, starting: true, exit: make(chan guest.Exit, 1)}
		a.sessions[id] = s
		return nil
	})
	if err != nil {
		if s != nil { // something else could not be stored
			a.held.Lock()
			delete(a.sessions, id)
			a.held.Unlock()
		}
		return nil, nil, "", nil, err
	}
	return v, g, id, s, nil
}

// sessionStarted freezes a command whose VM was frozen while it started: until
// then its scope was left out (isStarting).
func (a *Agent) sessionStarted(ctx context.Context, v *vm.VM, s *session, scope *cgroup.Scope) error {
	a.held.Lock()
	s.starting = false
	a.held.Unlock()
	return a.freezeLate(ctx, v, scope)
}

// closeSession kills what is left and forgets the command.
func (a *Agent) closeSession(v *vm.VM, id string) {
	scope := v.Scope(id)
	ctx, cancel := context.WithTimeout(context.Background(), kernelTimeout)
	defer cancel()
	if scope.Exists() {
		if err := errors.Join(cgroup.IgnoreGone(scope.Kill(ctx)), scope.Remove(ctx)); err != nil {
			a.log.Warn("clear scope", "session", id, "err", err)
		}
	}
	a.held.Lock()
	defer a.held.Unlock()
	delete(a.sessions, id)
	if held := a.vms[v.ID]; held != nil {
		held.idle.Touch(time.Now(), "a command of vm exec was run in it")
	}
}

// dropSessions tells the sessions of a VM that its init is gone. The caller holds
// a.held.
func (a *Agent) dropSessions(vmID string) {
	for id, s := range a.sessions {
		if s.vm == vmID {
			close(s.exit)
			delete(a.sessions, id)
		}
	}
}

// sessionEnded reports whether an exit was that of a session, and tells it.
func (a *Agent) sessionEnded(e guest.Exit) bool {
	a.held.Lock()
	defer a.held.Unlock()
	s := a.sessions[e.ID]
	if s == nil {
		return false
	}
	select {
	case s.exit <- e:
	default: // told before
	}
	return true
}

// hungUp reports whether that is a command of vm exec whose caller has gone.
func (a *Agent) hungUp(id string) bool {
	a.held.Lock()
	defer a.held.Unlock()
	s := a.sessions[id]
	return s != nil && s.hungUp
}

func (a *Agent) sessionThrashed(s *session) bool {
	a.held.Lock()
	defer a.held.Unlock()
	return s.oom
}

func sessionResult(e guest.Exit, oom bool) ExecResult {
	var r ExecResult
	if e.Signal != 0 {
		r.Signal = cloudlet.SignalName(e.Signal)
	} else {
		r.ExitCode = &e.Code
	}
	if oom && (e.Signal != 0 || e.Code != 0) {
		r.Reason = "oom"
	}
	return r
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"
)

// start makes the scope of a cloudlet and its process, and stores that it runs. When the
// agent dies in it, recovery asks the init whether the process came to be.
func (a *Agent) start(ctx context.Context, id string, v *vm.VM) {
	rec := a.state.View().Cloudlet(id)
	if rec == nil || rec.State != CloudletStarting || rec.VM != v.ID {
		return
	}
	g := v.Guest()
	run, err := a.launch(ctx, rec, v, g)
	if err != nil {
		if ctx.Err() == nil {
			a.startFailed(ctx, rec, v, err)
		}
		return
	}
	if a.lasts(ctx, id, v, g) {
		a.started(id, v, g, run)
	}
}

// briefly is how soon a cloudlet has to end for its start to be stored together with its
// end. That saves a commit, and a meter that nobody would read.
const briefly = 100 * time.Millisecond

// lasts waits that long, unless the cloudlet is told to stop or its VM changes, and reports
// whether it still has to be stored that the cloudlet runs. If it has ended, exited stores
// that; if its init or this agent ends first, restore finds out what became of it.
func (a *Agent) lasts(ctx context.Context, id string, v *vm.VM, g *guest.Guest) bool {
	s := a.state.View()
	c := s.Cloudlet(id)
	if c != nil && c.State == CloudletStarting && c.Stop == "" && v.Record(s).State == VMRunning {
		timer := time.NewTimer(briefly)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-s.WatchCloudlet(id):
		case <-s.WatchVM(v.ID):
		case <-timer.C:
		}
	}
	c = a.state.View().Cloudlet(id)
	return c != nil && c.State == CloudletStarting && v.Guest() == g
}

func (a *Agent) launch(ctx context.Context, rec *cloudletRecord, v *vm.VM, g *guest.Guest) (guest.Running, error) {
	if g == nil {
		return guest.Running{}, fmt.Errorf("reach the init: %w", guest.ErrGone)
	}
	scope, err := v.MakeScope(rec.ID, rec.SLA)
	if err != nil {
		return guest.Running{}, err
	}
	out, err := a.outputs(rec.VM).Create(rec.ID, "stdout", v.UIDBase())
	if err != nil {
		return guest.Running{}, err
	}
	defer out.Close()
	errOut, err := a.outputs(rec.VM).Create(rec.ID, "stderr", v.UIDBase())
	if err != nil {
		return guest.Running{}, err
	}
	defer errOut.Close()
	return g.Start(ctx, guest.Process{
		ID:      rec.ID,
		Argv:    cloudlet.Argv(rec),
		Env:     cloudlet.Environ(rec),
		WorkDir: rec.WorkDir,
		Scope:   scope,
		Stdout:  out,
		Stderr:  errOut,
	})
}

// started stores that a cloudlet runs: it has just begun, or a new agent has found
// it.
func (a *Agent) started(id string, v *vm.VM, g *guest.Guest, run guest.Running) {
	scope := v.Scope(id)
	p, err := a.meter.Scope(id, scope)
	if err != nil {
		a.log.Warn("meter cloudlet", "cloudlet", id, "err", err)
	}

	var rec cloudletRecord
	began, over := false, false
	err = a.state.UpdateAnyway(func(tx *state.Tx) error {
		c := tx.Cloudlet(id)
		over = c == nil || !c.Holds() || c.VM != v.ID // it has ended, or is queued again
		if over {
			return nil
		}
		rec, began = *c, c.State == CloudletStarting // else it was found again
		rec.State, rec.PID, rec.StartedAt, rec.Reason = CloudletRunning, run.PID, new(run.StartedAt.UTC()), ""
		if v.Record(tx.View).State == VMFrozen {
			rec.State = CloudletFrozen
		}
		if began {
			rec.StartedBoot = clock.Now().BootOf(*rec.StartedAt, rec.SubmittedBoot)
			tx.Tell(cloudlet.Started(&rec))
		}
		tx.PutCloudlet(rec)
		tx.Then(func() {
			if began {
				a.held.Lock()
				defer a.held.Unlock()
				a.outcomes.CloudletBegan(&rec)
			}
		})

		a.held.Lock() // before its end can be stored: that closes the probe
		defer a.held.Unlock()
		a.unmeter(id) // it may have been known before
		hold := &heldCloudlet{probe: p}
		if began && rec.Stop != "" {
			hold.termed = clock.SinceBoot()
		}
		a.cloudlets[id] = hold
		return nil
	})
	switch {
	case over:
		p.Close()
		return
	case err != nil:
		a.held.Lock()
		a.unmeter(id)
		a.held.Unlock()
		a.spawn(func(ctx context.Context) { // it runs all the same
			select {
			case <-ctx.Done():
			case <-time.After(queueAgain):
				if v.Guest() == g {
					a.started(id, v, g, run)
				}
			}
		})
		return
	}

	if rec.State == CloudletFrozen { // the VM was frozen while it started
		a.spawn(func(ctx context.Context) {
			if err := a.freezeLate(ctx, v, scope); err != nil {
				a.log.Error("freeze cloudlet", "cloudlet", rec.Name, "err", err)
			}
		})
	}
	if rec.Stop != "" { // it was told to stop while it started: stop leaves SIGTERM to us
		a.spawn(func(context.Context) { a.sendTERM(scope) })
	}
	a.poke()
}

// startFailed ends a cloudlet that never ran, or leaves it to who deals with its VM:
// initGone or delete.
func (a *Agent) startFailed(ctx context.Context, c *cloudletRecord, v *vm.VM, cause error) {
	scope := v.Scope(c.ID)
	if err := cgroup.IgnoreGone(scope.Kill(ctx)); err != nil {
		a.log.Warn("clear scope", "cloudlet", c.Name, "err", err)
	}
	if err := scope.Remove(ctx); err != nil {
		a.log.Warn("remove scope", "cloudlet", c.Name, "err", err)
	}
	var se *guest.StartError
	if errors.Is(cause, guest.ErrGone) && !errors.As(cause, &se) {
		return // initGone is on its way and decides
	}
	if a.record(v).State == VMDeleting {
		return // delete ends it with the VM
	}
	end := cloudlet.End{Code: 125, Reason: "not started: " + cause.Error()}
	if errors.As(cause, &se) {
		end = startEnding(se)
	} else if errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT) {
		end.Reason = "not started: the storage of VM " + v.Name + " is full, not even an output file fits: delete files with vm exec, or vm set --storage"
	}
	at := clock.Now()
	untilStored(ctx, func() bool { return a.end(c.ID, v, end, Usage{}, at) })
}

// startEnding gives a command that cannot be executed the codes shells use.
func startEnding(e *guest.StartError) cloudlet.End {
	if e.Stage == "workdir" {
		return cloudlet.End{Code: 126, Reason: fmt.Sprintf("cannot enter the working directory %s: %v", fault.Quote(e.Path), e.Errno)}
	}
	if e.Stage == "clone" && e.Errno == syscall.EAGAIN {
		return cloudlet.End{Code: 125, Reason: "the VM's pids limit leaves no room for it"}
	}
	if e.Stage != "exec" {
		return cloudlet.End{Code: 125, Reason: e.Error()}
	}
	switch e.Errno {
	case syscall.ENOENT, syscall.ENOTDIR:
		return cloudlet.End{Code: 127, Reason: fmt.Sprintf("command not found: %s", fault.Quote(e.Path))}
	case syscall.EACCES, syscall.ENOEXEC, syscall.EISDIR, syscall.EPERM, syscall.ELOOP:
		return cloudlet.End{Code: 126, Reason: fmt.Sprintf("cannot execute %s: %v", fault.Quote(e.Path), e.Errno)}
	}
	return cloudlet.End{Code: 125, Reason: e.Error()}
}

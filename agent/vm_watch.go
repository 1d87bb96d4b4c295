package agent

import (
	"context"
	"fmt"

	"cloudflash/agent/guest"
	"cloudflash/agent/vm"

	"golang.org/x/sync/errgroup"
)

// adopt keeps what a VM has that runs, and lets cloudlets be placed in it, what was queued
// meanwhile first.
func (a *Agent) adopt(l *vm.Lease, r vm.Running) {
	l.Adopt(r)
	a.watchInit(l.VM, r.Guest)
	a.poke()
}

// exitsAtOnce is how many ends of cloudlets of one VM are dealt with at the same time: what
// waits together is stored together.
const exitsAtOnce = 8

// watchInit hears of every cloudlet that ends in the VM, and of the end of its init.
func (a *Agent) watchInit(v *vm.VM, g *guest.Guest) {
	a.spawn(func(ctx context.Context) {
		var ends errgroup.Group
		ends.SetLimit(exitsAtOnce)
		err := g.Run(ctx, func(e guest.Exit) {
			ends.Go(func() error {
				a.exited(ctx, v, g, e)
				return nil
			})
		})
		_ = ends.Wait()
		if ctx.Err() != nil {
			_ = g.Close()
			return
		}
		a.held.Lock()
		a.dropSessions(v.ID)
		a.held.Unlock()
		a.initGone(ctx, v, g, err)
	})
}

// initGone rebuilds a VM whose init died under it.
func (a *Agent) initGone(ctx context.Context, v *vm.VM, g *guest.Guest, cause error) {
	_ = g.Close()
	l := v.Work()
	defer l.Release()
	was := a.record(v).State
	if !l.Lost(g) || was != VMRunning && was != VMFrozen {
		return // it is being deleted, or was replaced already
	}
	a.state.Note(Event{Level: LevelError, Kind: "vm.init_died", VM: v.ID,
		Message: fmt.Sprintf("VM %s lost its init (%v); it is started again", v.Name, cause)})
	work, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	if err := a.restore(work, l); err != nil && ctx.Err() == nil {
		a.fail(v, err)
	}
}

// fail marks a VM that cannot be made what its record says.
func (a *Agent) fail(v *vm.VM, cause error) {
	_, _ = a.setState(v, VMFailed, cause.Error(), Event{Level: LevelError, Kind: "vm.failed", VM: v.ID,
		Message: fmt.Sprintf("VM %s failed: %v", v.Name, cause)})
}

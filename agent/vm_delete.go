package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
)

// deleteTimeout bounds one try to erase a VM. Processes stuck in the kernel can
// outlast it: the VM then stays in state deleting and is tried again.
const deleteTimeout = 2 * time.Minute

// DeleteVM starts deleting a VM and returns the operation to wait for. Its
// cloudlets get SIGTERM and grace to end before they are killed.
func (a *Agent) DeleteVM(_ context.Context, ref string, grace time.Duration) (Operation, error) {
	if grace < 0 || grace > time.Hour {
		var f fault.List
		fault.Within(&f, "/grace", grace.Seconds(), 0, 3600)
		return Operation{}, f.Err("out_of_range")
	}
	var op Operation
	var started bool
	err := a.state.UpdateAnyway(func(tx *state.Tx) (err error) {
		r := tx.FindVM(ref)
		if r == nil {
			return state.NoVM(ref)
		}
		op, started, err = markDeleting(tx, r)
		return err
	})
	if err != nil || !started {
		return op, err
	}
	if v := a.known(op.Target); v != nil {
		a.spawn(func(ctx context.Context) { a.delete(ctx, v, grace) })
	}
	return op, nil
}

// markDeleting stores the intent, and events that say why; started is false when
// it was stored before.
func markDeleting(tx *state.Tx, r *vmRecord, why ...Event) (op Operation, started bool, err error) {
	switch r.State {
	case VMDeleting:
		for op := range tx.RunningOn(r.ID) {
			return *op, false, nil
		}
	case VMCreating:
		return op, false, wrongState(r, "deleted until it is created")
	}

	n := 0
	for _, c := range slices.Collect(tx.HoldIn(r.ID)) {
		n++
		if c.Stop == "" {
			next := *c
			next.Stop = stopDelete
			tx.PutCloudlet(next)
		}
	}
	next := *r
	next.State = VMDeleting
	tx.PutVM(next)
	op = state.NewOperation("vm.delete", r.ID)
	tx.PutOperation(op)
	tx.Tell(why...)
	tx.Tell(Event{Level: LevelInfo, Kind: "vm.deleting", VM: r.ID,
		Message: fmt.Sprintf("VM %s is being deleted with %d cloudlets", r.Name, n)})
	return op, true, nil
}

// delete ends the cloudlets of a VM in state deleting, then erases it.
func (a *Agent) delete(ctx context.Context, v *vm.VM, grace time.Duration) {
	a.terminate(ctx, v, grace)
	work, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	l := v.Work()
	defer l.Release()
	if err := l.Erase(work); err != nil {
		a.deleteFailed(v, err)
		return
	}

	gone := func(tx *state.Tx) error {
		finish(tx, v.ID, nil)
		a.removeRecord(tx, v)
		tx.Tell(Event{Level: LevelInfo, Kind: "vm.deleted", VM: v.ID, Message: fmt.Sprintf("VM %s deleted", v.Name)})
		return nil
	}
	if !untilStored(ctx, func() bool { return a.state.UpdateAnyway(gone) == nil }) {
		return // it is erased again at the next start
	}
	a.forget(v)
	a.poke()
}

// removeRecord removes the record of a VM that is erased. The cloudlets that wait for it end
// with it, and where it could not be created, the key of the request is free again.
func (a *Agent) removeRecord(tx *state.Tx, v *vm.VM) {
	r, m := tx.VM(v.ID), tx.MadeBy(v.ID)
	if r != nil && r.Unmade && m != nil {
		tx.DeleteMade(m.ID)
	}
	tx.DeleteVM(v.ID)
	for _, c := range slices.Collect(tx.LiveIn(v.ID)) {
		rec := cloudlet.Orphaned(c, v.Name, clock.Now())
		tx.PutCloudlet(rec)
		tx.Then(func() { a.over(&rec, false) })
	}
}

// terminate sends SIGTERM to the cloudlets of a VM and waits until they have
// ended or grace is over. Those that are starting get theirs from started.
func (a *Agent) terminate(ctx context.Context, v *vm.VM, grace time.Duration) {
	if v.Guest() == nil || grace == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()

	waits := false
	for c := range a.state.View().HoldIn(v.ID) {
		waits = waits || c.State != CloudletFrozen
		if c.State == CloudletRunning && !a.termed(c.ID) {
			a.sendTERM(v.Scope(c.ID))
		}
	}
	if !waits {
		return
	}
	for ctx.Err() == nil {
		s := a.state.View()
		if active(s, v.ID) == 0 {
			return
		}
		select {
		case <-s.WatchLiveIn(v.ID):
		case <-ctx.Done():
		}
	}
}

// termed reports whether a cloudlet has had SIGTERM.
func (a *Agent) termed(id string) bool {
	a.held.Lock()
	defer a.held.Unlock()
	c := a.cloudlets[id]
	return c != nil && c.termed != 0
}

func (a *Agent) deleteFailed(v *vm.VM, cause error) {
	_ = a.state.UpdateAnyway(func(tx *state.Tx) error { // it has logged why; the VM is deleted again at the next start
		finish(tx, v.ID, cause)
		if r := tx.VM(v.ID); r != nil {
			rec := *r
			rec.Reason = "cannot be erased: " + cause.Error()
			tx.PutVM(rec)
		}
		tx.Tell(Event{Level: LevelError, Kind: "vm.delete_failed", VM: v.ID,
			Message: fmt.Sprintf("VM %s cannot be erased: %v; delete it again, or restart the agent", v.Name, cause)})
		return nil
	})
}

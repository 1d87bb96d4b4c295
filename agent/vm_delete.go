package agent

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"cloudflash/agent/store"
)

// deleteTimeout bounds one try to erase a VM. Processes stuck in the kernel can
// outlast it: the VM then stays in state deleting and is tried again.
const deleteTimeout = 2 * time.Minute

// DeleteVM starts deleting a VM and returns the operation to wait for. Its
// cloudlets get SIGTERM and grace to end before they are killed.
func (a *Agent) DeleteVM(_ context.Context, ref string, grace time.Duration) (Operation, error) {
	if grace < 0 || grace > time.Hour {
		var f faults
		within(&f, "/grace", grace.Seconds(), Range[float64]{0, 3600})
		return Operation{}, f.err("out_of_range")
	}
	a.mu.Lock()
	v := a.find(ref)
	if v == nil {
		a.mu.Unlock()
		return Operation{}, vmNotFound(ref)
	}
	op, started, err := a.markDeleting(v)
	a.mu.Unlock()
	if err != nil || !started {
		return op, err
	}
	a.spawn(func(ctx context.Context) { a.delete(ctx, v, grace) })
	return op, nil
}

// markDeleting stores the intent, and events that say why; started is false when
// it was stored before. The caller holds a.mu.
func (a *Agent) markDeleting(v *vm, why ...Event) (op Operation, started bool, err error) {
	if v.State == VMDeleting {
		for _, op := range a.operations {
			if op.Target == v.ID && op.State == OperationRunning {
				return op, false, nil
			}
		}
	}
	if v.State == VMCreating {
		return op, false, wrongState(v, "deleted until it is created")
	}
	rec := v.vmRecord
	rec.State = VMDeleting
	op = newOperation("vm.delete", v.ID)
	changes, marked := a.stopWithVM(v)
	err = a.commit(append(changes, putVM(rec), putOperation(op)), append(why, Event{Level: LevelInfo, Kind: "vm.deleting", VM: v.ID,
		Message: fmt.Sprintf("VM %s is being deleted with %d cloudlets", v.Name, a.active(v.ID))})...)
	if err != nil {
		return op, false, err
	}
	v.vmRecord = rec
	for id, c := range marked {
		a.cloudlets[id].cloudletRecord = c
	}
	a.operations[op.ID] = op
	return op, true, nil
}

// stopWithVM notes why the cloudlets of a VM are about to end.
func (a *Agent) stopWithVM(v *vm) ([]store.Change, map[string]cloudletRecord) {
	var changes []store.Change
	marked := map[string]cloudletRecord{}
	for id, c := range a.cloudlets {
		if c.VM == v.ID && c.holds() && c.Stop == "" {
			rec := c.cloudletRecord
			rec.Stop = stopDelete
			marked[id] = rec
			changes = append(changes, putCloudlet(rec))
		}
	}
	return changes, marked
}

// delete ends the cloudlets of a VM in state deleting, then erases it.
func (a *Agent) delete(ctx context.Context, v *vm, grace time.Duration) {
	a.terminate(ctx, v, grace)
	work, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	v.work.Lock()
	defer v.work.Unlock()
	if err := a.erase(work, v); err != nil {
		a.deleteFailed(v, err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	changes, done := a.finish(v.ID, nil)
	changes = append(changes, store.Delete(store.VMs, v.ID))
	ended, orphans := a.orphans(v)
	changes = append(changes, ended...)
	if a.commit(changes, Event{Level: LevelInfo, Kind: "vm.deleted", VM: v.ID, Message: fmt.Sprintf("VM %s deleted", v.Name)}) != nil {
		return
	}
	done()
	for id, rec := range orphans {
		a.cloudlets[id].cloudletRecord = rec
		a.cloudlets[id].unmeter()
		a.outcomes.ended(rec)
	}
	delete(a.vms, v.ID)
	a.meter.Forget(v.ID)
	a.advisor.forget(v.ID)
	a.poke()
}

// orphans gives every cloudlet that the VM takes with it its last state.
func (a *Agent) orphans(v *vm) ([]store.Change, map[string]cloudletRecord) {
	var changes []store.Change
	recs := map[string]cloudletRecord{}
	for id, c := range a.cloudlets {
		if c.VM != v.ID || c.State.Final() {
			continue
		}
		rec := c.cloudletRecord
		now := time.Now().UTC()
		rec.State, rec.FinishedAt, rec.Reason, rec.PID = CloudletCancelled, &now, reasonVMDeleted, 0
		rec.VMName = v.Name
		recs[id] = rec
		changes = append(changes, putCloudlet(rec))
	}
	return changes, recs
}

// terminate sends SIGTERM to the cloudlets of a VM and waits until they have
// ended or grace is over.
func (a *Agent) terminate(ctx context.Context, v *vm, grace time.Duration) {
	a.mu.Lock()
	g := v.guest
	var ids []string
	for _, c := range a.cloudlets {
		if c.VM == v.ID && c.State == CloudletRunning {
			ids = append(ids, c.ID)
		}
	}
	a.mu.Unlock()
	if g == nil || len(ids) == 0 || grace == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for _, id := range ids {
		_ = g.Signal(ctx, id, syscall.SIGTERM) // one that has just ended is fine
	}
	for a.holding(v.ID) && ctx.Err() == nil {
		select {
		case <-a.Updates():
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (a *Agent) holding(vmID string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.active(vmID) > 0
}

func (a *Agent) deleteFailed(v *vm, cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	changes, done := a.finish(v.ID, cause)
	rec := v.vmRecord
	rec.Reason = "cannot be erased: " + cause.Error()
	if a.commit(append(changes, putVM(rec)), Event{Level: LevelError, Kind: "vm.delete_failed", VM: v.ID,
		Message: fmt.Sprintf("VM %s cannot be erased: %v; delete it again, or restart the agent", v.Name, cause)}) == nil {
		v.vmRecord = rec
		done()
	}
}

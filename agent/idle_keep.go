package agent

import (
	"context"
	"fmt"
	"time"

	"cloudflash/agent/store"
)

// KeepVM saves a VM from being deleted when idle, also while its notice runs.
func (a *Agent) KeepVM(ref string) (VM, error) {
	keep := true
	return a.ChangeVM(context.Background(), ref, VMChange{Keep: &keep})
}

// keep stores whether a VM is deleted when idle. It waits for nothing that is done
// to the VM meanwhile: its notice may be nearly over.
func (a *Agent) keep(v *vm, keep bool) (VM, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if v.State == VMDeleting || a.vms[v.ID] != v {
		return VM{}, wrongState(v, "kept")
	}
	if err := a.storeKeep(v, keep); err != nil {
		return VM{}, err
	}
	return a.view(v), nil
}

// storeKeep is keep for callers that hold a.mu.
func (a *Agent) storeKeep(v *vm, keep bool) error {
	v.idle.touch(time.Now(), "it was changed")
	if v.Keep == keep {
		return nil
	}
	rec := v.vmRecord
	rec.Keep = keep
	said := "is kept when idle"
	if !keep {
		said = "may be deleted when idle"
	}
	if err := a.commit([]store.Change{putVM(rec)}, Event{Level: LevelInfo, Kind: "vm.keep", VM: v.ID,
		Message: fmt.Sprintf("VM %s %s", v.Name, said), Data: map[string]any{"keep": keep}}); err != nil {
		return err
	}
	v.vmRecord = rec
	return nil
}

// idleSince is since when a VM is idle; nil while it is not. The caller holds a.mu.
func (v *vm) idleSince() *time.Time {
	if v.State != VMRunning || v.idle.sign != "" || v.idle.last.IsZero() {
		return nil
	}
	t := v.idle.since
	return &t
}

// deleteAt is when a VM is deleted unless it gets busy; nil while it has no notice.
// The caller holds a.mu.
func (v *vm) deleteAt() *time.Time {
	if v.idle.announced.IsZero() || v.Keep || v.idleSince() == nil {
		return nil
	}
	t := v.idle.deleteAt
	return &t
}

// activity is why a VM is not idle; empty when it is. The caller holds a.mu.
func (v *vm) activity() string {
	if v.State != VMRunning {
		return "it is " + string(v.State)
	}
	return v.idle.sign
}

// viewAutoscale is in short how a VM's limits are scaled and whether it is deleted
// when idle. The caller holds a.mu.
func (a *Agent) viewAutoscale(v *vm) Autoscale {
	out := Autoscale{Mode: a.modeOf(v), Keep: v.Keep, DeleteAt: v.deleteAt()}
	if c := a.idleConfig(); !v.Keep && c.After > 0 {
		out.IdleAfterSeconds, out.IdleNoticeSeconds = c.After.Seconds(), c.Notice.Seconds()
	}
	return out
}

package agent

import (
	"context"
	"fmt"
	"time"

	"cloudflash/agent/state"
	"cloudflash/agent/vm"
)

// KeepVM saves a VM from being deleted when idle, also while its notice runs.
func (a *Agent) KeepVM(ref string) (VM, error) {
	keep := true
	return a.ChangeVM(context.Background(), ref, VMChange{Keep: &keep})
}

// keep stores whether a VM is deleted when idle. It waits for nothing that is done
// to the VM meanwhile: its notice may be nearly over.
func (a *Agent) keep(v *vm.VM, keep bool) (VM, error) {
	err := a.state.Update(func(tx *state.Tx) error {
		r := v.Record(tx.View)
		if r.State == VMDeleting {
			return wrongState(r, "kept")
		}
		a.touch(v.ID, "it was changed")
		if r.Keep == keep {
			return nil
		}

		rec := *r
		rec.Keep = keep
		said := "is kept when idle"
		if !keep {
			said = "may be deleted when idle"
		}
		tx.PutVM(rec)
		tx.Tell(Event{Level: LevelInfo, Kind: "vm.keep", VM: v.ID,
			Message: fmt.Sprintf("VM %s %s", v.Name, said), Data: map[string]any{"keep": keep}})
		return nil
	})
	if err != nil {
		return VM{}, err
	}
	return a.VM(v.ID)
}

// idleSince is since when a VM is idle; nil while it is not. The caller has a.held.
func (v *heldVM) idleSince(r *vmRecord) *time.Time {
	if r.State != VMRunning || v.idle.Sign != "" || v.idle.Last.IsZero() {
		return nil
	}
	t := v.idle.Since
	return &t
}

// deleteAt is when a VM is deleted unless it gets busy; nil while it has no notice.
// The caller has a.held.
func (v *heldVM) deleteAt(r *vmRecord) *time.Time {
	if v.idle.Announced.IsZero() || r.Keep || v.idleSince(r) == nil {
		return nil
	}
	t := v.idle.DeleteAt
	return &t
}

// activity is why a VM is not idle; empty when it is. The caller has a.held.
func (v *heldVM) activity(r *vmRecord) string {
	if r.State != VMRunning {
		return "it is " + string(r.State)
	}
	return v.idle.Sign
}

// viewAutoscale is in short how a VM's limits are scaled and whether it is deleted
// when idle. The caller has a.held.
func (a *Agent) viewAutoscale(host ownPolicy, v *heldVM, r *vmRecord) Autoscale {
	out := Autoscale{Mode: a.rules().ModeOf(host, r), Keep: r.Keep, DeleteAt: v.deleteAt(r)}
	if c := a.rules().IdleFor(host); !r.Keep && c.After > 0 {
		out.IdleAfterSeconds, out.IdleNoticeSeconds = c.After.Seconds(), c.Notice.Seconds()
	}
	return out
}

package agent

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
)

// ChangeVM resizes a VM live. A change that the kernel refuses leaves the VM as
// it was.
func (a *Agent) ChangeVM(ctx context.Context, ref string, ch VMChange) (VM, error) {
	v, err := a.lookup(ref)
	if err != nil {
		return VM{}, err
	}
	if ch.Keep != nil && ch == (VMChange{Keep: ch.Keep}) {
		return a.keep(v, *ch.Keep)
	}
	l := v.Work()
	defer l.Release()
	return a.change(ctx, l, ch, func(*vmRecord) {})
}

// change is ChangeVM for who has more to store along with it.
func (a *Agent) change(ctx context.Context, l *vm.Lease, ch VMChange, also func(next *vmRecord)) (VM, error) {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), kernelTimeout)
	defer cancel()
	old, next, err := a.planChange(l.VM, ch)
	if err != nil {
		return VM{}, err
	}
	also(&next)
	if !reflect.DeepEqual(old, next) {
		if err := a.resize(work, l, old, next); err != nil {
			return VM{}, err
		}
	}
	if ch.Autoscale != nil {
		a.settle(work, l)
	}
	if ch.Keep != nil {
		return a.keep(l.VM, *ch.Keep)
	}
	return a.VM(l.ID)
}

// resize makes of a VM what its next record says.
func (a *Agent) resize(work context.Context, l *vm.Lease, old, next vmRecord) error {
	// Ask before storing: a limit that cannot hold must not become the intent.
	if err := l.CheckStorage(next.Size().StorageBytes); err != nil {
		return err
	}
	if err := l.ShrinkMemory(work, next.Size().MemoryBytes); err != nil {
		return err
	}
	if err := a.update(l.VM, func(rec *vmRecord) { intoRecord(&next, rec) }); err != nil {
		return err
	}
	began := time.Now()
	if err := l.ApplyLimits(work); err != nil {
		return a.undoChange(work, l, old, err)
	}
	a.expect(l.VM)
	if old.Spec != next.Spec {
		a.state.Note(Event{Level: LevelInfo, Kind: "vm.resized", VM: l.ID,
			Message: fmt.Sprintf("VM %s resized: %s → %s", l.Name, old.Spec, next.Spec),
			Data:    map[string]any{"from": old.Spec, "to": next.Spec, "kernel_seconds": time.Since(began).Seconds()}})
	}
	a.poke()
	return nil
}

// planChange returns the record of a VM and what a change makes of it. It is a change
// itself, of nothing: what takes an idle VM away comes before it, or sees that the VM
// is not idle.
func (a *Agent) planChange(v *vm.VM, ch VMChange) (old, next vmRecord, err error) {
	err = a.state.Update(func(tx *state.Tx) error {
		old = *v.Record(tx.View)
		next, err = a.planned(tx.View, old, ch)
		if err == nil {
			a.touch(v.ID, "it was changed")
		}
		return err
	})
	return old, next, err
}

// planned is what a change makes of a record, or why it cannot be.
func (a *Agent) planned(s state.View, old vmRecord, ch VMChange) (vmRecord, error) {
	next := old
	next.Spec = ch.applyTo(old.Spec)
	next.Sized = scaling.Unsized(&old, ch.names) // what the user says counts, from now on
	if ch.Autoscale != nil {
		next.Own = ownPolicy{Layer: *ch.Autoscale, Gen: old.Own.Gen + 1}
		if err := a.rules().CheckLayer(s, &old, *ch.Autoscale, a.roomFor()); err != nil {
			return next, err
		}
	}
	if old.State != VMRunning && old.State != VMFrozen {
		return next, wrongState(&old, "resized")
	}
	if err := a.cfg.Ranges.Check(next.Spec); err != nil {
		return next, err
	}
	if err := a.platform.CheckSpec(next.Spec); err != nil {
		return next, err
	}
	if next.Spec != old.Spec {
		if err := policy.CheckAsked(&next); err != nil {
			return next, err
		}
		if err := a.rules().CheckSpec(next.Spec, s.Policy().Layer, next.Own.Layer, a.roomFor()); err != nil {
			return next, err
		}
	}
	return next, a.fits(s, old.Held(), next.Held())
}

// intoRecord takes over what a change may change, but for Keep: that may be set
// meanwhile.
func intoRecord(r, to *vmRecord) {
	to.Spec, to.Sized, to.Own, to.Advice = r.Spec, r.Sized, r.Own, r.Advice
}

// names reports whether a change says something of a resource.
func (ch VMChange) names(res autoscale.Resource) bool {
	switch res {
	case autoscale.CPU:
		return ch.CPUs != nil
	case autoscale.Memory:
		return ch.MemoryBytes != nil
	case autoscale.Storage:
		return ch.StorageBytes != nil
	case autoscale.Bandwidth:
		return ch.BandwidthBPS != nil
	}
	return ch.IO != nil
}

func (ch VMChange) applyTo(s Spec) Spec {
	set(&s.CPUs, ch.CPUs)
	set(&s.MemoryBytes, ch.MemoryBytes)
	set(&s.StorageBytes, ch.StorageBytes)
	set(&s.BandwidthBPS, ch.BandwidthBPS)
	set(&s.IO, ch.IO)
	set(&s.PIDs, ch.PIDs)
	return s
}

func set[T any](field *T, v *T) {
	if v != nil {
		*field = *v
	}
}

func (a *Agent) undoChange(ctx context.Context, l *vm.Lease, old vmRecord, cause error) error {
	if err := a.updateAnyway(l.VM, func(rec *vmRecord) {
		gen := rec.Own.Gen
		intoRecord(&old, rec)
		if gen != rec.Own.Gen {
			rec.Own.Gen = gen + 1 // a version that was seen does not come back with other content
		}
	}); err != nil {
		return err
	}
	if err := l.ApplyLimits(ctx); err != nil {
		a.log.Error("undo resize", "vm", l.Name, "err", err)
	}
	a.expect(l.VM)
	return fmt.Errorf("resize VM %s: %w", l.Name, cause)
}

func wrongState(v *vmRecord, verb string) error {
	return fault.Refuse(fault.ErrConflict, "wrong_state", "", "VM %s is %s and cannot be %s", v.Name, v.State, verb)
}

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"

	"golang.org/x/sys/unix"
)

const (
	kernelTimeout = 30 * time.Second // what one request may take in the kernel
	unpackTimeout = 10 * time.Minute // and to unpack an image
)

// CreateVM makes a VM and returns once it is running. It is all or nothing:
// on an error no trace of the VM is left.
func (a *Agent) CreateVM(ctx context.Context, req VMCreate) (VM, error) {
	key, err := askedWith("VM", req.Key, req)
	if err != nil {
		return VM{}, err
	}

	for {
		made, err := a.madeBy(a.state.View(), key)
		if err != nil {
			return VM{}, err
		}
		var v *vm.VM
		if made == "" { // else its image may be gone by now
			v, made, err = a.newVM(req.withDefaults(a.cfg.Defaults), key)
		}
		switch {
		case err != nil:
			return VM{}, err
		case made == "":
			return a.create(ctx, v)
		}

		out, err := a.madeVM(ctx, key, made)
		if !errors.Is(err, errUnmade) {
			return out, err
		}
	}
}

// newVM checks what is asked for and admits it.
func (a *Agent) newVM(req VMCreate, key asked) (v *vm.VM, made string, err error) {
	if err := a.checkCreate(req); err != nil {
		return nil, "", err
	}
	return a.admit(req, key)
}

// create makes the kernel have a VM that was admitted.
func (a *Agent) create(ctx context.Context, v *vm.VM) (VM, error) {
	l := v.Work()
	defer l.Release()
	if err := a.build(ctx, l); err != nil {
		a.log.Warn("create VM", "vm", v.Name, "err", err)
		a.giveUp(ctx, l, err)
		return VM{}, fmt.Errorf("create VM %s: %w", v.Name, err)
	}
	out, err := a.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.created", VM: v.ID,
		Message: fmt.Sprintf("VM %s created: %s", v.Name, a.record(v).Spec)})
	if err != nil {
		a.giveUp(ctx, l, err)
	}
	return out, err
}

// build realises a new VM. A client that hangs up does not stop half-way what it
// has asked for, except the unpacking of an image.
func (a *Agent) build(ctx context.Context, l *vm.Lease) error {
	unpacking, cancel := context.WithTimeout(ctx, unpackTimeout)
	defer cancel()
	switch err := l.Furnish(unpacking); {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return a.diskFull()
	case err != nil:
		return err
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), kernelTimeout)
	defer cancel()
	running, err := l.Realise(work)
	if err != nil {
		return tooSlow(err)
	}
	a.adopt(l, running)
	return nil
}

// tooSlow makes a refusal of what did not end within kernelTimeout: a host that is
// very busy is no internal error.
func tooSlow(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fault.Refuse(fault.ErrNotYet, "host_busy",
		"the host, or the disk of the state directory, is very busy; try again", "not ready within %v: %v", kernelTimeout, err)
}

func (r VMCreate) withDefaults(d Spec) VMCreate {
	r.Spec.CPUs = cmp.Or(r.Spec.CPUs, d.CPUs)
	r.Spec.MemoryBytes = cmp.Or(r.Spec.MemoryBytes, d.MemoryBytes)
	r.Spec.StorageBytes = cmp.Or(r.Spec.StorageBytes, d.StorageBytes)
	r.Spec.BandwidthBPS = cmp.Or(r.Spec.BandwidthBPS, d.BandwidthBPS)
	r.Spec.PIDs = cmp.Or(r.Spec.PIDs, d.PIDs)
	r.Image = cmp.Or(r.Image, "host")
	r.Network = vm.NetworkDefaults(r.Network)
	if r.Name == "" {
		r.Name = "vm-" + state.NewID()
	}
	return r
}

func (a *Agent) checkCreate(r VMCreate) error {
	if err := checkVMName(r.Name); err != nil {
		return err
	}
	if err := checkImage(r.Image); err != nil {
		return err
	}
	if err := checkLabels(r.Labels); err != nil {
		return err
	}
	if err := vm.CheckNetwork(r.Network); err != nil {
		return err
	}
	return a.cfg.Ranges.Check(r.Spec)
}

// admit reserves the name, the id range and the capacity, and stores the intent. Where
// the same request has been made before, it returns the id of what that has made.
func (a *Agent) admit(req VMCreate, key asked) (v *vm.VM, made string, err error) {
	err = a.state.Update(func(tx *state.Tx) error {
		if made, err = a.madeBy(tx.View, key); made != "" || err != nil {
			return err
		}
		if other := tx.FindVM(req.Name); other != nil {
			return fault.Refuse(fault.ErrExists, "name_taken", "choose another name, or delete the VM",
				"a VM named %s exists (%s, %s)", fault.Quote(req.Name), other.ID, other.State)
		}
		if err := a.fits(tx.View, Spec{}, req.Spec); err != nil {
			return err
		}
		if err := a.rules().CheckSpec(req.Spec, tx.Policy().Layer, req.Autoscale, a.roomFor()); err != nil {
			return err
		}
		slot, err := a.platform.FreeSlot(tx.View, req.Network.Mode == vm.NetworkIsolated)
		if err != nil {
			return err
		}
		units, err := a.platform.ReserveGPUs(tx.View, req.Spec.GPUs)
		if err != nil {
			return err
		}

		rec := vmRecord{
			ID:        state.NewID(),
			Name:      req.Name,
			State:     VMCreating,
			Image:     req.Image,
			Labels:    req.Labels,
			Spec:      req.Spec,
			Network:   req.Network,
			GPUs:      units,
			Slot:      slot,
			CreatedAt: time.Now().UTC(),
			Own:       ownPolicy{Layer: req.Autoscale},
			Keep:      req.Keep,
		}
		tx.PutVM(rec)
		a.keepKey(tx, key, rec.ID)
		v = a.platform.VM(&rec)
		a.held.Lock()
		defer a.held.Unlock()
		a.vms[v.ID] = &heldVM{VM: v} // before anybody can see the record
		return nil
	})
	if err != nil && v != nil {
		a.held.Lock()
		delete(a.vms, v.ID)
		a.held.Unlock()
	}
	return v, made, err
}

// giveUp erases a VM whose creation failed. What cannot be done at once goes on afterwards.
func (a *Agent) giveUp(ctx context.Context, l *vm.Lease, cause error) {
	v := l.VM
	if !a.unmake(v, cause) {
		return
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), kernelTimeout)
	defer cancel()
	err := l.Erase(ctx)
	if err == nil {
		err = a.state.UpdateAnyway(func(tx *state.Tx) error { a.removeRecord(tx, v); return nil })
	}

	if err != nil {
		a.log.Error("undo create", "vm", v.Name, "err", err)
		a.spawn(func(ctx context.Context) { a.delete(ctx, v, 0) })
		return
	}
	a.forget(v)
}

// unmake stores that a VM could not be created and is to be erased. Where that cannot be
// stored now, it returns false, and all of it is done later.
func (a *Agent) unmake(v *vm.VM, cause error) bool {
	mark := func() bool {
		return a.updateAnyway(v, func(rec *vmRecord) {
			rec.State, rec.Reason, rec.Unmade = VMDeleting, cause.Error(), true
		}, Event{
			Level:   LevelError,
			Kind:    "vm.create_failed",
			VM:      v.ID,
			Message: fmt.Sprintf("VM %s not created: %v", v.Name, cause),
		}) == nil
	}

	if mark() {
		return true
	}
	a.spawn(func(ctx context.Context) {
		if untilStored(ctx, mark) {
			a.delete(ctx, v, 0)
		}
	})
	return false
}

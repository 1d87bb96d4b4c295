package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cloudflash/agent/store"
)

const (
	kernelTimeout = 30 * time.Second // what one request may take in the kernel
	unpackTimeout = 10 * time.Minute // and to unpack an image
)

// CreateVM makes a VM and returns once it is running. It is all or nothing:
// on an error no trace of the VM is left.
func (a *Agent) CreateVM(ctx context.Context, req VMCreate) (VM, error) {
	req = req.withDefaults(a.cfg.Defaults)
	if err := a.checkCreate(req); err != nil {
		return VM{}, err
	}
	v, err := a.admit(req)
	if err != nil {
		return VM{}, err
	}
	v.work.Lock()
	defer v.work.Unlock()
	if err := a.build(ctx, v); err != nil {
		a.log.Warn("create VM", "vm", v.Name, "err", err)
		a.giveUp(ctx, v, err)
		return VM{}, fmt.Errorf("create VM %s: %w", v.Name, err)
	}
	return a.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.created", VM: v.ID,
		Message: fmt.Sprintf("VM %s created: %s", v.Name, v.Spec)})
}

// build realises a new VM. A client that hangs up does not stop half-way what it
// has asked for, except the unpacking of an image.
func (a *Agent) build(ctx context.Context, v *vm) error {
	unpacking, cancel := context.WithTimeout(ctx, unpackTimeout)
	defer cancel()
	if err := a.makeDirs(v); err != nil {
		return err
	}
	if err := a.unpack(unpacking, v); err != nil {
		var f faults
		f.add("/image", nil, nil, "cannot be used: %v", err)
		return f.err("invalid_image")
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), kernelTimeout)
	defer cancel()
	h, err := a.realise(work, v)
	if err != nil {
		return tooSlow(err)
	}
	a.adopt(v, h)
	return nil
}

// tooSlow makes a refusal of what did not end within kernelTimeout: a host that is
// very busy is no internal error.
func tooSlow(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return refuse(ErrNotYet, "host_busy", "the host, or the disk of the state directory, is very busy; try again", "not ready within %v: %v", kernelTimeout, err)
}

func (r VMCreate) withDefaults(d Spec) VMCreate {
	r.Spec.CPUs = cmp.Or(r.Spec.CPUs, d.CPUs)
	r.Spec.MemoryBytes = cmp.Or(r.Spec.MemoryBytes, d.MemoryBytes)
	r.Spec.StorageBytes = cmp.Or(r.Spec.StorageBytes, d.StorageBytes)
	r.Spec.BandwidthBPS = cmp.Or(r.Spec.BandwidthBPS, d.BandwidthBPS)
	r.Spec.PIDs = cmp.Or(r.Spec.PIDs, d.PIDs)
	r.Image = cmp.Or(r.Image, "host")
	r.Network = r.Network.withDefaults()
	if r.Name == "" {
		r.Name = "vm-" + newID()
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
	if err := r.Network.check(); err != nil {
		return err
	}
	return a.cfg.Ranges.check(r.Spec)
}

// admit reserves the name, the id range and the capacity, and stores the intent.
func (a *Agent) admit(req VMCreate) (*vm, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if other := a.find(req.Name); other != nil {
		return nil, refuse(ErrExists, "name_taken", "choose another name, or delete the VM", "a VM named %s exists (%s, %s)", quote(req.Name), other.ID, other.State)
	}
	if err := a.fits(Spec{}, req.Spec); err != nil {
		return nil, err
	}
	if err := a.checkNew(req); err != nil {
		return nil, err
	}
	slot, err := a.freeSlot(req.Network.Mode == NetworkIsolated)
	if err != nil {
		return nil, err
	}
	units, err := a.reserveGPUs(req.Spec.GPUs)
	if err != nil {
		return nil, err
	}
	v := a.newVM(vmRecord{ID: newID(), Name: req.Name, State: VMCreating, Image: req.Image, Network: req.Network, GPUs: units,
		Labels: req.Labels, Spec: req.Spec, Slot: slot, CreatedAt: time.Now().UTC(), Own: ownPolicy{Layer: req.Autoscale}, Keep: req.Keep})
	if err := a.commit([]store.Change{putVM(v.vmRecord)}); err != nil {
		return nil, err
	}
	v.gpuFor = a.units(units)
	a.vms[v.ID] = v
	return v, nil
}

func (a *Agent) newVM(r vmRecord) *vm {
	r.Network = r.Network.withDefaults()
	return &vm{vmRecord: r, slice: a.parent.Slice(r.ID)}
}

// freeSlot finds an id range that no VM has, not even one being deleted. The slot
// also decides the addresses: a VM that needs none gets one from the far end, out
// of the way of a small pool.
func (a *Agent) freeSlot(last bool) (int, error) {
	taken := make(map[int]bool, len(a.vms))
	for _, v := range a.vms {
		taken[v.Slot] = true
	}
	for slot := range maxSlots {
		if last {
			slot = maxSlots - 1 - slot
		}
		if !taken[slot] && !a.worn[slot] {
			return slot, nil
		}
	}
	return 0, refuse(ErrCapacity, "insufficient_ids", "delete a VM", "all %d user id ranges are taken", maxSlots)
}

// giveUp erases a VM whose creation failed. What cannot be erased now stays
// in state deleting and is erased at the next start.
func (a *Agent) giveUp(ctx context.Context, v *vm, cause error) {
	if _, err := a.setState(v, VMDeleting, cause.Error(), Event{Level: LevelError, Kind: "vm.create_failed", VM: v.ID,
		Message: fmt.Sprintf("VM %s not created: %v", v.Name, cause)}); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), kernelTimeout)
	defer cancel()
	if err := a.erase(ctx, v); err != nil {
		a.log.Error("undo create", "vm", v.Name, "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.commit([]store.Change{store.Delete(store.VMs, v.ID)}) == nil {
		delete(a.vms, v.ID)
		a.meter.Forget(v.ID)
		a.advisor.forget(v.ID)
	}
}

// setState stores a state and publishes the event that tells why.
func (a *Agent) setState(v *vm, s VMState, reason string, e Event) (VM, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rec := v.vmRecord
	rec.State, rec.Reason = s, reason
	if err := a.commit([]store.Change{putVM(rec)}, e); err != nil {
		return VM{}, err
	}
	v.vmRecord = rec
	v.idle.touch(time.Now(), "it has become "+string(s))
	a.poke()
	return a.view(v), nil
}

// find returns the VM with that id or name, or nil. The caller holds a.mu.
func (a *Agent) find(ref string) *vm {
	if v, ok := a.vms[ref]; ok {
		return v
	}
	for _, v := range a.vms {
		if v.Name == ref {
			return v
		}
	}
	return nil
}

// lookup is find for callers without the lock.
func (a *Agent) lookup(ref string) (*vm, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if v := a.find(ref); v != nil {
		return v, nil
	}
	return nil, vmNotFound(ref)
}

func vmNotFound(ref string) error {
	return refuse(ErrNotFound, "vm_not_found", "cloudflash vm list shows what there is", "VM %s not found", quote(ref))
}

// VM returns the VM with that id or name.
func (a *Agent) VM(ref string) (VM, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.find(ref)
	if v == nil {
		return VM{}, vmNotFound(ref)
	}
	return a.view(v), nil
}

// VMs returns all VMs by name.
func (a *Agent) VMs() []VM {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.viewVMs()
}

func (a *Agent) viewVMs() []VM {
	all := make([]VM, 0, len(a.vms))
	active := a.activeAll()
	for _, v := range a.vms {
		all = append(all, a.viewWith(v, active[v.ID]))
	}
	slices.SortFunc(all, func(x, y VM) int { return cmp.Compare(x.Name, y.Name) })
	return all
}

// view is how the world sees a VM. The caller holds a.mu.
func (a *Agent) view(v *vm) VM { return a.viewWith(v, a.active(v.ID)) }

// viewWith is view where the cloudlets are counted already.
func (a *Agent) viewWith(v *vm, active int) VM {
	out := VM{
		ID: v.ID, Name: v.Name, State: v.State, Reason: v.Reason, Image: v.Image, Labels: v.Labels,
		Spec: v.Spec, Limits: v.limits, Usage: v.usage, Network: v.viewNetwork(), GPUs: v.viewGPUs(), Autoscale: a.viewAutoscale(v),
		IdleSince: v.idleSince(), CreatedAt: v.CreatedAt, Cloudlets: active,
	}
	if v.guest != nil {
		out.InitPID = v.guest.PID()
	}
	return out
}

// active counts the cloudlets that hold a share of a VM.
func (a *Agent) active(vmID string) int {
	n := 0
	for _, c := range a.cloudlets {
		if c.VM == vmID && c.holds() {
			n++
		}
	}
	return n
}

// activeAll counts them for all VMs in one pass: thousands of cloudlets that have
// ended are remembered, and to go through them for each VM takes seconds.
func (a *Agent) activeAll() map[string]int {
	n := make(map[string]int, len(a.vms))
	for _, c := range a.cloudlets {
		if c.holds() {
			n[c.VM]++
		}
	}
	return n
}

// holds reports whether the cloudlet occupies room in its VM.
func (c *cloudlet) holds() bool { return !c.State.Final() && c.State != CloudletQueued }

// String is the spec on one line.
func (s Spec) String() string {
	text := fmt.Sprintf("%.3g cpus, %d MiB memory, %d MiB storage, %.4g Mbit/s, %d pids", s.CPUs, s.MemoryBytes>>20, s.StorageBytes>>20, float64(s.BandwidthBPS)/1e6, s.PIDs)
	if s.GPUs > 0 {
		text += fmt.Sprintf(", %d GPUs", s.GPUs)
	}
	return text
}

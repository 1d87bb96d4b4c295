package agent

import (
	"context"
	"fmt"
	"time"

	"cloudflash/agent/store"
	"cloudflash/cgroup"
)

// ChangeVM resizes a VM live. A change that the kernel refuses leaves the VM as
// it was.
func (a *Agent) ChangeVM(ctx context.Context, ref string, ch VMChange) (VM, error) {
	v, err := a.lookup(ref)
	if err != nil {
		return VM{}, err
	}
	v.work.Lock()
	defer v.work.Unlock()
	return a.resize(ctx, v, ch, a.adviceTaken(v))
}

// resize is ChangeVM with what is stored of advice along with the new spec. The caller
// holds v.work.
func (a *Agent) resize(ctx context.Context, v *vm, ch VMChange, advice *AppliedAdvice) (VM, error) {
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), kernelTimeout)
	defer cancel()
	before := a.adviceTaken(v)
	old, want, err := a.planChange(v, ch)
	if err != nil || want == old {
		if err != nil {
			return VM{}, err
		}
		return a.VM(v.ID)
	}
	// Ask before storing: a limit that cannot hold must not become the intent.
	if err := a.checkStorage(v, want.StorageBytes); err != nil {
		return VM{}, err
	}
	if err := shrinkMemory(work, v.slice, want.MemoryBytes); err != nil {
		return VM{}, err
	}
	if err := a.storeSpec(v, want, advice); err != nil {
		return VM{}, err
	}
	began := time.Now()
	if err := a.applyLimits(work, v, want); err != nil {
		return VM{}, a.undoChange(work, v, old, before, err)
	}
	a.note(Event{Level: LevelInfo, Kind: "vm.resized", VM: v.ID,
		Message: fmt.Sprintf("VM %s resized: %s → %s", v.Name, old, want),
		Data:    map[string]any{"from": old, "to": want, "kernel_seconds": time.Since(began).Seconds()}})
	a.poke()
	return a.VM(v.ID)
}

func (a *Agent) planChange(v *vm, ch VMChange) (old, want Spec, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old = v.Spec
	want = ch.applyTo(old)
	if v.State != VMRunning && v.State != VMFrozen {
		return old, want, wrongState(v, "resized")
	}
	if err := a.cfg.Ranges.check(want); err != nil {
		return old, want, err
	}
	if _, err := a.limitsFor(want); err != nil {
		return old, want, err
	}
	return old, want, a.fits(old, want)
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

func (a *Agent) storeSpec(v *vm, s Spec, advice *AppliedAdvice) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	rec := v.vmRecord
	rec.Spec, rec.Advice = s, advice
	if err := a.commit([]store.Change{putVM(rec)}); err != nil {
		return err
	}
	v.vmRecord = rec
	return nil
}

func (a *Agent) undoChange(ctx context.Context, v *vm, old Spec, advice *AppliedAdvice, cause error) error {
	if err := a.storeSpec(v, old, advice); err != nil {
		return err
	}
	if err := a.applyLimits(ctx, v, old); err != nil {
		a.log.Error("undo resize", "vm", v.Name, "err", err)
	}
	return fmt.Errorf("resize VM %s: %w", v.Name, cause)
}

func wrongState(v *vm, verb string) error {
	return refuse(ErrConflict, "wrong_state", "", "VM %s is %s and cannot be %s", v.Name, v.State, verb)
}

// limitsFrom turns what the slice has into what the API shows.
func limitsFrom(k cgroup.Limits) Limits {
	l := Limits{MemoryBytes: k.MemoryMax, MemoryHighBytes: k.MemoryHigh, SwapBytes: k.SwapMax}
	if k.CPU != nil && k.CPU.Quota > 0 {
		cpus := float64(k.CPU.Quota) / float64(k.CPU.Period)
		l.CPUs = &cpus
	}
	if k.MemoryHigh != nil && *k.MemoryHigh == cgroup.Max {
		l.MemoryHighBytes = nil
	}
	if k.PIDsMax != nil {
		n := *k.PIDsMax - initThreads
		l.PIDs = &n
	}
	l.IO = ioFrom(k.IO)
	return l
}

func ioFrom(devices []cgroup.IODevice) *IO {
	unlimited := func(n int64) int64 {
		if n == cgroup.Max {
			return 0
		}
		return n
	}
	var io IO
	for _, d := range devices { // one device backs the state directory
		io = IO{unlimited(d.ReadBPS), unlimited(d.WriteBPS), unlimited(d.ReadIOPS), unlimited(d.WriteIOPS)}
	}
	return &io
}

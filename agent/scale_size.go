package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/store"
	"cloudflash/cgroup"
)

// sizedHigh is the key of memory.high in vmRecord.Sized.
const sizedHigh = "memory_high_bytes"

// size is what the limits of a VM shall be: its spec, as autoscaling has changed it.
func (r vmRecord) size() Spec {
	s := r.Spec
	for name, v := range r.Sized {
		if res, err := autoscale.ParseResource(name); err == nil {
			s.setLimit(res, v)
		}
	}
	return s
}

func (s *Spec) setLimit(res autoscale.Resource, v float64) {
	switch res {
	case autoscale.CPU:
		s.CPUs = v
	case autoscale.Memory:
		s.MemoryBytes = int64(v)
	case autoscale.Storage:
		s.StorageBytes = int64(v)
	case autoscale.Bandwidth:
		s.BandwidthBPS = int64(v)
	case autoscale.ReadBPS:
		s.IO.ReadBPS = int64(v)
	case autoscale.WriteBPS:
		s.IO.WriteBPS = int64(v)
	case autoscale.ReadIOPS:
		s.IO.ReadIOPS = int64(v)
	case autoscale.WriteIOPS:
		s.IO.WriteIOPS = int64(v)
	}
}

// resized is what autoscaling has set once a limit has become v, and, for memory,
// memory.high.
func (r vmRecord) resized(res autoscale.Resource, v, high float64) map[string]float64 {
	next := maps.Clone(r.Sized)
	if next == nil {
		next = map[string]float64{}
	}
	next[res.String()] = v
	if res == autoscale.Memory {
		next[sizedHigh] = high
	}
	return next
}

// unsized is what stays of it when limits are the spec's again.
func (r vmRecord) unsized(given func(autoscale.Resource) bool) map[string]float64 {
	var next map[string]float64
	for res := range autoscale.Resources {
		if v, ok := r.Sized[res.String()]; ok && !given(res) {
			rec := vmRecord{Sized: next}
			next = rec.resized(res, v, r.Sized[sizedHigh])
		}
	}
	return next
}

// highShare is memory.high of memory.max while nothing is known of a VM's need
// (KEP-2570).
const highShare = 0.9

// high is what memory.high shall be: the working limit where memory is scaled, else
// none. The caller holds a.mu.
func (a *Agent) high(v *vm) int64 {
	p, _ := a.policyOf(v)
	switch high := int64(v.Sized[sizedHigh]); {
	case p.Rules[autoscale.Memory].Mode != autoscale.Auto:
		return cgroup.Max
	case high > 0:
		return high
	}
	if limit := v.size().MemoryBytes; float64(limit) < p.Rules[autoscale.Memory].Max {
		return int64(highShare*float64(limit)) &^ 4095
	}
	return cgroup.Max // it cannot grow, and is not to be slowed down for nothing
}

// held is what a VM takes of what the host has only once: what it was asked for as,
// or what autoscaling has lent it above that. Cores are lent without being taken from
// anybody: by their weights, all VMs get theirs back at once.
func (r vmRecord) held() Spec {
	s, now := r.Spec, r.size()
	s.MemoryBytes = max(s.MemoryBytes, now.MemoryBytes)
	s.StorageBytes = max(s.StorageBytes, now.StorageBytes)
	return s
}

// lent is what autoscaling has given a VM above its spec, of what a host has only once.
func (r vmRecord) lent() Spec {
	h := r.held()
	return Spec{MemoryBytes: h.MemoryBytes - r.Spec.MemoryBytes, StorageBytes: h.StorageBytes - r.Spec.StorageBytes}
}

// roomFor is what limits of VMs together may be at most, the reserve of the host
// taken off. The caller holds a.mu.
func (a *Agent) roomFor() autoscale.Limits {
	return a.room(autoscale.Limits{}).All
}

func (a *Agent) room(promised autoscale.Limits) autoscale.Room {
	f, o, c := a.host.Facts(), a.cfg.Overcommit, a.capacity()
	r := autoscale.NewRoom(float64(f.CPUs), float64(f.MemoryBytes), autoscale.Limits{autoscale.CPU: o.CPUs, autoscale.Memory: o.Memory}, promised)
	r.All[autoscale.Storage] = float64(c.StorageBytes)
	r.Free[autoscale.Storage] = max(r.All[autoscale.Storage]-promised[autoscale.Storage], 0)
	return r
}

// roomNow is what the host has left for limits that grow. What is promised may not be
// in use, and what is not may be, by what is no VM: memory that is not there now is
// not lent.
func (a *Agent) roomNow() autoscale.Room {
	var promised autoscale.Limits
	for _, v := range a.vms {
		h := v.held()
		h.CPUs = max(h.CPUs, v.size().CPUs)
		for res, n := range limitsOf(h) {
			promised[res] += n
		}
	}
	r := a.room(promised)
	if h := a.meter.Host(); !h.At.IsZero() {
		total := float64(a.host.Facts().MemoryBytes)
		reserve := total - autoscale.NewRoom(1, total, autoscale.Limits{}, autoscale.Limits{}).All[autoscale.Memory]
		r.Free[autoscale.Memory] = max(min(r.Free[autoscale.Memory], float64(h.MemoryAvailable)-reserve), 0)
	}
	return r
}

// settle brings the limits of a VM in line with a policy that was changed: those
// that are not scaled any more are the spec's again. The caller holds v.work.
func (a *Agent) settle(ctx context.Context, v *vm) {
	ctx, cancel := context.WithTimeout(ctx, kernelTimeout)
	defer cancel()
	if err := a.settleLimits(ctx, v); err != nil && !errors.Is(err, cgroup.ErrGone) {
		a.note(Event{Level: LevelWarn, Kind: "autoscale.failed", VM: v.ID,
			Message: fmt.Sprintf("the limits of VM %s stay as autoscaling has set them: %v", v.Name, err)})
	}
}

func (a *Agent) settleLimits(ctx context.Context, v *vm) error {
	a.mu.Lock()
	p, _ := a.policyOf(v)
	next := v.vmRecord
	next.Sized = next.unsized(func(res autoscale.Resource) bool { return p.Rules[res].Mode != autoscale.Auto })
	live := v.State == VMRunning || v.State == VMFrozen
	a.mu.Unlock()
	if !live {
		return nil
	}
	stays, err := a.leave(ctx, v, &next)
	if err != nil {
		return err
	}
	if err := a.update(v, func(rec *vmRecord) { rec.Sized = next.Sized }); err != nil {
		return err
	}
	if err := a.applyLimits(ctx, v); err != nil {
		return err
	}
	a.expect(v)
	return stays
}

// leave lets a VM keep, of what autoscaling has lent it, what is in use: memory and
// storage cannot be taken away from it as cores can. Stays says what that is.
func (a *Agent) leave(ctx context.Context, v *vm, next *vmRecord) (stays, err error) {
	a.mu.Lock()
	old := v.vmRecord
	a.mu.Unlock()
	if err := shrinkMemory(ctx, v.slice, next.size().MemoryBytes); err != nil {
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
		stays = err
		next.Sized = next.keeping(old, autoscale.Memory)
	}
	if err := a.checkStorage(v, next.size().StorageBytes); err != nil {
		stays = errors.Join(stays, err)
		next.Sized = next.keeping(old, autoscale.Storage)
	}
	return stays, nil
}

// keeping is what autoscaling has set with one limit as another record has it.
func (r vmRecord) keeping(old vmRecord, res autoscale.Resource) map[string]float64 {
	if v, ok := old.Sized[res.String()]; ok {
		return r.resized(res, v, old.Sized[sizedHigh])
	}
	return r.Sized
}

// resume brings what autoscaling has set up to date before a new agent takes a VM
// over. The one before may have been killed after it stored a policy, and before it
// settled the limits; or after it stored that memory is to shrink, and before it did:
// what the VM has taken since is left to it, up to the limit that the kernel has. The
// caller holds v.work.
func (a *Agent) resume(ctx context.Context, v *vm) error {
	a.mu.Lock()
	p, _ := a.policyOf(v)
	old, next := v.vmRecord, v.vmRecord
	next.Sized = next.unsized(func(res autoscale.Resource) bool { return p.Rules[res].Mode != autoscale.Auto })
	a.mu.Unlock()
	if v.slice.Exists() {
		if err := a.resumeMemory(ctx, v, &next); err != nil {
			return err
		}
		if err := a.checkStorage(v, next.size().StorageBytes); err != nil {
			next.Sized = next.keeping(old, autoscale.Storage)
		}
	}
	if maps.Equal(next.Sized, old.Sized) {
		return nil
	}
	return a.update(v, func(rec *vmRecord) { rec.Sized = next.Sized })
}

// resumeMemory leaves a VM the memory.max that it has where it uses more than it
// should have.
func (a *Agent) resumeMemory(ctx context.Context, v *vm, next *vmRecord) error {
	err := shrinkMemory(ctx, v.slice, next.size().MemoryBytes)
	if !errors.Is(err, ErrConflict) {
		return ignoreGone(err)
	}
	k, err := v.slice.Limits()
	if err != nil {
		return err
	}
	use, err := memoryInUse(v.slice)
	if err != nil {
		return err
	}
	most := (use + use/4) &^ 4095 // of no limit, and of one that it has outgrown
	if k.MemoryMax != nil && *k.MemoryMax > use && *k.MemoryMax < most {
		most = *k.MemoryMax
	}
	next.Sized = next.resized(autoscale.Memory, float64(most), float64(most))
	a.log.Warn("a VM uses more memory than its limit was to be", "vm", v.Name, "bytes", use, "limit", most)
	return nil
}

// settleAll does so for all VMs.
func (a *Agent) settleAll(ctx context.Context) {
	for _, v := range a.vmList() {
		if ctx.Err() != nil {
			return
		}
		v.work.Lock()
		a.settle(ctx, v)
		v.work.Unlock()
	}
}

// update stores a change of what a VM shall be.
func (a *Agent) update(v *vm, change func(*vmRecord), events ...Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	rec := v.vmRecord
	change(&rec)
	if err := a.commit([]store.Change{putVM(rec)}, events...); err != nil {
		return err
	}
	v.vmRecord = rec
	return nil
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"
)

// highShare is memory.high of memory.max while nothing is known of a VM's need
// (KEP-2570).
const highShare = 0.9

// high is what memory.high shall be: the working limit where memory is scaled, else
// none.
func (a *Agent) high(s state.View, r *vmRecord) int64 {
	p, _ := a.rules().Of(s, r, a.roomFor())
	switch high := int64(r.Sized[scaling.SizedHigh]); {
	case p.Rules[autoscale.Memory].Mode != autoscale.Auto:
		return cgroup.Max
	case high > 0:
		return high
	}
	if limit := r.Size().MemoryBytes; float64(limit) < p.Rules[autoscale.Memory].Max {
		return int64(highShare*float64(limit)) &^ 4095
	}
	return cgroup.Max // it cannot grow, and is not to be slowed down for nothing
}

// roomFor is what limits of VMs together may be at most, the reserve of the host
// taken off.
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
func (a *Agent) roomNow(s state.View) autoscale.Room {
	var promised autoscale.Limits
	for r := range s.VMs() {
		h := r.Held()
		h.CPUs = max(h.CPUs, r.Size().CPUs)
		for res, n := range policy.Amounts(h) {
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
// that are not scaled any more are the spec's again.
func (a *Agent) settle(ctx context.Context, l *vm.Lease) {
	ctx, cancel := context.WithTimeout(ctx, kernelTimeout)
	defer cancel()
	if err := a.settleLimits(ctx, l); err != nil && !errors.Is(err, cgroup.ErrGone) {
		a.state.Note(Event{Level: LevelWarn, Kind: "autoscale.failed", VM: l.ID,
			Message: fmt.Sprintf("the limits of VM %s stay as autoscaling has set them: %v", l.Name, err)})
	}
}

func (a *Agent) settleLimits(ctx context.Context, l *vm.Lease) error {
	s := a.state.View()
	next := *l.Record(s)
	p, _ := a.rules().Of(s, &next, a.roomFor())
	next.Sized = scaling.Unsized(&next, func(res autoscale.Resource) bool { return p.Rules[res].Mode != autoscale.Auto })
	if next.State != VMRunning && next.State != VMFrozen {
		return nil
	}
	stays, err := a.leave(ctx, l, &next)
	if err != nil {
		return err
	}
	if err := a.update(l.VM, func(rec *vmRecord) { rec.Sized = next.Sized }); err != nil {
		return err
	}
	if err := l.ApplyLimits(ctx); err != nil {
		return err
	}
	a.expect(l.VM)
	return stays
}

// leave lets a VM keep, of what autoscaling has lent it, what is in use: memory and
// storage cannot be taken away from it as cores can. Stays says what that is.
func (a *Agent) leave(ctx context.Context, l *vm.Lease, next *vmRecord) (stays, err error) {
	old := a.record(l.VM)
	if err := l.ShrinkMemory(ctx, next.Size().MemoryBytes); err != nil {
		if !errors.Is(err, fault.ErrConflict) {
			return nil, err
		}
		stays = err
		next.Sized = scaling.Keeping(next, old, autoscale.Memory)
	}
	if err := l.CheckStorage(next.Size().StorageBytes); err != nil {
		stays = errors.Join(stays, err)
		next.Sized = scaling.Keeping(next, old, autoscale.Storage)
	}
	return stays, nil
}

// resume brings what autoscaling has set up to date before a new agent takes a VM
// over. The one before may have been killed after it stored a policy, and before it
// settled the limits; or after it stored that memory is to shrink, and before it did:
// what the VM has taken since is left to it, up to the limit that the kernel has.
func (a *Agent) resume(ctx context.Context, l *vm.Lease) error {
	s := a.state.View()
	old := l.Record(s)
	next := *old
	p, _ := a.rules().Of(s, old, a.roomFor())
	next.Sized = scaling.Unsized(old, func(res autoscale.Resource) bool { return p.Rules[res].Mode != autoscale.Auto })
	if l.Slice().Exists() {
		if err := a.resumeMemory(ctx, l, &next); err != nil {
			return err
		}
		if err := l.CheckStorage(next.Size().StorageBytes); err != nil {
			next.Sized = scaling.Keeping(&next, old, autoscale.Storage)
		}
	}
	if maps.Equal(next.Sized, old.Sized) {
		return nil
	}
	return a.updateAnyway(l.VM, func(rec *vmRecord) { rec.Sized = next.Sized })
}

// resumeMemory leaves a VM the memory.max that it has where it uses more than it
// should have.
func (a *Agent) resumeMemory(ctx context.Context, l *vm.Lease, next *vmRecord) error {
	err := l.ShrinkMemory(ctx, next.Size().MemoryBytes)
	if !errors.Is(err, fault.ErrConflict) {
		return cgroup.IgnoreGone(err)
	}
	k, err := l.Slice().Limits()
	if err != nil {
		return err
	}
	use, err := l.MemoryInUse()
	if err != nil {
		return err
	}
	most := (use + use/4) &^ 4095 // of no limit, and of one that it has outgrown
	if k.MemoryMax != nil && *k.MemoryMax > use && *k.MemoryMax < most {
		most = *k.MemoryMax
	}
	next.Sized = scaling.Resized(next, autoscale.Memory, float64(most), float64(most))
	a.log.Warn("a VM uses more memory than its limit was to be", "vm", l.Name, "bytes", use, "limit", most)
	return nil
}

// settleAll settles all VMs.
func (a *Agent) settleAll(ctx context.Context) {
	for _, v := range a.vmList() {
		if ctx.Err() != nil {
			return
		}
		l := v.Work()
		a.settle(ctx, l)
		l.Release()
	}
}

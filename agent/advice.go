package agent

import (
	"context"
	"time"

	"cloudflash/agent/advice"
	"cloudflash/agent/autoscale"
	"cloudflash/agent/vm"
)

// newAdvisor is an advisor that asks this agent.
func (a *Agent) newAdvisor() *advice.Advisor {
	return advice.New(advice.Config{
		Log:      a.log,
		Store:    a.store,
		State:    a.state,
		After:    a.cfg.FindingsAfter,
		Rules:    a.rules,
		Room:     a.roomFor,
		Now:      a.advised,
		Machine:  a.machine,
		Pressure: func() bool { return a.meter.Collectors()["pressure"].OK },
	})
}

// advised is how a VM stands that advice is asked for.
func (a *Agent) advised(id string) (advice.Now, bool) {
	r := a.state.View().VM(id)
	a.held.Lock()
	defer a.held.Unlock()
	v := a.vms[id]
	if r == nil || v == nil {
		return advice.Now{}, false
	}
	now := advice.Now{Limits: v.Limits().Amounts()}
	if v.idleSince(r) != nil {
		now.IdleFor = v.idle.For(time.Now())
	}
	return now, true
}

// machine is how the host's memory is.
func (a *Agent) machine() autoscale.Machine {
	m := autoscale.Machine{Cores: float64(a.host.Facts().CPUs), Fragmentation: -1}
	if mem := a.Pages.Last(); mem != nil && mem.FragmentationRatio != nil {
		m.Fragmentation = *mem.FragmentationRatio
		m.FreeBytes, m.LargestFree = float64(mem.FreeBytes), 1-m.Fragmentation // what is not of use for a huge page is in smaller blocks
	}
	return m
}

// Advice is advice.Advisor.For.
func (a *Agent) Advice(ref string) ([]advice.Advice, error) { return a.advisor.For(ref) }

// TakeAdvice gives a VM what is advised for the named resources; none are all for
// which that is worth it. Named ones are taken whatever little is known. It is all or
// nothing, and UndoAdvice takes it back, also after a restart.
func (a *Agent) TakeAdvice(ctx context.Context, ref string, resources []string) (VM, error) {
	v, err := a.lookup(ref)
	if err != nil {
		return VM{}, err
	}
	if err := advice.CheckResources(resources); err != nil {
		return VM{}, err
	}
	l := v.Work()
	defer l.Release()
	r := a.record(v)
	to, err := a.advisor.Choose(r, resources)
	if err != nil {
		return VM{}, err
	}
	taken := &AppliedAdvice{At: time.Now().UTC(), From: r.Spec, To: to}
	return a.follow(ctx, l, r.Spec, to, taken, Event{Kind: "advice.applied", Message: "VM " + v.Name + " has what is advised"})
}

// UndoAdvice gives a VM back what it had of the resources for which advice was taken
// last, unless they have been changed since.
func (a *Agent) UndoAdvice(ctx context.Context, ref string) (VM, error) {
	v, err := a.lookup(ref)
	if err != nil {
		return VM{}, err
	}
	l := v.Work()
	defer l.Release()
	r := a.record(v)
	to, err := advice.Undo(r)
	if err != nil {
		return VM{}, err
	}
	said := Event{Kind: "advice.undone", Message: "VM " + v.Name + " has again what it had before advice was taken"}
	return a.follow(ctx, l, r.Spec, to, nil, said)
}

// follow changes a VM for advice that it has taken or given back.
func (a *Agent) follow(ctx context.Context, l *vm.Lease, from, to Spec, taken *AppliedAdvice, said Event) (VM, error) {
	out, err := a.change(ctx, l, changeOf(from, to), func(next *vmRecord) { next.Advice = taken })
	if err != nil {
		return VM{}, err
	}
	said.Level, said.VM = LevelInfo, l.ID
	said.Message += ": " + advice.Difference(from, to)
	said.Data = map[string]any{"from": from, "to": to}
	a.state.Note(said)
	return out, nil
}

// changeOf is the change that turns one spec into another.
func changeOf(from, to Spec) VMChange {
	var ch VMChange
	if from.CPUs != to.CPUs {
		ch.CPUs = &to.CPUs
	}
	if from.MemoryBytes != to.MemoryBytes {
		ch.MemoryBytes = &to.MemoryBytes
	}
	if from.StorageBytes != to.StorageBytes {
		ch.StorageBytes = &to.StorageBytes
	}
	if from.BandwidthBPS != to.BandwidthBPS {
		ch.BandwidthBPS = &to.BandwidthBPS
	}
	if from.IO != to.IO {
		ch.IO = &to.IO
	}
	return ch
}

package agent

import (
	"context"
	"fmt"
	"slices"

	"cloudflash/agent/state"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"
)

// FreezeVM stops every cloudlet of a VM where it stands and returns once the
// kernel says that they are frozen; one that is starting follows at once. The VM's init is
// not frozen: it goes on recording what is killed meanwhile.
func (a *Agent) FreezeVM(ctx context.Context, ref string) (VM, error) {
	return a.switchFreezer(ctx, ref, VMRunning, VMFrozen, "frozen", (*cgroup.Scope).Freeze)
}

// ThawVM lets a frozen VM run on.
func (a *Agent) ThawVM(ctx context.Context, ref string) (VM, error) {
	return a.switchFreezer(ctx, ref, VMFrozen, VMRunning, "thawed", (*cgroup.Scope).Thaw)
}

func (a *Agent) switchFreezer(ctx context.Context, ref string, from, to VMState, verb string, act func(*cgroup.Scope, context.Context) error) (VM, error) {
	v, err := a.lookup(ref)
	if err != nil {
		return VM{}, err
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), kernelTimeout)
	defer cancel()
	l := v.Work()
	defer l.Release()
	out, err := a.storeFreezer(v, from, to, verb)
	if err != nil || out.State != to {
		return out, err
	}
	if err := l.EachScope(work, act, a.isStarting); err != nil {
		return out, fmt.Errorf("VM %s: %w", v.Name, err)
	}
	return a.VM(v.ID)
}

// storeFreezer stores the new state of the VM and of its cloudlets. It runs
// before the kernel acts; recovery repeats the act.
func (a *Agent) storeFreezer(v *vm.VM, from, to VMState, verb string) (VM, error) {
	err := a.state.Update(func(tx *state.Tx) error {
		r := v.Record(tx.View)
		if r.State == to {
			return nil // said again: done again, harmless
		}
		if r.State != from {
			return wrongState(r, verb)
		}

		rec := *r
		rec.State = to
		tx.PutVM(rec)
		cfrom, cto := CloudletRunning, CloudletFrozen
		if to == VMRunning {
			cfrom, cto = cto, cfrom
		}
		moved := 0
		for _, c := range slices.Collect(tx.LiveIn(v.ID)) {
			if c.State == cfrom {
				next := *c
				next.State = cto
				tx.PutCloudlet(next)
				moved++
			}
		}
		tx.Tell(Event{Level: LevelInfo, Kind: "vm." + verb, VM: v.ID,
			Message: fmt.Sprintf("VM %s %s with %d cloudlets", v.Name, verb, moved)})
		a.touch(v.ID, "it was "+verb)
		return nil
	})
	if err != nil {
		return VM{}, err
	}
	a.poke()
	return a.VM(v.ID)
}

// freezeLate freezes a scope whose VM was frozen while its process started.
func (a *Agent) freezeLate(ctx context.Context, v *vm.VM, scope *cgroup.Scope) error {
	if a.record(v).State != VMFrozen {
		return nil
	}
	l := v.Work() // or it could be thawed between the look and the act
	defer l.Release()
	ctx, cancel := context.WithTimeout(ctx, kernelTimeout)
	defer cancel()
	if a.record(v).State != VMFrozen {
		return nil
	}
	return cgroup.IgnoreGone(scope.Freeze(ctx))
}

// isStarting reports whether a cloudlet or a command of vm exec may not have its process
// yet, or one that the init waits for: that must not be frozen. started and sessionStarted
// freeze it as soon as it may be.
func (a *Agent) isStarting(id string) bool {
	if c := a.state.View().Cloudlet(id); c != nil && c.State == CloudletStarting {
		return true
	}
	a.held.Lock()
	defer a.held.Unlock()
	s := a.sessions[id]
	return s != nil && s.starting
}

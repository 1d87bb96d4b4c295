package agent

import (
	"context"
	"fmt"
	"os"

	"cloudflash/agent/clock"
	"cloudflash/agent/state"
	"cloudflash/agent/thrash"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"
)

// endThrash kills the biggest cloudlet of every VM that thrashes.
func (a *Agent) endThrash() {
	s := a.state.View()
	for _, v := range a.heldVMs() {
		limit := v.Limits().MemoryBytes
		if limit == nil || v.Probe() == nil || v.Record(s).State != VMRunning {
			continue
		}
		a.held.Lock()
		use := v.usage
		a.held.Unlock()
		if !v.thrash.Observe(use, *limit, func() (thrash.Cache, error) { return cacheOf(v.Slice()) }) {
			continue
		}
		v.thrash = thrash.Watch{}
		if id, size := biggest(v.VM); id != "" {
			a.killThrashing(v.VM, id, size)
		}
	}
}

func cacheOf(o *cgroup.Slice) (thrash.Cache, error) {
	r, err := o.OpenReader()
	if err != nil {
		return thrash.Cache{}, err
	}
	defer r.Close()
	m, err := r.MemoryStat()
	return thrash.Cache{Size: int64(m.ActiveFile + m.InactiveFile), Unwritten: int64(m.FileDirty + m.FileWriteback),
		Refaults: int64(m.RefaultFile) * int64(os.Getpagesize())}, err
}

// biggest is the cloudlet or session with the most memory.
func biggest(v *vm.VM) (id string, size int64) {
	ids, _ := v.ScopeIDs() // a VM that is gone has none
	for _, is := range ids {
		r, err := v.Scope(is).OpenReader()
		if err != nil {
			continue
		}
		if n, err := r.MemoryCurrent(); err == nil && n > size {
			id, size = is, n
		}
		_ = r.Close()
	}
	return id, size
}

// killThrashing stores why before it kills: the exit may be read by another agent.
func (a *Agent) killThrashing(v *vm.VM, id string, size int64) {
	said := "VM %s stood still at its memory limit, reading its programs again and again: %s, with %d MiB, is killed"
	e := Event{Level: LevelWarn, Kind: "vm.thrashing", VM: v.ID, Data: map[string]any{"memory_bytes": size, "seconds": thrash.Samples}}
	ending := false
	err := a.state.UpdateAnyway(func(tx *state.Tx) error {
		a.held.Lock()
		defer a.held.Unlock()
		c, hold, s := tx.Cloudlet(id), a.cloudlets[id], a.sessions[id]
		switch {
		case c != nil && hold != nil && !c.State.Final() && c.Stop == "":
			rec := *c
			rec.Stop, rec.StoppingBoot = stopOOM, clock.SinceBoot()
			tx.PutCloudlet(rec)
			e.Cloudlet, e.Message = id, fmt.Sprintf(said, v.Name, "cloudlet "+c.Name, size>>20)
		case s != nil:
			tx.Then(func() {
				a.held.Lock()
				defer a.held.Unlock()
				s.oom = true
			})
			e.Message = fmt.Sprintf(said, v.Name, "a command of vm exec", size>>20)
		default:
			ending = true
			return nil
		}
		rec := *v.Record(tx.View)
		rec.Thrashed++
		tx.PutVM(rec)
		tx.Tell(e)
		return nil
	})
	if err != nil || ending {
		return // it is tried again when it has thrashed on
	}
	a.held.Lock()
	if hold := a.cloudlets[id]; hold != nil {
		hold.killing = true
	}
	a.held.Unlock()
	scope := v.Scope(id)
	a.spawn(func(ctx context.Context) {
		if err := cgroup.IgnoreGone(scope.Kill(ctx)); err != nil {
			a.log.Error("kill what thrashes", "vm", v.Name, "err", err)
		}
	})
}

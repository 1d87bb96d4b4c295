package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/agent/state"
	"cloudflash/agent/tokens"
	"cloudflash/cgroup"

	"golang.org/x/sync/errgroup"
)

// load reads everything stored into memory.
func (a *Agent) load() (err error) {
	m := clock.Now()
	a.state, err = state.Load(a.store, state.Config{
		MendVM:       func(r *vmRecord) { r.Network = withNetworkDefaults(r.Network) },
		MendCloudlet: func(r *cloudletRecord) { cloudlet.Rebase(r, m, a.boot) },
		Heard:        a.heard,
		Unstored:     a.unstored,
	})
	if err != nil {
		return err
	}
	a.Tokens = tokens.New(a.state, a.boot)
	for r := range a.state.View().VMs() {
		a.vms[r.ID] = a.newVM(r)
	}
	return nil
}

// recover makes the kernel agree with the store after a start: VMs that live on
// are taken over, others are built again, half-made ones are finished, half-deleted ones
// erased. Only then is swept what belongs to no VM.
func (a *Agent) recover(ctx context.Context) error {
	began := time.Now()
	a.recoverVMs(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err := a.sweep(ctx); err != nil {
		return err
	}
	err := a.state.UpdateAnyway(func(tx *state.Tx) error {
		before := tx.Boot()
		tx.SetBoot(a.boot)
		tx.Tell(Event{
			Level: LevelInfo, Kind: "agent.started",
			Message: fmt.Sprintf("agent %s started with %d VMs and %d cloudlets", a.cfg.Version, tx.VMCount(), tx.LiveCount()),
			Data: map[string]any{
				"recovery_seconds": time.Since(began).Seconds(),
				"host_rebooted":    before != "" && before != a.boot,
			},
		})
		return nil
	})
	if errors.Is(err, fault.ErrFull) { // what runs is to be seen, and what is wrong to be told
		return nil
	}
	return err
}

func (a *Agent) vmList() []*vm {
	a.held.Lock()
	defer a.held.Unlock()
	all := make([]*vm, 0, len(a.vms))
	for _, v := range a.vms {
		all = append(all, v)
	}
	return all
}

// recoverVMs recovers all VMs, some at a time. One that is stuck in the kernel
// beyond its time is left to it; the agent goes on with the others.
func (a *Agent) recoverVMs(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(8)
	done := make(chan struct{})
	var left atomic.Int64
	all := a.vmList()
	left.Store(int64(len(all)))
	a.spawn(func(context.Context) {
		defer close(done)
		for _, v := range all {
			g.Go(func() error {
				defer left.Add(-1)
				a.recoverVM(ctx, v)
				return nil
			})
		}
		_ = g.Wait()
	})
	for patience := recoverTimeout + 5*time.Second; ; {
		before := left.Load()
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-time.After(patience):
		}
		if left.Load() == before { // nothing has moved for so long
			a.log.Error("VMs are stuck in recovery", "vms", before)
			return
		}
	}
}

// recoverTimeout bounds what one VM may take: the others wait for it.
const recoverTimeout = 40 * time.Second

// recoverVM does for one VM what its stored state asks for. One that cannot be
// erased at once goes on being erased meanwhile.
func (a *Agent) recoverVM(ctx context.Context, v *vm) {
	if a.record(v).State == VMDeleting {
		a.spawn(func(ctx context.Context) { a.delete(ctx, v, 0) })
		return
	}
	v.work.Lock()
	defer v.work.Unlock()
	work, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	err := a.restore(work, v)
	was := a.record(v).State
	switch {
	case ctx.Err() != nil:
	case err != nil:
		a.fail(v, err)
	case was == VMCreating:
		_, _ = a.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.created", VM: v.ID,
			Message: fmt.Sprintf("VM %s created; it was cut off half-way before", v.Name)})
	case was == VMFailed:
		_, _ = a.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.recovered", VM: v.ID, Message: "VM " + v.Name + " works again"})
	}
}

// restore realises a VM and settles what became of its cloudlets. The caller
// holds v.work.
func (a *Agent) restore(ctx context.Context, v *vm) error {
	past, err := guest.ReadJournal(a.runDir(v.ID))
	if err != nil {
		a.log.Warn("read journal", "vm", v.Name, "err", err)
	}
	// An init that lives delivers its exits itself; one that is gone has left
	// them in its journal, and its scopes still hold what was used.
	if _, err := a.probeInit(ctx, v); errors.Is(err, guest.ErrGone) {
		if err := a.settleDead(ctx, v, past); err != nil {
			return err
		}
	}
	if err := a.resume(ctx, v); err != nil {
		return err
	}
	if err := a.furnish(ctx, v); err != nil {
		return err
	}
	h, err := a.realise(ctx, v)
	if err != nil {
		return err
	}
	// Only then may more be placed: a cloudlet on its way would pass for one whose
	// start was cut off.
	if err := a.settleLiving(ctx, v, h.guest); err != nil {
		return errors.Join(err, h.Close())
	}
	a.adopt(v, h)
	return nil
}

// probeInit reports ErrGone when no init of the VM lives.
func (a *Agent) probeInit(ctx context.Context, v *vm) (bool, error) {
	g, err := guest.Connect(ctx, a.guestConfig(v))
	if err != nil {
		return false, err
	}
	return true, g.Close()
}

// settleDead ends the cloudlets of an init that is gone: with their real result
// where the journal has it, else as lost.
func (a *Agent) settleDead(ctx context.Context, v *vm, past []guest.Exit) error {
	if v.slice.Exists() {
		if err := ignoreGone(v.slice.Kill(ctx)); err != nil {
			return err
		}
	}
	exits := map[string]guest.Exit{}
	for _, e := range past {
		exits[e.ID] = e
	}
	for _, c := range a.cloudletsOf(v) {
		scope := v.slice.Scope(scopeName(c.ID))
		if e, ok := exits[c.ID]; ok {
			use := usageOf(meter.Read(scope))
			end := cloudlet.End{Code: e.Code, Signal: e.Signal, OOM: use.OOMKills > 0}
			at := momentOf(e, c.SubmittedBoot)
			a.surely(func() bool { return a.end(c.ID, v, end, use, at, e.StartedAt) })
		} else {
			a.lose(c.ID, usageOf(meter.Read(scope)))
		}
		if scope.Exists() {
			if err := scope.Remove(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// cloudletsOf are those that a VM has started and that have not ended.
func (a *Agent) cloudletsOf(v *vm) []*cloudletRecord {
	return slices.Collect(a.state.View().HoldIn(v.ID))
}

// surely does at once, or else again and again, what is only in the way of a full disk.
func (a *Agent) surely(do func() bool) {
	if !do() {
		a.spawn(func(ctx context.Context) { untilStored(ctx, do) })
	}
}

// lose ends a cloudlet whose result nobody knows.
func (a *Agent) lose(id string, use Usage) {
	a.surely(func() bool { return a.storeLost(id, use) })
}

func (a *Agent) storeLost(id string, use Usage) bool {
	return a.state.UpdateAnyway(func(tx *state.Tx) error {
		c := tx.Cloudlet(id)
		if c == nil || c.State.Final() {
			return nil
		}
		rec := cloudlet.Lost(c, use, clock.Now())
		tx.PutCloudlet(rec)
		tx.Tell(cloudlet.Finished(&rec))
		tx.Then(func() { a.over(&rec, false) })
		return nil
	}) == nil
}

// settleLiving compares the stored cloudlets of a VM with what its init knows.
// What ended meanwhile arrives through the journal, not here.
func (a *Agent) settleLiving(ctx context.Context, v *vm, g *guest.Guest) error {
	processes, err := g.Processes(ctx)
	if err != nil {
		return err
	}
	running := map[string]guest.Running{}
	for _, p := range processes {
		running[p.ID] = p
	}
	exits, err := guest.ReadJournal(a.runDir(v.ID))
	if err != nil {
		return err
	}
	ended := map[string]bool{}
	for _, e := range exits {
		ended[e.ID] = true
	}
	for _, c := range a.cloudletsOf(v) {
		scope := v.slice.Scope(scopeName(c.ID))
		run, lives := running[c.ID]
		switch {
		case lives:
			a.started(c.ID, v, g, scope, run)
		case ended[c.ID]: // Guest.Run delivers it
		case c.State == CloudletStarting:
			if err := a.requeue(ctx, c.ID, scope); err != nil {
				return err
			}
		default:
			a.lose(c.ID, usageOf(meter.Read(scope)))
		}
	}
	if a.record(v).State == VMFrozen {
		return a.eachScope(ctx, v, (*cgroup.Scope).Freeze)
	}
	return a.eachScope(ctx, v, (*cgroup.Scope).Thaw)
}

// requeue puts back a cloudlet whose process never came to be.
func (a *Agent) requeue(ctx context.Context, id string, scope *cgroup.Scope) error {
	if scope.Exists() {
		if err := ignoreGone(scope.Kill(ctx)); err != nil {
			return err
		}
		if err := scope.Remove(ctx); err != nil {
			return err
		}
	}
	return a.state.UpdateAnyway(func(tx *state.Tx) error {
		rec := *tx.Cloudlet(id)
		rec.State = CloudletQueued
		if !rec.Pinned {
			rec.VM = ""
		}
		tx.PutCloudlet(rec)
		return nil
	})
}

// sweep removes what carries our mark and belongs to no VM: slices, run directories,
// and scopes of cloudlets that have ended. Data is set aside.
func (a *Agent) sweep(ctx context.Context) error {
	ids, err := a.parent.Slices()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if v := a.known(id); v != nil {
			a.sweepScopes(ctx, v)
			continue
		}
		s := a.parent.Slice(id)
		if err := errors.Join(ignoreGone(s.Kill(ctx)), s.Remove(ctx)); err != nil {
			a.log.Error("sweep slice", "id", id, "err", err)
		}
	}
	known := map[string]bool{}
	for _, v := range a.vmList() {
		known[v.ID] = true
	}
	if err := a.network.Sweep(ctx, known); err != nil {
		a.log.Error("sweep network", "err", err)
	}
	defer func() {
		if err := a.sweepStorage(ctx); err != nil { // when their directories are gone
			a.log.Error("sweep storage", "err", err)
		}
	}()
	for _, root := range []string{a.cfg.RunDir, a.cfg.StateDir} {
		entries, err := os.ReadDir(filepath.Join(root, "vms"))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if a.known(e.Name()) != nil || e.Name() == lostDir {
				continue
			}
			remove := guest.RemoveTree
			if root == a.cfg.StateDir && !a.cfg.Erase {
				remove = a.setAside
			}
			if err := remove(filepath.Join(root, "vms", e.Name())); err != nil {
				a.log.Error("sweep directory", "path", e.Name(), "err", err)
			}
		}
	}
	return nil
}

// lostDir is where the data of VMs goes that no record knows, beside that of VMs: in
// another file system it could not be moved to.
const lostDir = ".lost"

// setAside moves what nobody knows out of the way. Data is erased with its VM, or not
// at all.
func (a *Agent) setAside(path string) error {
	lost := filepath.Join(filepath.Dir(path), lostDir)
	if err := os.Mkdir(lost, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	to := filepath.Join(lost, filepath.Base(path)+"-"+time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(path, to); err != nil {
		return err
	}
	a.note(Event{Level: LevelWarn, Kind: "data.set_aside",
		Message: fmt.Sprintf("%s belongs to no VM and was moved to %s; delete it when nobody misses it", path, to)})
	return nil
}

// sweepScopes removes the scopes of cloudlets that are over.
func (a *Agent) sweepScopes(ctx context.Context, v *vm) {
	names, err := v.slice.Scopes()
	if err != nil {
		a.log.Error("sweep scopes", "vm", v.Name, "err", err)
		return
	}
	live := map[string]bool{initScope: true}
	for _, c := range a.cloudletsOf(v) {
		live[scopeName(c.ID)] = true
	}
	for _, name := range names {
		if live[name] {
			continue
		}
		s := v.slice.Scope(name)
		if err := errors.Join(ignoreGone(s.Kill(ctx)), s.Remove(ctx)); err != nil {
			a.log.Error("sweep scope", "vm", v.Name, "scope", name, "err", err)
		}
	}
}

// initScope is the leaf of a VM's init.
const initScope = "init"

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
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
	"cloudflash/agent/vm"
	"cloudflash/cgroup"

	"golang.org/x/sync/errgroup"
)

// load reads everything stored into memory. Network owner is what the bridge of the VMs
// says of whose it is.
func (a *Agent) load(networkOwner string) (err error) {
	m := clock.Now()
	a.state, err = state.Load(a.store, state.Config{
		MendVM:       func(r *vmRecord) { r.Network = vm.NetworkDefaults(r.Network) },
		MendCloudlet: func(r *cloudletRecord) { cloudlet.Rebase(r, m, a.boot) },
		Heard:        a.heard,
		Unstored:     a.unstored,
	})
	if err != nil {
		return fmt.Errorf("load state: %w", err)
	}
	a.Tokens = tokens.New(a.state, a.boot)
	if a.platform, err = vm.New(a.platformConfig(networkOwner)); err != nil {
		return err
	}
	for r := range a.state.View().VMs() {
		a.vms[r.ID] = &heldVM{VM: a.platform.VM(r)}
	}
	return nil
}

func (a *Agent) platformConfig(networkOwner string) vm.Config {
	return vm.Config{
		Log:          a.log,
		State:        a.state,
		Parent:       a.parent,
		Meter:        a.meter,
		StateDir:     a.cfg.StateDir,
		RunDir:       a.cfg.RunDir,
		InitPath:     a.cfg.InitPath,
		Binaries:     a.cfg.Binaries,
		Erase:        a.cfg.Erase,
		Storage:      a.cfg.Storage,
		Overcommit:   a.cfg.Overcommit.Storage,
		TrimAfter:    a.cfg.TrimAfter,
		Bridge:       a.cfg.Bridge,
		Pool:         a.cfg.NetworkPool,
		ULA:          a.cfg.NetworkULA,
		NetworkOwner: networkOwner,
		UpkeepEvery:  a.cfg.UpkeepEvery,
		High:         a.high,
		VMs:          a.vmList,
	}
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

func (a *Agent) vmList() []*vm.VM {
	a.held.Lock()
	defer a.held.Unlock()
	all := make([]*vm.VM, 0, len(a.vms))
	for _, v := range a.vms {
		all = append(all, v.VM)
	}
	return all
}

func (a *Agent) heldVMs() []*heldVM {
	a.held.Lock()
	defer a.held.Unlock()
	return slices.Collect(maps.Values(a.vms))
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
func (a *Agent) recoverVM(ctx context.Context, v *vm.VM) {
	if a.record(v).State == VMDeleting {
		a.spawn(func(ctx context.Context) { a.delete(ctx, v, 0) })
		return
	}
	l := v.Work()
	defer l.Release()
	work, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	err := a.restore(work, l)
	was := a.record(v).State
	switch {
	case ctx.Err() != nil:
	case err != nil && was == VMCreating: // nobody was told that there is such a VM
		if a.unmake(v, err) {
			a.spawn(func(ctx context.Context) { a.delete(ctx, v, 0) })
		}
	case err != nil:
		a.fail(v, err)
	case was == VMCreating:
		a.surely(func() bool {
			_, err := a.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.created", VM: v.ID,
				Message: fmt.Sprintf("VM %s created; it was cut off half-way before", v.Name)})
			return err == nil
		})
	case was == VMFailed:
		_, _ = a.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.recovered", VM: v.ID, Message: "VM " + v.Name + " works again"})
	}
}

// restore realises a VM and settles what became of its cloudlets.
func (a *Agent) restore(ctx context.Context, l *vm.Lease) error {
	past, err := a.journal(l)
	if err != nil {
		a.log.Warn("read journal", "vm", l.Name, "err", err)
	}
	// An init that lives delivers its exits itself; one that is gone has left
	// them in its journal, and its scopes still hold what was used.
	if l.InitIsGone(ctx) {
		if err := a.settleDead(ctx, l.VM, past); err != nil {
			return err
		}
	}
	if err := a.resume(ctx, l); err != nil {
		return err
	}
	if err := l.Furnish(ctx); err != nil {
		return err
	}
	running, err := l.Realise(ctx)
	if err != nil {
		return err
	}
	// Only then may more be placed: a cloudlet on its way would pass for one whose
	// start was cut off.
	if err := a.settleLiving(ctx, l, running.Guest); err != nil {
		return errors.Join(err, running.Close())
	}
	a.adopt(l, running)
	return nil
}

// journal is what the init of a VM has recorded, less what cannot be understood.
func (a *Agent) journal(l *vm.Lease) ([]guest.Exit, error) {
	exits, err := guest.ReadJournal(l.RunDir())
	var unread *os.PathError
	if errors.As(err, &unread) {
		return nil, err
	}
	if err != nil {
		a.log.Warn("read journal", "vm", l.Name, "err", err)
	}
	return exits, nil
}

// settleDead ends the cloudlets of an init that is gone: with their real result
// where the journal has it, else as lost.
func (a *Agent) settleDead(ctx context.Context, v *vm.VM, past []guest.Exit) error {
	if v.Slice().Exists() {
		if err := cgroup.IgnoreGone(v.Slice().Kill(ctx)); err != nil {
			return err
		}
	}
	exits := map[string]guest.Exit{}
	for _, e := range past {
		exits[e.ID] = e
	}
	for _, c := range a.cloudletsOf(v) {
		scope := v.Scope(c.ID)
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
func (a *Agent) cloudletsOf(v *vm.VM) []*cloudletRecord {
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
func (a *Agent) settleLiving(ctx context.Context, l *vm.Lease, g *guest.Guest) error {
	processes, err := g.Processes(ctx)
	if err != nil {
		return err
	}
	running := map[string]guest.Running{}
	for _, p := range processes {
		running[p.ID] = p
	}
	exits, err := a.journal(l)
	if err != nil {
		return err
	}
	ended := map[string]bool{}
	for _, e := range exits {
		ended[e.ID] = true
	}
	for _, c := range a.cloudletsOf(l.VM) {
		scope := l.Scope(c.ID)
		run, lives := running[c.ID]
		switch {
		case lives:
			a.started(c.ID, l.VM, g, run)
		case ended[c.ID]: // Guest.Run delivers it
		case c.State == CloudletStarting && !hasRun(scope):
			if err := a.requeue(ctx, c.ID, scope); err != nil {
				return err
			}
		case c.State == CloudletStarting && a.exitFollows(ctx, l, c.ID):
		default:
			a.lose(c.ID, usageOf(meter.Read(scope)))
		}
	}
	if a.record(l.VM).State == VMFrozen {
		return l.EachScope(ctx, (*cgroup.Scope).Freeze, a.isStarting)
	}
	return l.EachScope(ctx, (*cgroup.Scope).Thaw, a.isStarting)
}

// hasRun reports whether anything was executed in a scope.
func hasRun(scope *cgroup.Scope) bool { return meter.Read(scope).Counters[meter.CPUTime] > 0 }

// exitFollows waits a moment for the end of a process that has run, and that its init does
// not list any more, to appear in the journal.
func (a *Agent) exitFollows(ctx context.Context, l *vm.Lease, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		exits, _ := guest.ReadJournal(l.RunDir()) // settleLiving has told what is wrong with it
		if slices.ContainsFunc(exits, func(e guest.Exit) bool { return e.ID == id }) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// requeue puts back a cloudlet whose process never came to be.
func (a *Agent) requeue(ctx context.Context, id string, scope *cgroup.Scope) error {
	if scope.Exists() {
		if err := cgroup.IgnoreGone(scope.Kill(ctx)); err != nil {
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

// sweep removes what carries our mark and belongs to no VM, or to a cloudlet that has
// ended.
func (a *Agent) sweep(ctx context.Context) error {
	for _, v := range a.vmList() {
		v.SweepScopes(ctx, func() map[string]bool {
			live := map[string]bool{}
			for _, c := range a.cloudletsOf(v) {
				live[c.ID] = true
			}
			return live
		})
	}
	return a.platform.Sweep(ctx)
}

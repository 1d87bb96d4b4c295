package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/cgroup"
)

// hold is what the agent keeps of a VM that runs.
type hold struct {
	guest *guest.Guest
	probe *meter.Probe
}

func (h hold) Close() error {
	h.probe.Close()
	return h.guest.Close()
}

// furnish makes a VM's directories and its root file system. It may find them there.
func (a *Agent) furnish(ctx context.Context, v *vm) error {
	if err := a.makeDirs(v); err != nil {
		return err
	}
	return a.unpack(ctx, v)
}

// realise makes the kernel have what the record says of a VM that is furnished: slice,
// limits, init, network. Every step may find its work done already. The caller holds
// v.work, and passes the hold to adopt.
func (a *Agent) realise(ctx context.Context, v *vm) (hold, error) {
	if err := a.prepare(ctx, v); err != nil {
		return hold{}, err
	}
	g, err := a.reach(ctx, v)
	if err != nil {
		return hold{}, err
	}
	if err := errors.Join(a.connect(ctx, v, g.PID()), a.readLimits(v)); err != nil {
		return hold{}, errors.Join(err, g.Close())
	}
	p, err := a.meter.VM(v.ID, v.slice)
	if err != nil {
		return hold{}, errors.Join(err, g.Close())
	}
	return hold{g, p}, nil
}

// adopt keeps hold of a VM and lets cloudlets be placed in it, what was queued
// meanwhile first.
func (a *Agent) adopt(v *vm, h hold) {
	a.held.Lock()
	defer a.held.Unlock()
	v.guest, v.probe = h.guest, h.probe
	a.spawnWatch(v, h.guest)
	a.poke()
}

// prepare makes what an init is born into.
func (a *Agent) prepare(ctx context.Context, v *vm) error {
	if err := v.checkGPUs(); err != nil {
		return err
	}
	if err := v.slice.Create(); err != nil {
		return err
	}
	if err := v.slice.Chown(int(v.uidBase()), int(v.uidBase())); err != nil {
		return err
	}
	if err := a.writeLimits(ctx, v); err != nil {
		return err
	}
	return a.applyDevices(v)
}

// reach connects to the VM's init, or starts one after clearing what an init
// that is gone has left in the slice.
func (a *Agent) reach(ctx context.Context, v *vm) (*guest.Guest, error) {
	cfg := a.guestConfig(v)
	g, err := guest.Connect(ctx, cfg)
	if err == nil || !errors.Is(err, guest.ErrGone) {
		return g, err
	}
	if err := v.slice.Kill(ctx); err != nil {
		return nil, err
	}
	return guest.Start(ctx, cfg)
}

func (a *Agent) guestConfig(v *vm) guest.Config {
	image := v.Image
	if _, err := os.Lstat(a.unpackedDir(v.ID)); err == nil { // the archive may be gone by now
		image = a.unpackedDir(v.ID)
	}
	return guest.Config{
		ID: v.ID, Hostname: v.Name, UIDBase: v.uidBase(), Slice: v.slice,
		RunDir: a.runDir(v.ID), DataDir: a.dataDir(v.ID), UpperDir: a.upperDir(v.ID),
		Image: image, InitPath: a.cfg.InitPath, Binaries: a.cfg.Binaries, Resolv: a.resolvConf(v),
		Devices: guestDevices(v.gpuFor), Files: guestFiles(v.gpuFor),
	}
}

// unpack makes the root file system of a VM whose image is an archive, unless it
// is there.
func (a *Agent) unpack(ctx context.Context, v *vm) error {
	if !guest.IsArchive(v.Image) {
		return nil
	}
	if err := os.MkdirAll(a.stateDir(v.ID), 0o700); err != nil {
		return err
	}
	if err := guest.Unpack(ctx, v.Image, a.unpackedDir(v.ID), a.record(v).Spec.StorageBytes); err != nil {
		var f fault.List
		f.Add("/image", nil, nil, "cannot be used: %v", err)
		return f.Err("invalid_image")
	}
	return nil
}

// unpackedDir is the root file system of a VM whose image is an archive.
func (a *Agent) unpackedDir(id string) string { return filepath.Join(a.stateDir(id), "image") }

// erase removes everything the VM has in the kernel and on disk. The caller
// holds v.work. It may be repeated.
func (a *Agent) erase(ctx context.Context, v *vm) error {
	a.held.Lock()
	g, p := v.guest, v.probe
	v.guest, v.probe = nil, nil
	a.held.Unlock()
	p.Close()
	if v.slice.Exists() {
		if err := v.slice.Kill(ctx); err != nil && !errors.Is(err, cgroup.ErrGone) {
			return err
		}
	}
	if g != nil { // after the kill: its Run reaps the init only when it is dead
		_ = g.Close()
	}
	if err := v.slice.Remove(ctx); err != nil {
		return err
	}
	if err := a.network.Detach(v.ID); err != nil {
		return err
	}
	if err := guest.Remove(a.runDir(v.ID)); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(a.runDir(v.ID)), guest.RemoveTree(a.stateDir(v.ID))); err != nil {
		return err
	}
	a.releaseStorage(ctx, v)
	return nil
}

// spawnWatch hears of every cloudlet that ends in the VM, and of the end of its
// init. The caller has a.held.
func (a *Agent) spawnWatch(v *vm, g *guest.Guest) {
	a.spawn(func(ctx context.Context) {
		err := g.Run(ctx, func(e guest.Exit) { a.exited(ctx, v, g, e) })
		if ctx.Err() != nil {
			_ = g.Close()
			return
		}
		a.held.Lock()
		a.dropSessions(v.ID)
		a.held.Unlock()
		a.initGone(ctx, v, g, err)
	})
}

// initGone rebuilds a VM whose init died under it.
func (a *Agent) initGone(ctx context.Context, v *vm, g *guest.Guest, cause error) {
	_ = g.Close()
	v.work.Lock()
	defer v.work.Unlock()
	was := a.record(v).State
	a.held.Lock()
	current := v.guest == g && (was == VMRunning || was == VMFrozen)
	if current {
		v.guest = nil
	}
	a.held.Unlock()
	if !current { // deleted, or replaced already
		return
	}
	a.note(Event{Level: LevelError, Kind: "vm.init_died", VM: v.ID,
		Message: fmt.Sprintf("VM %s lost its init (%v); it is started again", v.Name, cause)})
	if err := a.restore(ctx, v); err != nil {
		a.fail(v, err)
	}
}

// fail marks a VM that cannot be made what its record says.
func (a *Agent) fail(v *vm, cause error) {
	_, _ = a.setState(v, VMFailed, cause.Error(), Event{Level: LevelError, Kind: "vm.failed", VM: v.ID,
		Message: fmt.Sprintf("VM %s failed: %v", v.Name, cause)})
}

// applyLimits makes the limits of a VM what its record says, and reads them back.
func (a *Agent) applyLimits(ctx context.Context, v *vm) error {
	if err := a.writeLimits(ctx, v); err != nil {
		return err
	}
	return a.readLimits(v)
}

func (a *Agent) writeLimits(ctx context.Context, v *vm) error {
	view := a.state.View()
	r := v.in(view)
	s, high := r.Size(), a.high(view, r)
	l, err := a.limitsFor(s, high)
	if err != nil {
		return err
	}
	if err := a.applyStorage(v, s.StorageBytes); err != nil {
		return err
	}
	if err := shrinkMemory(ctx, v.slice, s.MemoryBytes); err != nil {
		return err
	}
	if err := v.slice.Apply(l); err != nil {
		return err
	}
	return a.applyBandwidth(v, s.BandwidthBPS)
}

// applyDevices lets the VM use what is in its /dev and nothing else. Without
// device filters in the kernel it is enough that it cannot make device nodes.
func (a *Agent) applyDevices(v *vm) error {
	err := v.slice.SetDevices(append(cgroup.MinimalDevices(), deviceRules(v.gpuFor)...))
	if errors.Is(err, cgroup.ErrUnsupported) {
		a.log.Warn("filter devices", "vm", v.Name, "err", err)
		return nil
	}
	return err
}

// cpuPeriod is the length over which cpu.max is kept, the kernel's default.
const cpuPeriod = 100 * time.Millisecond

func (a *Agent) limitsFor(s Spec, high int64) (cgroup.Limits, error) {
	maxMem, noSwap := s.MemoryBytes, int64(0)
	l := cgroup.Limits{
		CPU:        cpuLimit(s.CPUs),
		MemoryMax:  &maxMem,
		MemoryHigh: &high,
		SwapMax:    &noSwap,
		PIDsMax:    pids(s),
	}
	var err error
	l.IO, err = a.ioLimits(s.IO)
	return l, err
}

func cpuLimit(cpus float64) *cgroup.CPU {
	return &cgroup.CPU{Quota: time.Duration(cpus * float64(cpuPeriod)), Period: cpuPeriod}
}

// initThreads is what the VM's own init needs beside the processes that were
// asked for, so that a fork bomb in the VM cannot starve it.
const initThreads = 16

func pids(s Spec) *int64 { n := s.PIDs + initThreads; return &n }

// shrinkMemory prepares a slice for a lower memory.max. The kernel would take
// a limit below use and kill; instead memory is reclaimed first, and a limit
// that still does not hold is refused.
func shrinkMemory(ctx context.Context, s *cgroup.Slice, target int64) error {
	use, err := memoryInUse(s)
	if err != nil || use <= target {
		return err
	}
	if err := s.Reclaim(ctx, use-target+4*mib); err != nil && !errors.Is(err, cgroup.ErrReclaim) {
		return err
	}
	if use, err = memoryInUse(s); err != nil || use <= target {
		return err
	}
	return &fault.Error{Kind: fault.ErrConflict, Code: "memory_in_use",
		Detail: fmt.Sprintf("memory_bytes: %d is below what is in use, %d bytes after reclaim", target, use),
		Hint:   "end cloudlets of the VM first, or ask for more",
		Fields: []fault.Field{{Pointer: "/memory_bytes", Detail: "below what is in use", Min: use}}}
}

func memoryInUse(s *cgroup.Slice) (int64, error) {
	r, err := s.OpenReader()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return r.MemoryCurrent()
}

// readLimits remembers what the kernel has.
func (a *Agent) readLimits(v *vm) error {
	k, err := v.slice.Limits()
	if err != nil {
		return err
	}
	bps, err := a.bandwidth(v)
	if err != nil {
		return err
	}
	bytes, used, err := a.storageLimit(v)
	if err != nil {
		return err
	}
	a.held.Lock()
	defer a.held.Unlock()
	v.limits = limitsFrom(k)
	v.limits.BandwidthBPS, v.limits.StorageBytes, v.limits.GPUs = bps, bytes, new(len(v.GPUs))
	v.usage.StorageBytes = used
	return nil
}

package vm

import (
	"context"
	"errors"
	"os"

	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/cgroup"

	"golang.org/x/sys/unix"
)

// Running is what a VM has that runs: a connection to its init, and a meter.
type Running struct {
	Guest *guest.Guest
	Probe *meter.Probe
}

// Close lets go of both. The VM runs on.
func (r Running) Close() error {
	r.Probe.Close()
	return r.Guest.Close()
}

// Furnish makes a VM's directories and its root file system. It may find them there.
func (l *Lease) Furnish(ctx context.Context) error {
	if err := l.makeDirs(); err != nil {
		return err
	}
	return l.unpack(ctx)
}

// Realise makes the kernel have what the record says of a VM that is furnished: slice,
// limits, init, network. The caller passes what it returns to Adopt, or closes it.
func (l *Lease) Realise(ctx context.Context) (Running, error) {
	if err := l.prepare(ctx); err != nil {
		return Running{}, err
	}
	g, err := l.reach(ctx)
	if errors.Is(err, guest.ErrImage) {
		return Running{}, badImage(err)
	}
	if err != nil {
		return Running{}, err
	}
	if err := errors.Join(l.Connect(ctx, g.PID()), l.ReadLimits()); err != nil {
		return Running{}, errors.Join(err, g.Close())
	}
	p, err := l.p.cfg.Meter.VM(l.ID, l.slice)
	if err != nil {
		return Running{}, errors.Join(err, g.Close())
	}
	return Running{g, p}, nil
}

// Adopt keeps what a VM has that runs: from now on it can be reached.
func (l *Lease) Adopt(r Running) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guest, l.probe = r.Guest, r.Probe
}

// Lost lets go of an init that is gone. It reports whether that was the VM's: another may
// have taken its place, or the VM has been erased.
func (l *Lease) Lost(g *guest.Guest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.guest != g {
		return false
	}
	l.guest = nil
	return true
}

// prepare makes what an init is born into.
func (l *Lease) prepare(ctx context.Context) error {
	if err := l.checkGPUs(); err != nil {
		return err
	}
	if err := l.slice.Create(); err != nil {
		return err
	}
	if err := l.slice.Chown(l.UIDBase(), l.UIDBase()); err != nil {
		return err
	}
	if err := l.writeLimits(ctx); err != nil {
		return err
	}
	return l.applyDevices()
}

// reach connects to the VM's init, or starts one after clearing what an init
// that is gone has left in the slice.
func (l *Lease) reach(ctx context.Context) (*guest.Guest, error) {
	cfg := l.guestConfig()
	g, err := guest.Connect(ctx, cfg)
	if err == nil || !errors.Is(err, guest.ErrGone) {
		return g, err
	}
	if err := l.slice.Kill(ctx); err != nil {
		return nil, err
	}
	err = l.lendStorage(func() error {
		g, err = guest.Start(ctx, cfg)
		return err
	})
	if err != nil && g != nil {
		err, g = errors.Join(err, g.Close()), nil
	}
	return g, err
}

// InitIsGone reports that no init of the VM lives.
func (v *VM) InitIsGone(ctx context.Context) bool {
	g, err := guest.Connect(ctx, v.guestConfig())
	if err != nil {
		return errors.Is(err, guest.ErrGone)
	}
	_ = g.Close()
	return false
}

func (v *VM) guestConfig() guest.Config {
	image := v.Image
	if _, err := os.Lstat(v.unpackedDir()); err == nil { // the archive may be gone by now
		image = v.unpackedDir()
	}
	v.mu.Lock()
	gpus := v.gpus
	v.mu.Unlock()

	return guest.Config{
		ID:       v.ID,
		Hostname: v.Name,
		UIDBase:  uint32(v.UIDBase()),
		Slice:    v.slice,
		RunDir:   v.RunDir(),
		DataDir:  v.DataDir(),
		UpperDir: v.upperDir(),
		Image:    image,
		InitPath: v.p.cfg.InitPath,
		Binaries: v.p.cfg.Binaries,
		Resolv:   v.resolvConf(),
		Devices:  guestDevices(gpus),
		Files:    guestFiles(gpus),
	}
}

// unpack makes the root file system of a VM whose image is an archive, unless it
// is there.
func (l *Lease) unpack(ctx context.Context) error {
	if !guest.IsArchive(l.Image) {
		return nil
	}
	err := guest.Unpack(ctx, l.Image, l.unpackedDir(), l.record().Spec.StorageBytes)
	switch {
	case err == nil:
		return nil
	case (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && isFull(l.p.cfg.StateDir):
		return err
	}
	return badImage(err)
}

// isFull reports whether a file system has no room; that a quota is used up is something else.
func isFull(dir string) bool {
	var st unix.Statfs_t
	const room = 1 << 20
	return unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < room
}

func badImage(err error) error {
	var f fault.List
	f.Add("/image", nil, nil, "cannot be used: %v", err)
	return f.Err("invalid_image")
}

// Erase removes everything the VM has in the kernel and on disk. It may be repeated.
func (l *Lease) Erase(ctx context.Context) error {
	l.mu.Lock()
	g, p := l.guest, l.probe
	l.guest, l.probe = nil, nil
	l.mu.Unlock()
	p.Close()

	if l.slice.Exists() {
		if err := cgroup.IgnoreGone(l.slice.Kill(ctx)); err != nil {
			return err
		}
	}
	if g != nil { // after the kill: its Run reaps the init only when it is dead
		_ = g.Close()
	}
	if err := l.slice.Remove(ctx); err != nil {
		return err
	}
	if err := l.p.network.Detach(l.ID); err != nil {
		return err
	}
	if err := guest.Remove(l.RunDir()); err != nil {
		return err
	}
	l.unlimitStorage()
	if err := errors.Join(os.RemoveAll(l.RunDir()), guest.RemoveTree(l.stateDir())); err != nil {
		return err
	}
	l.releaseStorage(ctx)
	return nil
}

// applyDevices lets the VM use what is in its /dev and nothing else. Without
// device filters in the kernel it is enough that it cannot make device nodes.
func (l *Lease) applyDevices() error {
	l.mu.Lock()
	gpus := l.gpus
	l.mu.Unlock()
	err := l.slice.SetDevices(append(cgroup.MinimalDevices(), deviceRules(gpus)...))
	if errors.Is(err, cgroup.ErrUnsupported) {
		l.p.log.Warn("filter devices", "vm", l.Name, "err", err)
		return nil
	}
	return err
}

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/agent/storage"
	"cloudflash/cgroup"
)

// StorageNone as Config.Storage leaves storage_bytes unenforced.
const StorageNone = "none"

// openStorage finds or makes the file system of the VMs. Without one no VM can be
// created, and those there are stay as they are.
func (p *Platform) openStorage(ctx context.Context) {
	if p.cfg.Storage == StorageNone {
		pool := filepath.Join(p.cfg.StateDir, storage.PoolFile)
		if _, err := os.Lstat(pool); err == nil {
			err = fmt.Errorf("%s exists: the VMs are in the pool, which --storage none would leave out; "+
				"remove it once they are deleted", pool)
			p.log.Error("no storage for VMs", "err", err)
			p.mu.Lock()
			p.diskErr = err
			p.mu.Unlock()
		}
		return
	}

	p.log.Info("opening the storage of VMs; making it takes a while the first time")
	d, err := storage.Open(ctx, storage.Config{
		StateDir:   p.cfg.StateDir,
		Backend:    p.cfg.Storage,
		Overcommit: p.cfg.Overcommit,
	})
	if err != nil {
		p.log.Error("no storage for VMs", "err", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disk, p.diskErr = d, err
}

// Storage is the file system of the VMs: nil where storage is not enforced, or where err
// says that there is none.
func (p *Platform) Storage() (*storage.Storage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.disk, p.diskErr
}

func (p *Platform) storage() *storage.Storage {
	disk, _ := p.Storage()
	return disk
}

// storageRefusal makes what a person can act on of an error.
func storageRefusal(err error) error {
	var below *storage.BelowUseError
	var room *storage.RoomError
	switch {
	case errors.As(err, &below):
		return &fault.Error{
			Kind:   fault.ErrConflict,
			Code:   "storage_in_use",
			Detail: "storage_bytes: " + below.Error(),
			Hint:   "delete files in the VM first, or ask for more",
			Fields: []fault.Field{{Pointer: "/storage_bytes", Detail: "below what is in use", Min: below.UsedBytes}},
		}
	case errors.As(err, &room):
		return &fault.Error{
			Kind:   fault.ErrCapacity,
			Code:   "insufficient_storage",
			Detail: "storage_bytes: " + room.Error(),
			Hint:   "ask for less, or free space on the disk of the state directory",
			Fields: []fault.Field{{Pointer: "/storage_bytes", Detail: room.Error(), Max: room.Have}},
		}
	case errors.Is(err, storage.ErrUnsupported):
		return &fault.Error{
			Kind:   fault.ErrInvalid,
			Code:   "storage_unsupported",
			Detail: "storage_bytes cannot be enforced here: " + err.Error(),
			Hint:   "or start the agent with --storage none, which leaves it unenforced",
			Fields: []fault.Field{{Pointer: "/storage_bytes", Detail: err.Error()}},
		}
	}
	return err
}

// makeDirs makes the VM's directory: data belongs to the VM's root, logs to the
// agent, and nobody in the VM can name either. All of it counts against its
// storage.
func (l *Lease) makeDirs() error {
	disk, err := l.p.Storage()
	if err != nil {
		return storageRefusal(err)
	}
	if disk != nil {
		err := disk.Assign(l.ID, storage.Project(l.Slot), l.record().Size().StorageBytes)
		if errors.Is(err, storage.ErrBelowUse) { // it can only shrink from here
			l.p.log.Warn("VM holds more than its storage", "vm", l.Name, "err", err)
		} else if err != nil {
			return storageRefusal(err)
		}
	}

	for _, d := range []string{l.stateDir(), l.p.LogDir(l.ID), l.DataDir(), l.upperDir(), l.RunDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	for _, d := range []string{l.DataDir(), l.upperDir()} {
		if err := os.Lchown(d, l.UIDBase(), l.UIDBase()); err != nil {
			return err
		}
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// CheckStorage refuses a limit below what is in use, before it becomes the intent.
func (v *VM) CheckStorage(bytes int64) error {
	disk := v.p.storage()
	if disk == nil || bytes >= v.record().Size().StorageBytes {
		return nil
	}
	project := storage.Project(v.Slot)
	u, err := disk.Usage(project)
	if err != nil || u.Bytes <= bytes {
		return err
	}
	return storageRefusal(&storage.BelowUseError{
		Project:    project,
		Limit:      bytes,
		UsedBytes:  u.Bytes,
		UsedInodes: u.Inodes,
	})
}

func (l *Lease) applyStorage(bytes int64) error {
	disk := l.p.storage()
	if disk == nil {
		return nil
	}
	return storageRefusal(disk.SetLimit(storage.Project(l.Slot), bytes))
}

// lendStorage starts an init in a VM that may have used up its storage. To mount an overlay
// the kernel makes a few files: where there is no room for the first it mounts read-only, and
// where there is none for the next, not at all (ovl_make_workdir in fs/overlayfs/super.c).
// Nothing else runs in the VM meanwhile.
func (l *Lease) lendStorage(start func() error) error {
	disk := l.p.storage()
	if disk == nil {
		return start()
	}
	return disk.Lend(storage.Project(l.Slot), l.record().Size().StorageBytes, start)
}

// storageLimit reads the limit and the use that the kernel has; nil where it is not
// enforced.
func (l *Lease) storageLimit() (limit *int64, used int64, err error) {
	disk := l.p.storage()
	if disk == nil {
		return nil, 0, nil
	}
	u, err := disk.Usage(storage.Project(l.Slot))
	if err != nil {
		return nil, 0, err
	}
	if u.LimitBytes > 0 {
		limit = &u.LimitBytes
	}
	return limit, u.Bytes, nil
}

// unlimitStorage lifts the limit of a VM in which nothing runs any more, so that it can be
// erased: XFS moves no directory where a quota is used up, and that is how deep trees are
// removed.
func (l *Lease) unlimitStorage() {
	disk := l.p.storage()
	if disk == nil {
		return
	}
	if err := disk.Unlimit(storage.Project(l.Slot)); err != nil {
		l.p.log.Warn("lift storage limit", "vm", l.Name, "err", err)
	}
}

// releaseStorage gives back what an erased VM had. An id that files still count
// for is not used again by this agent.
func (l *Lease) releaseStorage(ctx context.Context) {
	disk := l.p.storage()
	if disk == nil {
		return
	}
	if err := disk.Release(ctx, storage.Project(l.Slot)); err != nil {
		l.p.log.Warn("release storage", "vm", l.Name, "err", err)
		if errors.Is(err, storage.ErrInUse) {
			l.p.mu.Lock()
			l.p.worn[l.Slot] = true
			l.p.mu.Unlock()
		}
	}
	l.p.wantTrim()
}

// sweepStorage clears the limits of slots that no VM has.
func (p *Platform) sweepStorage(ctx context.Context) error {
	disk := p.storage()
	if disk == nil {
		return nil
	}
	slots := map[uint32]int{}
	for slot := range storage.Slots {
		slots[storage.Project(slot)] = slot
	}
	taken := map[uint32]bool{}
	for _, v := range p.cfg.VMs() {
		taken[storage.Project(v.Slot)] = true
	}

	busy, err := disk.Sweep(ctx, func(project uint32) bool { return taken[project] })
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, project := range busy {
		if slot, ok := slots[project]; ok { // else it is the one of the check at start
			p.worn[slot] = true
		}
	}
	p.wantTrim() // what a killed agent had not got to
	return err
}

func (p *Platform) wantTrim() {
	select {
	case p.trim <- struct{}{}:
	default:
	}
}

// runTrim gives the blocks of deleted files back to the disk below the pool.
func (p *Platform) runTrim(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.trim:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.cfg.TrimAfter):
		}

		disk := p.storage()
		if disk == nil {
			continue
		}
		if err := disk.Trim(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("trim storage", "err", err)
		}
	}
}

// ioLimits are those of a spec, on the device that the VM's files are on.
func (p *Platform) ioLimits(io state.IO) ([]cgroup.IODevice, error) {
	dev, err := p.ioDevice()
	if err != nil {
		if io != (state.IO{}) {
			return nil, &fault.Error{
				Kind:   fault.ErrInvalid,
				Code:   "io_unsupported",
				Detail: "io limits cannot be enforced here: " + err.Error(),
				Hint:   "put the state directory on a block device",
				Fields: []fault.Field{{Pointer: "/io", Detail: err.Error()}},
			}
		}
		return nil, nil
	}

	return []cgroup.IODevice{{
		Major:     dev.Major,
		Minor:     dev.Minor,
		ReadBPS:   io.ReadBPS,
		WriteBPS:  io.WriteBPS,
		ReadIOPS:  io.ReadIOPS,
		WriteIOPS: io.WriteIOPS,
	}}, nil
}

func (p *Platform) ioDevice() (storage.Device, error) {
	if disk := p.storage(); disk != nil {
		return disk.Device()
	}
	return storage.DeviceOf(filepath.Join(p.cfg.StateDir, "vms"))
}

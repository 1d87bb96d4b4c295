package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/storage"
	"cloudflash/cgroup"
)

// StorageNone as Config.Storage leaves storage_bytes unenforced.
const StorageNone = "none"

// openStorage finds or makes the file system of the VMs. Without one no VM can be
// created, and those there are stay as they are.
func (a *Agent) openStorage(ctx context.Context) {
	if a.cfg.Storage == StorageNone {
		pool := filepath.Join(a.cfg.StateDir, storage.PoolFile)
		if _, err := os.Lstat(pool); err == nil {
			a.diskErr = fmt.Errorf("%s exists: the VMs are in the pool, which --storage none would leave out; remove it once they are deleted", pool)
			a.log.Error("no storage for VMs", "err", a.diskErr)
		}
		return
	}
	a.log.Info("opening the storage of VMs; making it takes a while the first time")
	d, err := storage.Open(ctx, storage.Config{StateDir: a.cfg.StateDir, Backend: a.cfg.Storage, Overcommit: a.cfg.Overcommit.Storage})
	if err != nil {
		a.log.Error("no storage for VMs", "err", err)
	}
	a.held.Lock()
	defer a.held.Unlock()
	a.disk, a.diskErr = d, err
}

// storageRefusal makes what a person can act on of an error.
func storageRefusal(err error) error {
	var below *storage.BelowUseError
	var room *storage.RoomError
	switch {
	case errors.As(err, &below):
		return &fault.Error{Kind: fault.ErrConflict, Code: "storage_in_use",
			Detail: "storage_bytes: " + below.Error(), Hint: "delete files in the VM first, or ask for more",
			Fields: []fault.Field{{Pointer: "/storage_bytes", Detail: "below what is in use", Min: below.UsedBytes}}}
	case errors.As(err, &room):
		return &fault.Error{Kind: fault.ErrCapacity, Code: "insufficient_storage",
			Detail: "storage_bytes: " + room.Error(), Hint: "ask for less, or free space on the disk of the state directory",
			Fields: []fault.Field{{Pointer: "/storage_bytes", Detail: room.Error(), Max: room.Have}}}
	case errors.Is(err, storage.ErrUnsupported):
		return &fault.Error{Kind: fault.ErrInvalid, Code: "storage_unsupported", Detail: "storage_bytes cannot be enforced here: " + err.Error(),
			Hint: "or start the agent with --storage none, which leaves it unenforced", Fields: []fault.Field{{Pointer: "/storage_bytes", Detail: err.Error()}}}
	}
	return err
}

// makeDirs makes the VM's directory: data belongs to the VM's root, logs to the
// agent, and nobody in the VM can name either. All of it counts against its
// storage.
func (a *Agent) makeDirs(v *vm) error {
	if a.diskErr != nil {
		return storageRefusal(a.diskErr)
	}
	if a.disk != nil {
		err := a.disk.Assign(v.ID, storage.Project(v.Slot), a.record(v).Size().StorageBytes)
		if errors.Is(err, storage.ErrBelowUse) { // it can only shrink from here
			a.log.Warn("VM holds more than its storage", "vm", v.Name, "err", err)
		} else if err != nil {
			return storageRefusal(err)
		}
	}
	dir := a.stateDir(v.ID)
	for _, d := range []string{dir, filepath.Join(dir, "logs"), a.dataDir(v.ID), a.upperDir(v.ID), a.runDir(v.ID)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	for _, d := range []string{a.dataDir(v.ID), a.upperDir(v.ID)} {
		if err := os.Lchown(d, int(v.uidBase()), int(v.uidBase())); err != nil {
			return err
		}
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) dataDir(id string) string { return filepath.Join(a.stateDir(id), "data") }

// upperDir holds what a VM writes to its image.
func (a *Agent) upperDir(id string) string { return filepath.Join(a.stateDir(id), "upper") }

// checkStorage refuses a limit below what is in use, before it becomes the intent.
func (a *Agent) checkStorage(v *vm, bytes int64) error {
	if a.disk == nil || bytes >= a.record(v).Size().StorageBytes {
		return nil
	}
	u, err := a.disk.Usage(storage.Project(v.Slot))
	if err != nil || u.Bytes <= bytes {
		return err
	}
	return storageRefusal(&storage.BelowUseError{Project: storage.Project(v.Slot), Limit: bytes, UsedBytes: u.Bytes, UsedInodes: u.Inodes})
}

func (a *Agent) applyStorage(v *vm, bytes int64) error {
	if a.disk == nil {
		return nil
	}
	return storageRefusal(a.disk.SetLimit(storage.Project(v.Slot), bytes))
}

// storageLimit reads the limit and the use that the kernel has; nil where it is not
// enforced.
func (a *Agent) storageLimit(v *vm) (limit *int64, used int64, err error) {
	if a.disk == nil {
		return nil, 0, nil
	}
	u, err := a.disk.Usage(storage.Project(v.Slot))
	if err != nil {
		return nil, 0, err
	}
	if u.LimitBytes > 0 {
		limit = &u.LimitBytes
	}
	return limit, u.Bytes, nil
}

// releaseStorage gives back what an erased VM had. An id that files still count
// for is not used again by this agent.
func (a *Agent) releaseStorage(ctx context.Context, v *vm) {
	if a.disk == nil {
		return
	}
	if err := a.disk.Release(ctx, storage.Project(v.Slot)); err != nil {
		a.log.Warn("release storage", "vm", v.Name, "err", err)
		if errors.Is(err, storage.ErrInUse) {
			a.held.Lock()
			a.worn[v.Slot] = true
			a.held.Unlock()
		}
	}
	a.wantTrim()
}

// sweepStorage clears the limits of slots that no VM has.
func (a *Agent) sweepStorage(ctx context.Context) error {
	if a.disk == nil {
		return nil
	}
	slots := map[uint32]int{}
	for slot := range storage.Slots {
		slots[storage.Project(slot)] = slot
	}
	taken := map[uint32]bool{}
	for _, v := range a.vmList() {
		taken[storage.Project(v.Slot)] = true
	}
	busy, err := a.disk.Sweep(ctx, func(project uint32) bool { return taken[project] })
	a.held.Lock()
	defer a.held.Unlock()
	for _, project := range busy {
		if slot, ok := slots[project]; ok { // else it is the one of the check at start
			a.worn[slot] = true
		}
	}
	a.wantTrim() // what a killed agent had not got to
	return err
}

func (a *Agent) wantTrim() {
	select {
	case a.trim <- struct{}{}:
	default:
	}
}

// runTrim gives the blocks of deleted files back to the disk below the pool.
func (a *Agent) runTrim(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.trim:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.cfg.TrimAfter):
		}
		if a.disk == nil {
			continue
		}
		if err := a.disk.Trim(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("trim storage", "err", err)
		}
	}
}

// ioLimits are those of a spec, on the device that the VM's files are on.
func (a *Agent) ioLimits(io IO) ([]cgroup.IODevice, error) {
	dev, err := a.ioDevice()
	if err != nil {
		if io != (IO{}) {
			return nil, &fault.Error{Kind: fault.ErrInvalid, Code: "io_unsupported", Detail: "io limits cannot be enforced here: " + err.Error(),
				Hint: "put the state directory on a block device", Fields: []fault.Field{{Pointer: "/io", Detail: err.Error()}}}
		}
		return nil, nil
	}
	return []cgroup.IODevice{{Major: dev.Major, Minor: dev.Minor, ReadBPS: io.ReadBPS, WriteBPS: io.WriteBPS, ReadIOPS: io.ReadIOPS, WriteIOPS: io.WriteIOPS}}, nil
}

func (a *Agent) ioDevice() (storage.Device, error) {
	if a.disk != nil {
		return a.disk.Device()
	}
	return storage.DeviceOf(filepath.Join(a.cfg.StateDir, "vms"))
}

package storage

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// check runs into a quota: mount options and feature flags say too little, ext4
// for one counts projects without holding them to a limit. What is missing is
// ErrUnsupported.
func (q quotas) check() error {
	unsupported := func(err error) error {
		return &UnsupportedError{Feature: "project quota on " + q.dir.Name(),
			Needs: "XFS, or ext4 made with mke2fs -O quota,project, mounted with prjquota", Err: err}
	}
	// A file without a name: a crash leaves nothing.
	fd, err := unix.Openat(int(q.dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return unsupported(err)
	}
	if err != nil {
		return fmt.Errorf("check quota on %s: %w", q.dir.Name(), &os.PathError{Op: "open", Path: q.dir.Name(), Err: err})
	}
	f := os.NewFile(uintptr(fd), q.dir.Name())
	defer f.Close()
	if err := tag(fd, probeID, false); err != nil {
		return unsupported(err)
	}
	const limit = 64 << 10
	if err := q.set(probeID, limit, 0); err != nil {
		return unsupported(err)
	}
	defer func() { _ = q.set(probeID, 0, 0) }()
	err = unprivileged(func() error { return unix.Fallocate(fd, 0, 0, 4*limit) })
	switch {
	case errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOSPC):
		return nil
	case err == nil:
		return unsupported(errors.New("limits are counted but not enforced"))
	}
	return fmt.Errorf("check quota on %s: %w", q.dir.Name(), err)
}

// unprivileged calls f without CAP_SYS_RESOURCE, which ext4 lets pass any limit.
func unprivileged(f func() error) error {
	runtime.LockOSThread() // capabilities are a thread's
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	less := have
	less[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(&header, &less[0]); err != nil {
		return fmt.Errorf("drop CAP_SYS_RESOURCE: %w", err)
	}
	err := f()
	if back := unix.Capset(&header, &have[0]); back != nil {
		runtime.LockOSThread() // never unlocked: this thread ends with its goroutine
		return errors.Join(err, fmt.Errorf("restore capabilities: %w", back))
	}
	return err
}

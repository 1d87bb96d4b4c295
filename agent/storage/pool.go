package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// pool is the file that holds the VMs' file system, and the disk it is on.
type pool struct {
	dir        string // where it is mounted
	file       string
	overcommit float64
	reserve    int64
}

func newPool(cfg Config) (*pool, error) {
	p := &pool{dir: filepath.Join(cfg.StateDir, "vms"), file: filepath.Join(cfg.StateDir, PoolFile),
		overcommit: cfg.Overcommit, reserve: cfg.Reserve}
	if p.overcommit == 0 {
		p.overcommit = 1
	}
	if p.overcommit < 1 || p.reserve < 0 {
		return nil, fmt.Errorf("overcommit %v and reserve %d: at least 1 and 0", cfg.Overcommit, cfg.Reserve)
	}
	if p.reserve == 0 {
		total, _, err := p.disk()
		if err != nil {
			return nil, err
		}
		p.reserve = min(total/20, 8*gib)
	}
	return p, nil
}

func (p *pool) exists() (bool, error) {
	_, err := os.Lstat(p.file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// open makes sure that the pool exists and is mounted.
func (p *pool) open(ctx context.Context) error {
	mounted, err := p.mounted()
	if mounted || err != nil {
		return err
	}
	if err := p.empty(); err != nil {
		return err
	}
	exists, err := p.exists()
	if err != nil {
		return err
	}
	if !exists {
		if err := p.make(ctx); err != nil {
			return fmt.Errorf("make %s: %w", p.file, err)
		}
	}
	dev, err := p.attach()
	if err != nil {
		return err
	}
	defer dev.Close()
	return p.mount(dev.Name())
}

// mounted finds the pool where it belongs. Something else there is an error.
func (p *pool) mounted() (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, p.dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st); err != nil {
		return false, &os.PathError{Op: "statx", Path: p.dir, Err: err}
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 { // Linux 5.8
		return false, nil
	}
	if st.Dev_major == loopMajor {
		info, err := loopInfo(st.Dev_minor)
		if err != nil {
			return false, err
		}
		if ok, err := backs(info, p.file); ok || err != nil && !errors.Is(err, os.ErrNotExist) {
			return ok, err
		}
	}
	return false, fmt.Errorf("%s is a mount of device %d:%d, not of %s: unmount it", p.dir, st.Dev_major, st.Dev_minor, p.file)
}

// empty refuses to mount over directories of VMs from before there was a pool.
// They cannot be moved for their owner: their processes may be running in them.
func (p *pool) empty() error {
	entries, err := os.ReadDir(p.dir)
	if err != nil || len(entries) == 0 {
		return err
	}
	var names []string
	for _, e := range entries[:min(len(entries), 3)] {
		names = append(names, e.Name())
	}
	return fmt.Errorf("%s holds %d entries that the pool would hide (%s…): delete those VMs with the version that made them, or move the directories away",
		p.dir, len(entries), strings.Join(names, ", "))
}

func (p *pool) attach() (*os.File, error) {
	file, err := os.OpenFile(p.file, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the loop device has its own
	return attach(file)
}

func (p *pool) mount(dev string) error {
	err := unix.Mount(dev, p.dir, "xfs", unix.MS_NOSUID|unix.MS_NODEV, "prjquota")
	switch {
	case errors.Is(err, unix.ENODEV):
		return &UnsupportedError{Feature: "a storage pool", Needs: "the kernel module xfs", Err: err}
	case errors.Is(err, unix.EINVAL) && !xfsQuota():
		return &UnsupportedError{Feature: "a storage pool", Needs: "a kernel with CONFIG_XFS_QUOTA", Err: err}
	case err != nil:
		return fmt.Errorf("mount %s on %s: %w: the kernel log (dmesg) has the reason; xfs_repair may help; the file is left as it is", p.file, p.dir, err)
	}
	return os.Chmod(p.dir, 0o711) // VMs pass through it and list nothing
}

// xfsQuota reports whether XFS, once loaded, was built with quota.
func xfsQuota() bool {
	_, err := os.Stat("/proc/fs/xfs/xqmstat")
	return err == nil
}

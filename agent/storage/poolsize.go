package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30

	growStep = 16 * mib // XFS cannot have a last allocation group of less
	minGroup = 256 * mib
	maxGroup = 256 * gib // XFS: 1 TiB
)

// groupSize is the size of the pool's allocation groups: the pool begins with
// two, the least that XFS takes, and has some 64 when it fills its disk.
func groupSize(disk int64) int64 {
	size := minGroup
	for size*2 <= disk/64 && size < maxGroup {
		size *= 2
	}
	return size
}

// needed is how large the file system must be so that promised bytes fit: 64 MiB
// of log, what XFS holds back for itself (at most 32 MiB, and about 1 % for
// trees that may grow), and slack.
func (p *pool) needed(promised int64) int64 {
	n := int64(float64(promised) / p.overcommit)
	return n + n/50 + 128*mib
}

// fits is the inverse: what can be promised, without overcommit, in size bytes.
func fits(size int64) int64 { return max(size-128*mib, 0) / 51 * 50 }

// cost is what a project with a limit may take of the pool: empty files are not
// counted as blocks, but have inodes of 512 bytes.
func cost(limit int64) int64 { return limit + inodeLimit(limit)*512 }

// disk is the size and the free bytes of the file system that the pool file is
// on. What only root may use is not free.
func (p *pool) disk() (total, free int64, err error) {
	var st unix.Statfs_t
	dir := filepath.Dir(p.file)
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Blocks) * st.Frsize, int64(st.Bavail) * st.Frsize, nil
}

// backing is how large the pool may be so that the disk can hold all of it.
func (p *pool) backing() (int64, error) {
	_, free, err := p.disk()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(p.file, &st); err != nil && !errors.Is(err, unix.ENOENT) {
		return 0, &os.PathError{Op: "lstat", Path: p.file, Err: err}
	}
	return max(st.Blocks*512+free-p.reserve, 0) / growStep * growStep, nil
}

// make makes the pool file. It has its name when it is complete.
func (p *pool) make(ctx context.Context) error {
	mkfs, err := findMkfs()
	if err != nil {
		return err
	}
	total, _, err := p.disk()
	if err != nil {
		return err
	}
	room, err := p.backing()
	if err != nil {
		return err
	}
	group := groupSize(total)
	for group > minGroup && 2*group > room {
		group /= 2
	}
	if 2*group > room {
		return &RoomError{What: "make a pool", Need: 2 * group, Have: room}
	}
	part := p.file + ".new"
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := format(ctx, mkfs, part, 2*group, group); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, p.file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(p.file))
}

func format(ctx context.Context, mkfs, file string, size, group int64) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	// Without the reverse map, which newer versions turn on: it costs space and
	// time, and only serves online repair.
	cmd := exec.CommandContext(ctx, mkfs, "-q", "-f", "-L", "cloudflash", "-s", "size="+strconv.Itoa(sectorSize),
		"-d", "agsize="+strconv.FormatInt(group, 10), "-m", "rmapbt=0", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", mkfs, err, trimmed(out))
	}
	return f.Sync()
}

// findMkfs looks beyond PATH: that of a service may have no sbin.
func findMkfs() (string, error) {
	for _, name := range []string{"mkfs.xfs", "/usr/sbin/mkfs.xfs", "/sbin/mkfs.xfs"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &UnsupportedError{Feature: "a storage pool", Needs: "mkfs.xfs: install the package xfsprogs"}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// hold grows the pool, mounted on root, until promised bytes fit.
func (p *pool) hold(root *os.File, promised int64) error {
	room, err := p.backing()
	if err != nil {
		return err
	}
	need := p.needed(promised)
	if need > room {
		return &RoomError{What: fmt.Sprintf("promise %d bytes in all", promised), Need: need, Have: room}
	}
	g, err := xfsGeometry(root)
	if err != nil {
		return err
	}
	if need <= int64(g.DataBlocks)*int64(g.BlockSize) {
		return nil
	}
	group := int64(g.AGBlocks) * int64(g.BlockSize)
	size := min((need+group-1)/group*group, room)
	if err := os.Truncate(p.file, size); err != nil {
		return fmt.Errorf("grow the pool: %w", err)
	}
	return p.resume(root)
}

// resume makes device and file system as large as the file is.
func (p *pool) resume(root *os.File) error {
	var st unix.Stat_t
	if err := unix.Lstat(p.file, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: p.file, Err: err}
	}
	g, err := xfsGeometry(root)
	if err != nil {
		return err
	}
	grow := growData{NewBlocks: uint64(st.Size) / uint64(g.BlockSize), InodeMaxPct: g.InodeMaxPct}
	if grow.NewBlocks <= g.DataBlocks {
		return nil
	}
	dev, err := p.attach()
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := ioctl(int(dev.Fd()), unix.LOOP_SET_CAPACITY, nil); err != nil {
		return fmt.Errorf("grow %s: %w", dev.Name(), err)
	}
	if err := ioctl(int(root.Fd()), xfsIocGrow, unsafe.Pointer(&grow)); err != nil {
		return fmt.Errorf("grow the file system of %s to %d blocks: %w", p.file, grow.NewBlocks, err)
	}
	return nil
}

func xfsGeometry(root *os.File) (geometry, error) {
	var g geometry
	if err := ioctl(int(root.Fd()), xfsIocGeometry, unsafe.Pointer(&g)); err != nil {
		return g, fmt.Errorf("read geometry of %s: %w", root.Name(), err)
	}
	return g, nil
}

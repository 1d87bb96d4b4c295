package storage

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// allocated is what the pool file has of the disk, once everything is written.
func allocated(tb testing.TB, s *Storage) int64 {
	tb.Helper()
	if err := unix.Syncfs(int(s.dir.Fd())); err != nil {
		tb.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.pool.file, &st); err != nil {
		tb.Fatal(err)
	}
	return st.Blocks * 512
}

// settled waits until what is allocated does not change any more: since Linux 6.7 the
// discards of a trim may go on when it has returned. At most so much is enough.
func settled(tb testing.TB, s *Storage, most int64) int64 {
	tb.Helper()
	have, same := allocated(tb, s), 0
	for deadline := time.Now().Add(30 * time.Second); have > most && same < 5 && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		before := have
		have, same = allocated(tb, s), same+1
		if have != before {
			same = 0
		}
	}
	return have
}

func TestSystemPoolShrinksAfterDeletes(t *testing.T) {
	s := openPool(t, Config{})
	assign(t, s, "first", 0, 64*mib) // XFS makes its quota file and tables
	remove(t, s, "first", 0)
	if err := s.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	empty := settled(t, s, 0)
	var most int64
	for i := range 9 {
		mustFill(t, filepath.Join(assign(t, s, "vm", i, 64*mib), "f"), 4*mib)
		most = max(most, allocated(t, s))
		remove(t, s, "vm", i)
		if i%3 == 2 {
			if err := s.Trim(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := settled(t, s, empty+mib)
	t.Logf("the pool file has %d bytes empty, %d at most, %d after 9 VMs", empty, most, end)
	if end > empty+mib { // measured: 0 to 64 KiB of tables more
		t.Errorf("the pool file has %d bytes more than when it was empty", end-empty)
	}
	if most < empty+4*mib {
		t.Errorf("nothing was ever in it: %d", most)
	}
	if ids := projects(t, s); len(ids) != 0 {
		t.Errorf("projects %v are left", ids)
	}
}

// What was promised can be written, whatever the sizes.
func TestSystemPoolGrowsToWhatIsPromised(t *testing.T) {
	s := openPool(t, Config{})
	var sum int64
	for i, limit := range []int64{64 * mib, gib, 2 * gib, 5 * gib, 10 * gib} {
		assign(t, s, name(i), i, limit)
		sum += limit
		var st unix.Statfs_t
		if err := unix.Statfs(s.Dir(), &st); err != nil {
			t.Fatal(err)
		}
		if free := int64(st.Bavail) * st.Bsize; free < sum {
			t.Errorf("%d bytes are promised, %d are free", sum, free)
		}
		c, err := s.Capacity()
		if err != nil || c.Promised != sum || c.Free < sum || c.Total < c.Free {
			t.Errorf("capacity %+v, %v", c, err)
		}
		t.Logf("promised %d MiB: file system has %d MiB, %d MiB free; capacity %+v", sum/mib, int64(st.Blocks)*st.Bsize/mib, int64(st.Bavail)*st.Bsize/mib, c)
	}
	before := usage(t, s, 0)
	var room *RoomError
	if err := s.SetLimit(Project(0), 100*gib); !errors.As(err, &room) || room.Need <= room.Have {
		t.Errorf("more than the disk has: %v", err)
	}
	if err := s.Assign("new", Project(100), 100*gib); !errors.Is(err, ErrNoRoom) {
		t.Errorf("more than the disk has: %v", err)
	}
	if after := usage(t, s, 0); after != before {
		t.Errorf("a refused limit has changed %+v to %+v", before, after)
	}
	if _, err := os.Lstat(filepath.Join(s.Dir(), "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused VM has a directory: %v", err)
	}
	for i := range 5 {
		remove(t, s, name(i), i)
	}
	assign(t, s, "again", 0, 20*gib)
}

func TestSystemOvercommitPromisesMore(t *testing.T) {
	s := openPool(t, Config{Overcommit: 4})
	for i := range 4 {
		assign(t, s, name(i), i, 20*gib)
	}
	if err := s.SetLimit(Project(5), 60*gib); !errors.Is(err, ErrNoRoom) {
		t.Errorf("140 GiB on a disk of 32: %v", err)
	}
}

// Every point at which the agent may be killed, and Open after it.
func TestSystemOpenAfterACrash(t *testing.T) {
	dir := stateDir(t)
	p, err := newPool(Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	reopen := func(stage string) *Storage {
		t.Helper()
		s, err := Open(t.Context(), Config{StateDir: dir}) // auto: the disk has no quota
		if err != nil {
			t.Fatalf("after %s: %v", stage, err)
		}
		if s.Backend() != Pool || strings.Count(mounts(t, dir), dir+"/vms xfs") != 1 {
			t.Errorf("after %s: backend %s, mounts %s", stage, s.Backend(), mounts(t, dir))
		}
		return s
	}
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	step(errors.Join(os.MkdirAll(p.dir, 0o711), os.WriteFile(p.file+".new", []byte("half a file system"), 0o600)))
	unmount(t, reopen("a kill in mkfs"))
	step(errors.Join(os.Remove(p.file), os.Remove(p.dir)))

	step(os.MkdirAll(p.dir, 0o711))
	step(p.make(t.Context()))
	unmount(t, reopen("a kill before attaching"))

	dev, err := p.attach()
	step(err)
	step(dev.Close()) // as the kernel does for who is killed
	file, err := os.Open(p.file)
	step(err)
	defer file.Close()
	if dev, err := findLoop(file); dev != nil || err != nil {
		t.Errorf("the loop device outlives its user: %v", err)
	}
	dev, err = p.attach() // held by somebody
	step(err)
	s := reopen("a kill between attaching and mounting")
	step(dev.Close())

	mustFill(t, filepath.Join(assign(t, s, "a", 0, 64*mib), "f"), mib)
	step(s.Close())
	s = reopen("a kill while running")
	if c, err := s.Capacity(); err != nil || c.Promised != 64*mib || usage(t, s, 0).Bytes < mib {
		t.Errorf("capacity %+v, %v; use %+v", c, err, usage(t, s, 0))
	}

	grown := func(stage string, size int64) {
		t.Helper()
		g, err := xfsGeometry(s.dir)
		if err != nil || int64(g.DataBlocks)*int64(g.BlockSize) != size {
			t.Errorf("after %s: %d blocks, %v, want %d bytes", stage, g.DataBlocks, err, size)
		}
	}
	step(s.Close())
	step(os.Truncate(p.file, 2*gib))
	s = reopen("a kill before growing the device")
	grown("a kill before growing the device", 2*gib)
	step(os.Truncate(p.file, 3*gib))
	dev, err = p.attach()
	step(err)
	step(ioctl(int(dev.Fd()), unix.LOOP_SET_CAPACITY, nil))
	step(errors.Join(dev.Close(), s.Close()))
	s = reopen("a kill before growing the file system")
	grown("a kill before growing the file system", 3*gib)

	// A VM holds the mount that was taken away from the agent.
	held, err := os.Open(filepath.Join(s.Dir(), "a", "f"))
	step(err)
	defer held.Close()
	step(errors.Join(s.Close(), unix.Unmount(p.dir, unix.MNT_DETACH)))
	s = reopen("a lazy unmount")
	a, err := os.Stat(filepath.Join(s.Dir(), "a", "f"))
	step(err)
	if b, err := held.Stat(); err != nil || !os.SameFile(a, b) {
		t.Errorf("another file system was mounted: %v", err)
	}
	held.Close()
	unmount(t, s)

	step(os.Mkdir(filepath.Join(p.dir, "stray"), 0o755))
	if _, err := Open(t.Context(), Config{StateDir: dir}); err == nil || !strings.Contains(err.Error(), "stray") {
		t.Errorf("a directory would be hidden: %v", err)
	}
	step(os.Remove(filepath.Join(p.dir, "stray")))
	unmount(t, reopen("a reboot"))
}

func TestSystemForeignMountIsRefused(t *testing.T) {
	dir := stateDir(t)
	vms := filepath.Join(dir, "vms")
	if err := errors.Join(os.Mkdir(vms, 0o711), unix.Mount("x", vms, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(vms, 0) }()
	for _, backend := range []string{Auto, Pool} {
		if _, err := Open(t.Context(), Config{StateDir: dir, Backend: backend}); err == nil || !strings.Contains(err.Error(), "unmount it") {
			t.Errorf("%s: %v", backend, err)
		}
	}
	if _, err := Open(t.Context(), Config{StateDir: dir, Backend: Native}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("native on tmpfs: %v", err)
	}
}

func TestSystemUnmountablePoolIsLeftAlone(t *testing.T) {
	dir := stateDir(t)
	file := filepath.Join(dir, "pool.xfs")
	garbage := bytes.Repeat([]byte("not XFS "), 1<<17)
	if err := os.WriteFile(file, garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{StateDir: dir})
	if err == nil || !strings.Contains(err.Error(), "xfs_repair") {
		t.Error(err)
	}
	if have, err := os.ReadFile(file); err != nil || !bytes.Equal(have, garbage) {
		t.Errorf("the file was changed: %v", err)
	}
	if m := mounts(t, dir); m != "" {
		t.Errorf("mounted: %s", m)
	}
}

func TestKernelQuotaThatIsNotInForceIsSeen(t *testing.T) {
	for name, disk := range map[string]struct {
		fsType, options string
		mkfs            []string
	}{
		"ext4 that counts only":  {"ext4", "", []string{"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "quota,project"}},
		"ext4 without projects":  {"ext4", "", []string{"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096"}},
		"xfs without quota":      {"xfs", "", []string{"mkfs.xfs", "-q", "-s", "size=4096"}},
		"xfs that counts only":   {"xfs", "pqnoenforce", []string{"mkfs.xfs", "-q", "-s", "size=4096"}},
		"xfs with users' quotas": {"xfs", "usrquota", []string{"mkfs.xfs", "-q", "-s", "size=4096"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := hostDisk(t, 2*gib, disk.fsType, disk.options, disk.mkfs...)
			if _, err := Open(t.Context(), Config{StateDir: dir, Backend: Native}); !errors.Is(err, ErrUnsupported) {
				t.Errorf("native: %v", err)
			}
			s, err := Open(t.Context(), Config{StateDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer unmount(t, s)
			if s.Backend() != Pool {
				t.Errorf("backend %s", s.Backend())
			}
			n, err := fill(t, filepath.Join(assign(t, s, "a", 0, 4*mib), "f"), 8*mib)
			if !full(err) {
				t.Error(err)
			}
			near(t, "written", n, 4*mib)
			if _, err := Open(t.Context(), Config{StateDir: dir, Backend: Native}); err == nil || !strings.Contains(err.Error(), "in the pool") {
				t.Errorf("native over a pool: %v", err)
			}
		})
	}
}

func TestSystemReadOnlyStateDirSaysSo(t *testing.T) {
	dir := hostDisk(t, 64*mib, "ext4", "", "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{StateDir: dir}); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
}

func TestSystemTooSmallADiskSaysSo(t *testing.T) {
	dir := hostDisk(t, 400*mib, "ext4", "", "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096")
	var room *RoomError
	if _, err := Open(t.Context(), Config{StateDir: dir}); !errors.As(err, &room) || room.Need != 2*minGroup || room.Have >= room.Need {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 { // vms, lost+found
		t.Errorf("%v is left, %v", entries, err)
	}
}

// Others fill the disk below the pool. What was synced stays, and when there is
// room again the file system is in order.
func TestSystemFullDiskBelowDoesNoHarm(t *testing.T) {
	dir := hostDisk(t, gib, "ext4", "", "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0")
	s := openPool(t, Config{StateDir: dir, Reserve: 16 * mib})
	vm := assign(t, s, "a", 0, 256*mib)
	mustFill(t, filepath.Join(vm, "before"), 2*mib)
	hog := filepath.Join(dir, "hog")
	takeAll(t, hog)
	if c, err := s.Capacity(); err != nil || c.Free > 64*mib {
		t.Errorf("capacity of a full disk: %+v, %v", c, err)
	}
	if err := s.SetLimit(Project(0), 512*mib); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a promise on a full disk: %v", err)
	}
	n, err := fill(t, filepath.Join(vm, "during"), 16*mib)
	t.Logf("%d bytes written: %v", n, err)
	if err == nil {
		t.Error("data was synced to a disk that is full")
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	mustFill(t, filepath.Join(vm, "after"), 2*mib)
	unmount(t, s)
	if out, err := exec.Command("xfs_repair", "-n", s.pool.file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	openPool(t, Config{StateDir: dir, Reserve: 16 * mib})
	for _, f := range []string{"before", "after"} {
		if info, err := os.Stat(filepath.Join(vm, f)); err != nil || info.Size() != 2*mib {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
}

// takeAll gives a file all that is free on its disk, down to the last block.
func takeAll(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end := int64(0)
	for size := gib; size >= blockSize; {
		switch err := unix.Fallocate(int(f.Fd()), 0, end, size); {
		case err == nil:
			end += size
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		case !errors.Is(err, unix.EINTR):
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// A copy of the file in use is what a power cut leaves.
func TestKernelLogIsReplayedAfterAPowerCut(t *testing.T) {
	dir, copied := stateDir(t), stateDir(t)
	s := openPool(t, Config{StateDir: dir})
	want := assign(t, s, "a", 3, 64*mib)
	mustFill(t, filepath.Join(want, "f"), 3*mib) // synced
	run(t, "cp", "--sparse=always", s.pool.file, filepath.Join(copied, "pool.xfs"))
	unmount(t, s)
	s = openPool(t, Config{StateDir: copied})
	if info, err := os.Stat(filepath.Join(s.Dir(), "a", "f")); err != nil || info.Size() != 3*mib {
		t.Errorf("%v, %v", info, err)
	}
	if u := usage(t, s, 3); u.LimitBytes != 64*mib || u.Bytes < 3*mib {
		t.Errorf("%+v", u)
	}
}

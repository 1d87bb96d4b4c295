package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// needVM keeps kernel tests off machines that are not for them: they mount, and
// fill disks.
func needVM(tb testing.TB) {
	tb.Helper()
	if os.Getenv("CLOUDFLASH_KERNEL_TESTS") != "1" {
		tb.Skip("needs CLOUDFLASH_KERNEL_TESTS=1: runs in the test VM")
	}
}

// stateDir is a directory on the test VM's disk, which is ext4 without quota.
func stateDir(tb testing.TB) string {
	tb.Helper()
	needVM(tb)
	dir, err := os.MkdirTemp("/var/lib", "storage-test-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// openPool opens a pool that is taken away, and checked to be, at the end.
func openPool(tb testing.TB, cfg Config) *Storage {
	tb.Helper()
	if cfg.StateDir == "" {
		cfg.StateDir = stateDir(tb)
	}
	cfg.Backend = Pool
	s, err := Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unmount(tb, s) })
	return s
}

func unmount(tb testing.TB, s *Storage) {
	tb.Helper()
	if err := s.Unmount(); err != nil && !errors.Is(err, fs.ErrClosed) {
		tb.Error(err)
	}
	if s.pool == nil {
		return
	}
	file, err := os.Open(s.pool.file)
	if err != nil {
		tb.Error(err)
		return
	}
	defer file.Close()
	if dev, err := findLoop(file); dev != nil || err != nil {
		tb.Errorf("the pool still has a loop device: %v", err)
	}
	if m := mounts(tb, s.pool.dir); m != "" {
		tb.Errorf("still mounted: %s", m)
	}
}

func mounts(tb testing.TB, dir string) string {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		tb.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, dir) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "; ")
}

func run(tb testing.TB, name string, args ...string) {
	tb.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s %v: %v: %s", name, args, err, trimmed(out))
	}
}

// hostDisk is a mounted file system of its own: what a user's disk would be.
func hostDisk(tb testing.TB, size int64, fsType, options string, mkfs ...string) string {
	tb.Helper()
	dir := stateDir(tb)
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	file, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	if err := errors.Join(file.Truncate(size), os.Mkdir(mnt, 0o755)); err != nil {
		tb.Fatal(err)
	}
	run(tb, mkfs[0], append(mkfs[1:], image)...)
	dev, err := attach(file)
	if err != nil {
		tb.Fatal(err)
	}
	defer dev.Close()
	if err := unix.Mount(dev.Name(), mnt, fsType, 0, options); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			tb.Error(err)
		}
	})
	return mnt
}

// backends runs a test on the pool and on both native file systems.
func backends(t *testing.T, test func(t *testing.T, s *Storage)) {
	t.Run("pool", func(t *testing.T) { test(t, openPool(t, Config{})) })
	native := func(options string, mkfs ...string) func(t *testing.T) {
		return func(t *testing.T) {
			s, err := Open(t.Context(), Config{StateDir: hostDisk(t, gib, t.Name()[strings.LastIndex(t.Name(), "/")+1:], options, mkfs...)})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Backend() != Native {
				t.Fatalf("backend %s where the disk has quotas", s.Backend())
			}
			test(t, s)
		}
	}
	t.Run("xfs", native("prjquota", "mkfs.xfs", "-q", "-s", "size=4096"))
	t.Run("ext4", native("prjquota", "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "quota,project"))
}

func assign(tb testing.TB, s *Storage, name string, slot int, limit int64) string {
	tb.Helper()
	if err := s.Assign(name, Project(slot), limit); err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(s.Dir(), name)
}

func usage(tb testing.TB, s *Storage, slot int) Usage {
	tb.Helper()
	u, err := s.Usage(Project(slot))
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// fill writes as the processes of a VM may, until it is stopped or has written
// size bytes.
func fill(tb testing.TB, path string, size int64) (written int64, err error) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	chunk := make([]byte, 64<<10)
	err = unprivileged(func() error {
		for written < size {
			n, err := f.Write(chunk[:min(int64(len(chunk)), size-written)])
			written += int64(n)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return written, errors.Join(err, f.Sync())
}

func full(err error) bool { return errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOSPC) }

func mustFill(tb testing.TB, path string, size int64) {
	tb.Helper()
	if n, err := fill(tb, path, size); err != nil || n != size {
		tb.Fatalf("%d bytes of %d written to %s: %v", n, size, path, err)
	}
}

// projects lists what has limits or use.
func projects(tb testing.TB, s *Storage) (ids []uint32) {
	tb.Helper()
	err := s.each(projectBase, probeID, func(id uint32, _ Usage) error { ids = append(ids, id); return nil })
	if err != nil {
		tb.Fatal(err)
	}
	return ids
}

func remove(tb testing.TB, s *Storage, name string, slot int) {
	tb.Helper()
	if err := os.RemoveAll(filepath.Join(s.Dir(), name)); err != nil {
		tb.Fatal(err)
	}
	if err := s.Release(tb.Context(), Project(slot)); err != nil {
		tb.Fatal(err)
	}
}

// near fails unless have is at most want and not more than 1 MiB less.
func near(tb testing.TB, what string, have, want int64) {
	tb.Helper()
	if have > want || have < want-mib {
		tb.Errorf("%s: %d, want within 1 MiB of %d", what, have, want)
	}
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func name(i int) string { return fmt.Sprintf("f%d", i) }

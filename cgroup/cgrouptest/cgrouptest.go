// Package cgrouptest gives tests a cgroup of their own on the real kernel.
package cgrouptest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"cloudflash/cgroup"
	"golang.org/x/sys/unix"
)

// Mount is where cgroup v2 is looked for.
const Mount = "/sys/fs/cgroup"

// Kernel makes a parent of the test's own on the real mount and removes it, with
// all that was made below, at the end. Where that is not possible the test is
// skipped with what is missing; with CLOUDFLASH_KERNEL_TESTS=1 it fails instead.
func Kernel(tb testing.TB) *cgroup.Parent {
	tb.Helper()
	if os.Geteuid() != 0 {
		missing(tb, "needs root")
	}
	dir := filepath.Join(Mount, "cloudflash-test-"+strconv.Itoa(os.Getpid())+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	parent, err := cgroup.OpenParent(dir)
	if err != nil {
		missing(tb, err.Error())
	}
	tb.Cleanup(func() { remove(tb, parent) })
	return parent
}

func missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CLOUDFLASH_KERNEL_TESTS") == "1" {
		tb.Fatal(what)
	}
	tb.Skip(what)
}

func remove(tb testing.TB, p *cgroup.Parent) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ids, err := p.Slices()
	if err != nil {
		tb.Error(err)
	}
	for _, id := range ids {
		s := p.Slice(id)
		if err := s.Kill(ctx); err != nil {
			tb.Error(err)
		}
		if err := s.Remove(ctx); err != nil {
			tb.Error(err)
		}
	}
	for _, dir := range []string{filepath.Join(p.Dir(), "vms"), filepath.Join(p.Dir(), "agent"), p.Dir()} {
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			tb.Errorf("remove %s: %v", dir, err)
		}
	}
}

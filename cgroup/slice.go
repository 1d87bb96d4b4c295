package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Slice is the inner cgroup of one VM: every limit of the VM is set here. It
// holds no process itself.
type Slice struct{ group }

// A Scope is a leaf below a slice: one cloudlet, or the VM's init.
type Scope struct{ group }

// group is what slices and scopes have in common. Its methods find by path:
// nothing is open between calls.
type group struct{ path string }

// Create makes the slice and turns on the controllers for its scopes. It may
// exist already.
func (s *Slice) Create() error {
	if err := s.mkdir(); err != nil {
		return err
	}
	return enable(s.path)
}

// Create makes the scope. It may exist already.
func (s *Scope) Create() error { return s.mkdir() }

func (g group) mkdir() error {
	if err := os.Mkdir(g.path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// Scope names a scope of the slice. It makes no system call.
func (s *Slice) Scope(name string) *Scope { return &Scope{group{filepath.Join(s.path, plain(name))}} }

// Scopes lists the names of the scopes that exist.
func (s *Slice) Scopes() ([]string, error) { return children(s.path) }

// Path is the directory of the cgroup.
func (g group) Path() string { return g.path }

// Exists reports whether the cgroup is there.
func (g group) Exists() bool { return exists(g.path, "cgroup.procs") }

// OpenDir opens the cgroup for CLONE_INTO_CGROUP. The caller closes it.
func (g group) OpenDir() (int, error) {
	fd, err := openRetry(g.path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, goneOr(fmt.Errorf("open %s: %w", g.path, err))
	}
	return fd, nil
}

// Chown lets a user put processes into the cgroup, which takes the right to
// write cgroup.procs here and in the common ancestor. The limits stay root's.
func (g group) Chown(uid, gid int) error {
	return os.Lchown(filepath.Join(g.path, "cgroup.procs"), uid, gid)
}

// PIDs lists the processes of the cgroup itself, not of those below.
func (g group) PIDs() ([]int, error) {
	b, err := readFile(g.path, "cgroup.procs")
	if err != nil {
		return nil, goneOr(err)
	}
	return parsePIDs(b)
}

// Reclaim asks the kernel to free that many bytes of the slice's memory: page
// cache is dropped or written back. ErrReclaim says that it found less.
func (s *Slice) Reclaim(ctx context.Context, bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	if !exists(s.path, "memory.reclaim") {
		if !s.Exists() {
			return ErrGone
		}
		return &UnsupportedError{Feature: "memory.reclaim", Needs: needsReclaim}
	}
	// The write blocks for as long as reclaim takes and is ended by signals only:
	// ask for it in pieces, so that ctx is heeded in between.
	const piece = 64 << 20
	for bytes > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(bytes, piece)
		err := writeFile(s.path, "memory.reclaim", strconv.FormatInt(n, 10))
		if errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("%w: %w", ErrReclaim, err)
		}
		if err != nil {
			return goneOr(err)
		}
		bytes -= n
	}
	return nil
}

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Remove removes the cgroup and those below it, deepest first. One that is gone
// already is fine. Processes that have just died can keep a cgroup busy for a
// moment: it tries again, ever more slowly, until ctx ends or five seconds are over.
func (g group) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for wait := 250 * time.Microsecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := removeTree(g.path)
		if err == nil || !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove %s: %w", g.path, err)
		case <-time.After(wait):
		}
	}
}

func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	names, listErr := children(dir)
	if listErr != nil {
		if errors.Is(listErr, os.ErrNotExist) {
			return nil
		}
		return listErr
	}
	if len(names) == 0 {
		return err
	}
	for _, name := range names {
		if err := removeTree(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

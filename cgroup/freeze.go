package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Freeze stops every process of the cgroup and returns once the kernel says that
// all of them are frozen. When ctx ends before that, it thaws again.
func (g group) Freeze(ctx context.Context) error {
	err := g.switchTo(ctx, "1", true)
	if err != nil && ctx.Err() != nil {
		return errors.Join(err, writeFile(g.path, "cgroup.freeze", "0"))
	}
	return err
}

// Thaw lets the processes run on and returns once they do.
func (g group) Thaw(ctx context.Context) error { return g.switchTo(ctx, "0", false) }

func (g group) switchTo(ctx context.Context, value string, frozen bool) error {
	if err := writeFile(g.path, "cgroup.freeze", value); err != nil {
		return goneOr(err)
	}
	return g.await(ctx, func(e events) bool { return e.frozen == frozen })
}

// Kill sends SIGKILL to every process of the cgroup and of those below, also to
// frozen ones and to those forked meanwhile, and returns once none is left.
func (g group) Kill(ctx context.Context) error {
	if !g.Exists() {
		return ErrGone
	}
	if !exists(g.path, "cgroup.kill") {
		return &UnsupportedError{Feature: "cgroup.kill", Needs: needsKill}
	}
	if err := writeFile(g.path, "cgroup.kill", "1"); err != nil {
		return goneOr(err)
	}
	return g.await(ctx, func(e events) bool { return !e.populated })
}

// Empty reports whether neither the cgroup nor any below has a process; a removed one is empty.
func (g group) Empty() bool {
	b, err := readFile(g.path, "cgroup.events")
	if err != nil {
		return errors.Is(goneOr(err), ErrGone)
	}
	e, err := parseEvents(b)
	return err == nil && !e.populated
}

// AwaitEmpty returns once the cgroup is empty. Many may wait, for long: it looks from time to
// time, and keeps no thread.
func (g group) AwaitEmpty(ctx context.Context) error {
	for wait := time.Millisecond; !g.Empty(); wait = min(2*wait, 200*time.Millisecond) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s is empty: %w", g.path, ctx.Err())
		case <-time.After(wait):
		}
	}
	return nil
}

// events is what cgroup.events says.
type events struct{ populated, frozen bool }

func parseEvents(b []byte) (e events, err error) {
	seen := 0
	err = eachField(b, func(key []byte, v uint64) {
		switch string(key) {
		case "populated":
			e.populated = v == 1
			seen++
		case "frozen":
			e.frozen = v == 1
			seen++
		}
	})
	if err == nil && seen < 2 {
		err = fmt.Errorf("no populated or frozen in %q", bytes.TrimSpace(b))
	}
	return e, err
}

// await waits until cgroup.events says so. The kernel raises POLLPRI at each
// change; the timeout only serves to heed ctx.
func (g group) await(ctx context.Context, done func(events) bool) error {
	fd, err := openRetry(g.path+"/cgroup.events", unix.O_RDONLY)
	if err != nil {
		return goneOr(fmt.Errorf("open cgroup.events of %s: %w", g.path, err))
	}
	defer unix.Close(fd)
	var buf [128]byte
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		n, err := unix.Pread(fd, buf[:], 0)
		if err != nil && err != unix.EINTR {
			return goneOr(fmt.Errorf("read cgroup.events of %s: %w", g.path, err))
		}
		if err == nil {
			e, err := parseEvents(buf[:n])
			if err != nil {
				return fmt.Errorf("parse cgroup.events of %s: %w", g.path, err)
			}
			if done(e) {
				return nil
			}
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for cgroup.events of %s: %w", g.path, err)
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, int(wait.Milliseconds()))
	}
}

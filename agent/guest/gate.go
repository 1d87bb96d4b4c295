package guest

import (
	"context"
	"fmt"
	"time"

	"cloudflash/cgroup"
	"golang.org/x/sys/unix"
)

// gate holds a new process back between fork and exec, until the agent has
// given it back to the OOM killer: it inherits -1000 from the init, as its value
// and as the lowest it may choose. When the agent dies the gate closes, and the
// process ends without having run anything.
type gate struct{ fd int }

func newGate() (*gate, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("make gate: %w", err)
	}
	return &gate{fds[0]}, fds[1], nil
}

func (g *gate) close() {
	if g.fd >= 0 {
		_ = unix.Close(g.fd)
		g.fd = -1
	}
}

// pass waits for the process to stand at the gate and lets it through.
func (g *gate) pass(ctx context.Context, scope *cgroup.Scope) error {
	if err := g.await(ctx); err != nil {
		return err
	}
	pids, err := scope.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := setOOMScore(pid, "0"); err != nil {
			return err
		}
	}
	_, err = unix.SendmsgN(g.fd, []byte{1}, nil, nil, unix.MSG_NOSIGNAL)
	return err
}

// await reads the process's byte. End of file says that it never came to be.
func (g *gate) await(ctx context.Context) error {
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(g.fd, b[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
		case err != nil:
			return fmt.Errorf("read gate: %w", err)
		case n == 0:
			return unix.EPIPE
		default:
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}}, int((100 * time.Millisecond).Milliseconds()))
	}
}

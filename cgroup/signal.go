package cgroup

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// signalBatch bounds how many descriptors Signal has open.
const signalBatch = 64

// Signal sends a signal to every process that is in the cgroup now, not to those below. The
// kernel has no file for that but cgroup.kill. What a process forks between being found and
// getting the signal is left out, as is what it forks to deal with it.
func (g group) Signal(sig unix.Signal) error {
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(pids, signalBatch) {
		if err := g.signal(batch, sig); err != nil {
			return err
		}
	}
	return nil
}

// signal signals those of the pids that are in the cgroup. A pid may have gone to a stranger
// since it was read: what it leads to is held before it is read again.
func (g group) signal(pids []int, sig unix.Signal) error {
	held := map[int]int{}
	defer func() {
		for _, fd := range held {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) { // it has ended
			continue
		}
		if err != nil {
			return fmt.Errorf("open process %d of %s: %w", pid, g.path, err)
		}
		held[pid] = fd
	}

	still, err := g.PIDs()
	if err != nil {
		return err
	}
	for pid, fd := range held {
		if !slices.Contains(still, pid) {
			continue
		}
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d of %s: %w", pid, g.path, err)
		}
	}
	return nil
}

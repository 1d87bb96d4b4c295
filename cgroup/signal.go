package cgroup

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// signalBatch bounds how many descriptors Signal has open.
const signalBatch = 1024

// Signal sends a signal to every process that is in the cgroup now, not to those below. The
// kernel has no file for that but cgroup.kill. What a process forks between being found and
// getting the signal is left out, as are children that its handler forks.
func (g group) Signal(sig unix.Signal) error {
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	var errs []error
	for batch := range slices.Chunk(pids, signalBatch) {
		errs = append(errs, g.signal(batch, sig))
	}
	return errors.Join(errs...)
}

// signal signals those of the pids that are in the cgroup. A pid may have gone to a stranger
// since it was read: what it leads to is held before it is read again.
func (g group) signal(pids []int, sig unix.Signal) error {
	var errs []error
	held := map[int]int{}
	defer func() {
		for _, fd := range held {
			_ = unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case err == nil:
			held[pid] = fd
		case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // it has ended
		default:
			errs = append(errs, fmt.Errorf("open process %d of %s: %w", pid, g.path, err))
		}
	}

	still, err := g.PIDs()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, pid := range still {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("signal process %d of %s: %w", pid, g.path, err))
		}
	}
	return errors.Join(errs...)
}

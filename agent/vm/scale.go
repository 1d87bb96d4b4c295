package vm

import (
	"context"
	"errors"

	"cloudflash/agent/autoscale"
	"cloudflash/cgroup"
)

// Write makes the kernel have a limit that autoscaling has decided on, and returns what it
// has then. An error that is fault.ErrCapacity may pass.
func (l *Lease) Write(ctx context.Context, d autoscale.Decision) (limit, high float64, err error) {
	switch d.Resource {
	case autoscale.CPU:
		err = l.slice.Apply(cgroup.Limits{CPU: cpuLimit(d.To)})
	case autoscale.Memory:
		return l.writeMemory(ctx, d)
	case autoscale.Storage:
		err = l.applyStorage(int64(d.To))
	case autoscale.Bandwidth:
		err = l.applyBandwidth(int64(d.To))
	default:
		io := l.record().Size().IO
		var k cgroup.Limits
		if k.IO, err = l.p.ioLimits(io); err == nil {
			err = l.slice.Apply(k)
		}
	}
	return d.To, d.HighTo, err
}

// Took notes a limit that was written.
func (l *Lease) Took(res autoscale.Resource, limit, high float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits.set(res, limit, high)
}

// writeMemory moves both knobs. Up, max goes first. Down, memory is reclaimed before
// high is lowered, so that no task of the VM has to do it, and max only if what is in
// use has then stayed below it: the kernel would kill (Linux has no limit that waits).
func (l *Lease) writeMemory(ctx context.Context, d autoscale.Decision) (limit, high float64, err error) {
	most, working := int64(d.To), int64(d.HighTo)
	if d.Up() {
		if err := l.slice.Apply(cgroup.Limits{MemoryMax: &most}); err != nil {
			return 0, 0, err
		}
		return d.To, d.HighTo, l.slice.Apply(cgroup.Limits{MemoryHigh: &working})
	}

	if d.Reclaim > 0 {
		if err := l.slice.Reclaim(ctx, int64(d.Reclaim)); err != nil && !errors.Is(err, cgroup.ErrReclaim) {
			return 0, 0, err
		}
	}
	if err := l.slice.Apply(cgroup.Limits{MemoryHigh: &working}); err != nil {
		return 0, 0, err
	}
	use, err := l.MemoryInUse()
	if err != nil || most >= int64(d.From) || float64(use) > leastSpare*d.To {
		return d.From, d.HighTo, err
	}
	return d.To, d.HighTo, l.slice.Apply(cgroup.Limits{MemoryMax: &most})
}

// leastSpare is how full of use a new memory.max may be. A VM may take memory between
// the look and the write.
const leastSpare = 0.9

package agent

import (
	"context"
	"errors"

	"cloudflash/agent/autoscale"
	"cloudflash/cgroup"
)

// writeLimit makes the kernel have a new limit and returns what it has.
func (a *Agent) writeLimit(ctx context.Context, v *vm, d autoscale.Decision) (limit, high float64, err error) {
	switch d.Resource {
	case autoscale.CPU:
		err = v.slice.Apply(cgroup.Limits{CPU: cpuLimit(d.To)})
	case autoscale.Memory:
		return a.writeMemory(ctx, v, d)
	case autoscale.Storage:
		err = a.applyStorage(v, int64(d.To))
	case autoscale.Bandwidth:
		err = a.applyBandwidth(v, int64(d.To))
	default:
		io := a.record(v).Size().IO
		var l cgroup.Limits
		if l.IO, err = a.ioLimits(io); err == nil {
			err = v.slice.Apply(l)
		}
	}
	return d.To, d.HighTo, err
}

// writeMemory moves both knobs. Up, max goes first. Down, memory is reclaimed before
// high is lowered, so that no task of the VM has to do it, and max only if what is in
// use has then stayed below it: the kernel would kill (Linux has no limit that waits).
func (a *Agent) writeMemory(ctx context.Context, v *vm, d autoscale.Decision) (limit, high float64, err error) {
	most, working := int64(d.To), int64(d.HighTo)
	if d.Up() {
		if err := v.slice.Apply(cgroup.Limits{MemoryMax: &most}); err != nil {
			return 0, 0, err
		}
		return d.To, d.HighTo, v.slice.Apply(cgroup.Limits{MemoryHigh: &working})
	}
	if d.Reclaim > 0 {
		if err := v.slice.Reclaim(ctx, int64(d.Reclaim)); err != nil && !errors.Is(err, cgroup.ErrReclaim) {
			return 0, 0, err
		}
	}
	if err := v.slice.Apply(cgroup.Limits{MemoryHigh: &working}); err != nil {
		return 0, 0, err
	}
	use, err := memoryInUse(v.slice)
	if err != nil || most >= int64(d.From) || float64(use) > leastSpare*d.To {
		return d.From, d.HighTo, err
	}
	return d.To, d.HighTo, v.slice.Apply(cgroup.Limits{MemoryMax: &most})
}

// leastSpare is how full of use a new memory.max may be. A VM may take memory between
// the look and the write.
const leastSpare = 0.9

// setLimit notes a limit that was written. The caller has a.held.
func (l *Limits) setLimit(res autoscale.Resource, v, high float64) {
	n := int64(v)
	switch res {
	case autoscale.CPU:
		l.CPUs = &v
	case autoscale.Memory:
		l.MemoryBytes, l.MemoryHighBytes = &n, new(int64(high))
		if int64(high) >= n {
			l.MemoryHighBytes = new(n)
		}
	case autoscale.Storage:
		l.StorageBytes = &n
	case autoscale.Bandwidth:
		l.BandwidthBPS = &n
	default:
		if l.IO != nil {
			io := Spec{IO: *l.IO}
			io.Set(res.String(), v)
			l.IO = &io.IO
		}
	}
}

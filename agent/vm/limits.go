package vm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

const mib = int64(1) << 20

// Limits is what the slice is allowed now, read back from the kernel. A nil
// field is not enforced by this agent on this host.
type Limits struct {
	CPUs            *float64  `json:"cpus"`
	MemoryBytes     *int64    `json:"memory_bytes"`
	MemoryHighBytes *int64    `json:"memory_high_bytes"`
	SwapBytes       *int64    `json:"swap_bytes"`
	StorageBytes    *int64    `json:"storage_bytes"`
	BandwidthBPS    *int64    `json:"bandwidth_bps"`
	GPUs            *int      `json:"gpus"`
	IO              *state.IO `json:"io"`
	PIDs            *int64    `json:"pids"`
}

// Amounts are the limits of what is scaled; 0 is none.
func (l Limits) Amounts() autoscale.Limits {
	var out autoscale.Limits
	if l.CPUs != nil {
		out[autoscale.CPU] = *l.CPUs
	}
	out[autoscale.Memory] = bounded(l.MemoryBytes)
	out[autoscale.Storage] = bounded(l.StorageBytes)
	out[autoscale.Bandwidth] = bounded(l.BandwidthBPS)
	if l.IO != nil {
		out[autoscale.ReadBPS], out[autoscale.WriteBPS] = float64(l.IO.ReadBPS), float64(l.IO.WriteBPS)
		out[autoscale.ReadIOPS], out[autoscale.WriteIOPS] = float64(l.IO.ReadIOPS), float64(l.IO.WriteIOPS)
	}
	return out
}

// High is memory.high; 0 is none.
func (l Limits) High() float64 { return bounded(l.MemoryHighBytes) }

func bounded(limit *int64) float64 {
	if limit == nil || *limit == cgroup.Max {
		return 0
	}
	return float64(*limit)
}

// set notes a limit that was written.
func (l *Limits) set(res autoscale.Resource, v, high float64) {
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
			s := state.Spec{IO: *l.IO}
			s.Set(res.String(), v)
			l.IO = &s.IO
		}
	}
}

// ApplyLimits makes the limits of a VM what its record says, and reads them back.
func (l *Lease) ApplyLimits(ctx context.Context) error {
	if err := l.writeLimits(ctx); err != nil {
		return err
	}
	return l.ReadLimits()
}

func (l *Lease) writeLimits(ctx context.Context) error {
	view := l.p.cfg.State.View()
	r := l.Record(view)
	s := r.Size()
	k, err := l.p.kernelLimits(s, l.p.cfg.High(view, r))
	if err != nil {
		return err
	}

	if err := l.applyStorage(s.StorageBytes); err != nil {
		return err
	}
	if err := l.ShrinkMemory(ctx, s.MemoryBytes); err != nil {
		return err
	}
	if err := l.slice.Apply(k); err != nil {
		return err
	}
	return l.applyBandwidth(s.BandwidthBPS)
}

// cpuPeriod is the length over which cpu.max is kept, the kernel's default.
const cpuPeriod = 100 * time.Millisecond

// CheckSpec refuses limits that cannot be enforced on this host.
func (p *Platform) CheckSpec(s state.Spec) error {
	_, err := p.kernelLimits(s, cgroup.Max)
	return err
}

func (p *Platform) kernelLimits(s state.Spec, high int64) (cgroup.Limits, error) {
	maxMem, noSwap, pids := s.MemoryBytes, int64(0), s.PIDs+initThreads
	l := cgroup.Limits{
		CPU:        cpuLimit(s.CPUs),
		MemoryMax:  &maxMem,
		MemoryHigh: &high,
		SwapMax:    &noSwap,
		PIDsMax:    &pids,
	}
	var err error
	l.IO, err = p.ioLimits(s.IO)
	return l, err
}

func cpuLimit(cpus float64) *cgroup.CPU {
	return &cgroup.CPU{Quota: time.Duration(cpus * float64(cpuPeriod)), Period: cpuPeriod}
}

// initThreads is what the VM's own init needs beside the processes that were
// asked for, so that a fork bomb in the VM cannot starve it.
const initThreads = 16

// ShrinkMemory prepares a VM for a lower memory.max. The kernel would take
// a limit below use and kill; instead memory is reclaimed first, and a limit
// that still does not hold is refused.
func (l *Lease) ShrinkMemory(ctx context.Context, target int64) error {
	use, err := l.MemoryInUse()
	if err != nil || use <= target {
		return err
	}
	if err := l.slice.Reclaim(ctx, use-target+4*mib); err != nil && !errors.Is(err, cgroup.ErrReclaim) {
		return err
	}
	if use, err = l.MemoryInUse(); err != nil || use <= target {
		return err
	}

	return &fault.Error{
		Kind:   fault.ErrConflict,
		Code:   "memory_in_use",
		Detail: fmt.Sprintf("memory_bytes: %d is below what is in use, %d bytes after reclaim", target, use),
		Hint:   "end cloudlets of the VM first, or ask for more",
		Fields: []fault.Field{{Pointer: "/memory_bytes", Detail: "below what is in use", Min: use}},
	}
}

// MemoryInUse is what the kernel charges the VM now.
func (v *VM) MemoryInUse() (int64, error) {
	r, err := v.slice.OpenReader()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return r.MemoryCurrent()
}

// ReadLimits remembers what the kernel has.
func (l *Lease) ReadLimits() error {
	k, err := l.slice.Limits()
	if err != nil {
		return err
	}
	bps, err := l.bandwidth()
	if err != nil {
		return err
	}
	bytes, used, err := l.storageLimit()
	if err != nil {
		return err
	}

	limits := limitsFrom(k)
	limits.BandwidthBPS, limits.StorageBytes, limits.GPUs = bps, bytes, new(len(l.GPUs))
	l.noteLimits(limits, used)
	return nil
}

func (v *VM) noteLimits(limits Limits, stored int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.limits, v.stored = limits, stored
}

// limitsFrom turns what the slice has into what the API shows.
func limitsFrom(k cgroup.Limits) Limits {
	l := Limits{
		MemoryBytes:     k.MemoryMax,
		MemoryHighBytes: k.MemoryHigh,
		SwapBytes:       k.SwapMax,
		IO:              ioFrom(k.IO),
	}

	if k.CPU != nil && k.CPU.Quota > 0 {
		l.CPUs = new(float64(k.CPU.Quota) / float64(k.CPU.Period))
	}
	if k.MemoryHigh != nil && *k.MemoryHigh == cgroup.Max {
		l.MemoryHighBytes = nil
	}
	if k.PIDsMax != nil {
		l.PIDs = new(*k.PIDsMax - initThreads)
	}
	return l
}

func ioFrom(devices []cgroup.IODevice) *state.IO {
	unlimited := func(n int64) int64 {
		if n == cgroup.Max {
			return 0
		}
		return n
	}

	var io state.IO
	for _, d := range devices { // one device backs the state directory
		io = state.IO{
			ReadBPS:   unlimited(d.ReadBPS),
			WriteBPS:  unlimited(d.WriteBPS),
			ReadIOPS:  unlimited(d.ReadIOPS),
			WriteIOPS: unlimited(d.WriteIOPS),
		}
	}
	return &io
}

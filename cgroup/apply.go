package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Apply writes the limits that are set, reads them back, and fails when the
// kernel has something else than was written, beyond its own rounding. When it
// fails, the limits are what they were.
func (g group) Apply(l Limits) error {
	if err := l.check(); err != nil {
		return err
	}
	before, err := g.limits(l.touches)
	if err != nil {
		return err
	}
	err = g.applyOnce(l)
	if err == nil {
		return nil
	}
	if !g.Exists() {
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	if undoErr := g.undo(before, l.touches); undoErr != nil {
		return errors.Join(err, fmt.Errorf("undo the limits of %s: %w", g.path, undoErr))
	}
	return err
}

// undo writes back what has changed since before. A device that the kernel does
// not know has not changed, and would refuse the undo too.
func (g group) undo(before Limits, touched func(file string) bool) error {
	now, err := g.limits(touched)
	if err != nil {
		return err
	}
	return g.write(before.changed(now))
}

func (g group) applyOnce(l Limits) error {
	if err := g.write(l); err != nil {
		return err
	}
	have, err := g.limits(l.touches)
	if err != nil {
		return err
	}
	return mismatch(g.path, l, have)
}

// touches reports whether writing l may change what a file says. A quota may clear the
// burst.
func (l Limits) touches(file string) bool {
	switch file {
	case "cpu.max", "cpu.max.burst":
		return l.CPU != nil || l.CPUBurst != nil
	case "cpu.weight":
		return l.CPUWeight != nil
	case "memory.max":
		return l.MemoryMax != nil
	case "memory.high":
		return l.MemoryHigh != nil
	case "memory.swap.max":
		return l.SwapMax != nil
	case "memory.oom.group":
		return l.OOMGroup != nil
	case "io.max":
		return l.IO != nil
	case "io.weight":
		return l.IOWeight != nil
	case "pids.max":
		return l.PIDsMax != nil
	}
	return true
}

// changed is the part of l that differs from now. Quota and burst go together:
// writing a smaller quota clears the burst.
func (l Limits) changed(now Limits) Limits {
	var c Limits
	if differ(l.CPU, now.CPU) || differ(l.CPUBurst, now.CPUBurst) {
		c.CPU, c.CPUBurst = l.CPU, l.CPUBurst
	}
	keep(&c.CPUWeight, l.CPUWeight, now.CPUWeight)
	keep(&c.MemoryMax, l.MemoryMax, now.MemoryMax)
	keep(&c.MemoryHigh, l.MemoryHigh, now.MemoryHigh)
	keep(&c.SwapMax, l.SwapMax, now.SwapMax)
	keep(&c.OOMGroup, l.OOMGroup, now.OOMGroup)
	keep(&c.IOWeight, l.IOWeight, now.IOWeight)
	keep(&c.PIDsMax, l.PIDsMax, now.PIDsMax)
	for _, d := range slices.Concat(l.IO, now.IO) {
		if had := findDevice(l.IO, d); had != findDevice(now.IO, d) && !slices.Contains(c.IO, had) {
			c.IO = append(c.IO, had)
		}
	}
	return c
}

func differ[T comparable](was, now *T) bool {
	return was != nil && (now == nil || *was != *now)
}

func keep[T comparable](field **T, was, now *T) {
	if differ(was, now) {
		*field = was
	}
}

// check refuses what the kernel or the library would take for something else: a
// negative rate for one beyond measure, a negative number of processes for no
// limit at all. The kernel's own ranges are left to the kernel.
func (l Limits) check() error {
	var errs []error
	notNegative := func(file string, n int64) {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s of %d: must not be negative", file, n))
		}
	}
	for _, f := range []struct {
		file string
		n    *int64
	}{{"cpu.weight", l.CPUWeight}, {"memory.max", l.MemoryMax}, {"memory.high", l.MemoryHigh},
		{"memory.swap.max", l.SwapMax}, {"io.weight", l.IOWeight}, {"pids.max", l.PIDsMax}} {
		if f.n != nil {
			notNegative(f.file, *f.n)
		}
	}
	if l.CPU != nil && l.CPU.Period < time.Microsecond {
		errs = append(errs, fmt.Errorf("cpu.max with a period of %s: must be 1µs or more", l.CPU.Period))
	}
	if l.CPUBurst != nil {
		notNegative("cpu.max.burst", int64(*l.CPUBurst))
	}
	for _, d := range l.IO {
		notNegative(fmt.Sprintf("io.max on %d:%d", d.Major, d.Minor), min(d.ReadBPS, d.WriteBPS, d.ReadIOPS, d.WriteIOPS))
	}
	return errors.Join(errs...)
}

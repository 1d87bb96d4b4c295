package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Limits reads what the kernel has now. A field whose file this kernel lacks is
// nil.
func (g group) Limits() (Limits, error) { return g.limits(func(string) bool { return true }) }

// limits is Limits of those files that are wanted.
func (g group) limits(want func(file string) bool) (Limits, error) {
	var l Limits
	read := func(file string, parse func([]byte) error) error {
		if !want(file) {
			return nil
		}
		return g.read(file, parse)
	}
	number := func(file string, field **int64) error {
		return read(file, func(b []byte) error {
			n, err := parseNumber(b)
			*field = &n
			return err
		})
	}
	err := errors.Join(
		read("cpu.max", func(b []byte) (err error) { l.CPU, err = parseCPUMax(b); return }),
		number("cpu.weight", &l.CPUWeight),
		read("cpu.max.burst", func(b []byte) error {
			us, err := parseNumber(b)
			d := time.Duration(us) * time.Microsecond
			l.CPUBurst = &d
			return err
		}),
		number("memory.max", &l.MemoryMax),
		number("memory.high", &l.MemoryHigh),
		number("memory.swap.max", &l.SwapMax),
		read("memory.oom.group", func(b []byte) error {
			n, err := parseNumber(b)
			on := n == 1
			l.OOMGroup = &on
			return err
		}),
		read("io.max", func(b []byte) (err error) { l.IO, err = parseIOMax(b); return }),
		read("io.weight", func(b []byte) error {
			n, err := parseNumber(bytes.TrimPrefix(firstLine(b), []byte("default ")))
			l.IOWeight = &n
			return err
		}),
		number("pids.max", &l.PIDsMax),
	)
	if !g.Exists() {
		return l, ErrGone
	}
	return l, err
}

// read parses a file; one that is not there is skipped.
func (g group) read(file string, parse func([]byte) error) error {
	b, err := readFile(g.path, file)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := parse(b); err != nil {
		return fmt.Errorf("parse %s of %s: %w", file, g.path, err)
	}
	return nil
}

func firstLine(b []byte) []byte { line, _, _ := bytes.Cut(b, []byte("\n")); return line }

// mismatch compares what was asked for with what the kernel has. The kernel
// rounds memory down to whole pages and CPU time to microseconds.
func mismatch(path string, want, have Limits) error {
	var errs []error
	diff := func(file string, want, have *int64, unit int64) {
		if want == nil {
			return
		}
		if have == nil || *want != *have && (*want == Max || *want-*have >= unit || *want < *have) {
			errs = append(errs, fmt.Errorf("%s of %s is %s after writing %s", file, path, show(have), show(want)))
		}
	}
	page := int64(os.Getpagesize())
	diff("memory.max", want.MemoryMax, have.MemoryMax, page)
	diff("memory.high", want.MemoryHigh, have.MemoryHigh, page)
	diff("memory.swap.max", want.SwapMax, have.SwapMax, page)
	diff("pids.max", want.PIDsMax, have.PIDsMax, 1)
	diff("cpu.weight", want.CPUWeight, have.CPUWeight, 1)
	diff("io.weight", want.IOWeight, have.IOWeight, 1)
	if want.CPU != nil && (have.CPU == nil || want.CPU.rounded() != have.CPU.rounded()) {
		errs = append(errs, fmt.Errorf("cpu.max of %s is %s after writing %s", path, showCPU(have.CPU), showCPU(want.CPU)))
	}
	if want.CPUBurst != nil && (have.CPUBurst != nil || *want.CPUBurst > 0) &&
		(have.CPUBurst == nil || want.CPUBurst.Truncate(time.Microsecond) != *have.CPUBurst) {
		errs = append(errs, fmt.Errorf("cpu.max.burst of %s is not %s after writing it", path, *want.CPUBurst))
	}
	if want.OOMGroup != nil && (have.OOMGroup == nil || *want.OOMGroup != *have.OOMGroup) {
		errs = append(errs, fmt.Errorf("memory.oom.group of %s is not %t after writing it", path, *want.OOMGroup))
	}
	for _, d := range want.IO {
		if got := findDevice(have.IO, d); got != d.normal() {
			errs = append(errs, fmt.Errorf("io.max of %s is %+v after writing %+v", path, got, d))
		}
	}
	return errors.Join(errs...)
}

func (c CPU) rounded() CPU {
	if c.Quota <= 0 {
		c.Quota = 0
	}
	return CPU{c.Quota.Truncate(time.Microsecond), c.Period.Truncate(time.Microsecond)}
}

// normal says Max wherever there is no limit.
func (d IODevice) normal() IODevice {
	for _, f := range []*int64{&d.ReadBPS, &d.WriteBPS, &d.ReadIOPS, &d.WriteIOPS} {
		if *f == 0 {
			*f = Max
		}
	}
	return d
}

// findDevice is the line of a device; a device without one has no limit.
func findDevice(all []IODevice, d IODevice) IODevice {
	for _, o := range all {
		if o.Major == d.Major && o.Minor == d.Minor {
			return o
		}
	}
	return IODevice{Major: d.Major, Minor: d.Minor}.normal()
}

// showCPU writes a quota as cpu.max does.
func showCPU(c *CPU) string {
	switch {
	case c == nil:
		return "absent"
	case c.Quota <= 0:
		return fmt.Sprintf("max %d", c.Period.Microseconds())
	}
	return fmt.Sprintf("%d %d", c.Quota.Microseconds(), c.Period.Microseconds())
}

func show(n *int64) string {
	switch {
	case n == nil:
		return "absent"
	case *n == Max:
		return "max"
	}
	return strconv.FormatInt(*n, 10)
}

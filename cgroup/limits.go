package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// Max means no limit, in every int64 limit.
const Max = math.MaxInt64

// Limits of a slice or scope. A nil field is left alone by Apply, and is absent
// from the kernel in what Limits returns.
type Limits struct {
	CPU        *CPU           // cpu.max
	CPUWeight  *int64         // cpu.weight, 1-10000
	CPUBurst   *time.Duration // cpu.max.burst
	MemoryMax  *int64         // memory.max, bytes
	MemoryHigh *int64         // memory.high, bytes
	SwapMax    *int64         // memory.swap.max, bytes
	OOMGroup   *bool          // memory.oom.group: the OOM killer takes all processes or none
	IO         []IODevice     // io.max; devices not named are left alone
	IOWeight   *int64         // io.weight, 1-10000
	PIDsMax    *int64         // pids.max
}

// CPU is Quota of CPU time in every Period. A Quota of 0 or less is no limit.
type CPU struct{ Quota, Period time.Duration }

// IODevice limits IO on one whole device. Zero and Max are no limit.
type IODevice struct {
	Major, Minor        uint32
	ReadBPS, WriteBPS   int64 // bytes per second
	ReadIOPS, WriteIOPS int64 // operations per second
}

// write keeps the order that the kernel wants: memory.high goes before
// memory.max, so that a shrinking group reclaims before it kills, and burst is
// never above the quota (EINVAL otherwise).
func (g group) write(l Limits) error {
	if err := g.writeBurstBefore(l); err != nil {
		return err
	}
	manager, err := cgroup2.Load("/", cgroup2.WithMountpoint(g.path))
	if err != nil {
		return err
	}
	first, second := l.resources()
	if err := manager.Update(first); err != nil {
		return g.explain(err)
	}
	if err := manager.Update(second); err != nil {
		return g.explain(err)
	}
	if l.CPUBurst != nil && *l.CPUBurst > 0 {
		if err := writeFile(g.path, "cpu.max.burst", micros(*l.CPUBurst)); err != nil {
			return err
		}
	}
	if l.PIDsMax != nil && *l.PIDsMax == 0 {
		if !exists(g.path, "pids.max") {
			return &UnsupportedError{Feature: "pids.max", Needs: "its controller turned on"}
		}
		if err := writeFile(g.path, "pids.max", "0"); err != nil {
			return err
		}
	}
	if l.IOWeight != nil {
		if !exists(g.path, "io.weight") {
			return &UnsupportedError{Feature: "io.weight", Needs: "a kernel with CONFIG_BLK_CGROUP_IOCOST"}
		}
		return writeFile(g.path, "io.weight", "default "+strconv.FormatInt(*l.IOWeight, 10))
	}
	return nil
}

// writeBurstBefore clears a burst that the new quota would not allow.
func (g group) writeBurstBefore(l Limits) error {
	if l.CPU == nil && l.CPUBurst == nil {
		return nil
	}
	if !exists(g.path, "cpu.max.burst") {
		if l.CPUBurst != nil && *l.CPUBurst > 0 && g.Exists() {
			return &UnsupportedError{Feature: "cpu.max.burst", Needs: needsBurst}
		}
		return nil
	}
	if l.CPUBurst == nil {
		b, err := readFile(g.path, "cpu.max.burst")
		if err != nil {
			return err
		}
		us, err := parseNumber(b)
		if err != nil {
			return fmt.Errorf("parse cpu.max.burst of %s: %w", g.path, err)
		}
		if l.CPU.Quota <= 0 || us <= l.CPU.Quota.Microseconds() {
			return nil
		}
	}
	return writeFile(g.path, "cpu.max.burst", "0")
}

// resources are the limits in the words of the library: all but memory.max, then
// memory.max.
func (l Limits) resources() (first, second *cgroup2.Resources) {
	first, second = &cgroup2.Resources{}, &cgroup2.Resources{}
	if l.CPU != nil || l.CPUWeight != nil {
		first.CPU = &cgroup2.CPU{}
	}
	if l.CPU != nil {
		period := uint64(l.CPU.Period.Microseconds())
		var quota *int64
		if l.CPU.Quota > 0 {
			us := l.CPU.Quota.Microseconds()
			quota = &us
		}
		first.CPU.Max = cgroup2.NewCPUMax(quota, &period)
	}
	if l.CPUWeight != nil {
		w := uint64(*l.CPUWeight)
		first.CPU.Weight = &w
	}
	first.Memory = &cgroup2.Memory{High: l.MemoryHigh, Swap: l.SwapMax, OOMGroup: l.OOMGroup}
	second.Memory = &cgroup2.Memory{Max: l.MemoryMax}
	if l.PIDsMax != nil && *l.PIDsMax > 0 { // the library leaves out 0
		first.Pids = &cgroup2.Pids{Max: *l.PIDsMax}
		if *l.PIDsMax == Max {
			first.Pids.Max = -1 // the library's word for max
		}
	}
	if l.IO != nil {
		first.IO = &cgroup2.IO{}
		for _, d := range l.IO {
			first.IO.Max = append(first.IO.Max, d.entries()...)
		}
	}
	return first, second
}

func (d IODevice) entries() []cgroup2.Entry {
	entry := func(t cgroup2.IOType, rate int64) cgroup2.Entry {
		e := cgroup2.Entry{Type: t, Major: int64(d.Major), Minor: int64(d.Minor), Rate: uint64(rate)}
		if rate == 0 || rate == Max {
			e.Rate = math.MaxUint64 // the kernel takes it for max
		}
		return e
	}
	return []cgroup2.Entry{entry(cgroup2.ReadBPS, d.ReadBPS), entry(cgroup2.WriteBPS, d.WriteBPS),
		entry(cgroup2.ReadIOPS, d.ReadIOPS), entry(cgroup2.WriteIOPS, d.WriteIOPS)}
}

// explain names what is missing when a control file is. The library opens with
// O_CREATE, for which cgroupfs answers EPERM or EACCES where there is no such
// file (6.1 and 6.12: EACCES for a missing controller's).
func (g group) explain(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) {
		if _, statErr := os.Lstat(pe.Path); errors.Is(statErr, os.ErrNotExist) && g.Exists() {
			return &UnsupportedError{Feature: pe.Path, Needs: "its controller turned on"}
		}
	}
	return err
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

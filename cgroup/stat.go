package cgroup

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

// CPUStat is cpu.stat. Since Linux 4.20 the first three are there without the
// controller.
type CPUStat struct {
	Usage, User, System time.Duration
	Periods, Throttled  uint64        // enforcement periods, and those in which the quota ran out
	ThrottledTime       time.Duration // summed over all CPUs
	Bursts              uint64
	BurstTime           time.Duration
}

func parseCPUStat(b []byte) (s CPUStat, err error) {
	us := func(v uint64) time.Duration {
		return time.Duration(min(v, math.MaxInt64/1000)) * time.Microsecond
	}
	err = eachField(b, func(key []byte, v uint64) {
		switch string(key) {
		case "usage_usec":
			s.Usage = us(v)
		case "user_usec":
			s.User = us(v)
		case "system_usec":
			s.System = us(v)
		case "nr_periods":
			s.Periods = v
		case "nr_throttled":
			s.Throttled = v
		case "throttled_usec":
			s.ThrottledTime = us(v)
		case "nr_bursts":
			s.Bursts = v
		case "burst_usec":
			s.BurstTime = us(v)
		}
	})
	return s, err
}

// MemoryStat is the part of memory.stat that tells what memory is used for, in
// bytes, and how hard the kernel works for it, in events.
type MemoryStat struct {
	Anon, File, Kernel, Shmem, Slab, Sock uint64
	FileMapped, FileDirty, FileWriteback  uint64
	InactiveAnon, ActiveAnon              uint64
	InactiveFile, ActiveFile              uint64
	Unevictable, SlabReclaimable          uint64
	KernelStack, PageTables, PerCPU       uint64
	PageFaults, MajorFaults               uint64
	RefaultAnon, RefaultFile              uint64
}

func parseMemoryStat(b []byte) (s MemoryStat, err error) {
	err = eachField(b, func(key []byte, v uint64) {
		switch string(key) {
		case "anon":
			s.Anon = v
		case "file":
			s.File = v
		case "kernel":
			s.Kernel = v
		case "kernel_stack":
			s.KernelStack = v
		case "pagetables":
			s.PageTables = v
		case "percpu":
			s.PerCPU = v
		case "shmem":
			s.Shmem = v
		case "slab":
			s.Slab = v
		case "sock":
			s.Sock = v
		case "file_mapped":
			s.FileMapped = v
		case "file_dirty":
			s.FileDirty = v
		case "file_writeback":
			s.FileWriteback = v
		case "inactive_anon":
			s.InactiveAnon = v
		case "active_anon":
			s.ActiveAnon = v
		case "inactive_file":
			s.InactiveFile = v
		case "active_file":
			s.ActiveFile = v
		case "unevictable":
			s.Unevictable = v
		case "slab_reclaimable":
			s.SlabReclaimable = v
		case "pgfault":
			s.PageFaults = v
		case "pgmajfault":
			s.MajorFaults = v
		case "workingset_refault_anon":
			s.RefaultAnon = v
		case "workingset_refault_file":
			s.RefaultFile = v
		}
	})
	return s, err
}

// Unreclaimable is what the kernel cannot free without swap: memory of processes,
// tmpfs and shared memory included (both are on the lists of anon), what is
// locked, what the kernel itself has but for the caches it can drop, and the
// buffers of sockets. With swap, the part of it on the lists of anon can go there.
func (s MemoryStat) Unreclaimable() uint64 {
	kernel := s.Kernel // slab included
	if kernel == 0 {   // before Linux 5.18
		kernel = s.Slab + s.KernelStack + s.PageTables + s.PerCPU
	}
	kernel -= min(kernel, s.SlabReclaimable) // the two are not of one moment
	return s.InactiveAnon + s.ActiveAnon + s.Unevictable + kernel + s.Sock
}

// MemoryEvents is memory.events: how often each limit was met, the cgroups
// below included.
type MemoryEvents struct {
	Low, High, Max, OOM   uint64
	OOMKill, OOMGroupKill uint64
}

func parseMemoryEvents(b []byte) (e MemoryEvents, err error) {
	err = eachField(b, func(key []byte, v uint64) {
		switch string(key) {
		case "low":
			e.Low = v
		case "high":
			e.High = v
		case "max":
			e.Max = v
		case "oom":
			e.OOM = v
		case "oom_kill":
			e.OOMKill = v
		case "oom_group_kill":
			e.OOMGroupKill = v
		}
	})
	return e, err
}

// IOStat is io.stat summed over all devices but loop devices: what goes through
// one counts again on the disk below it, for the same cgroup (Linux 5.13).
type IOStat struct {
	ReadBytes, WrittenBytes uint64
	ReadOps, WriteOps       uint64
}

var loopMajor = []byte("7:") // Documentation/admin-guide/devices.txt, never changed

func parseIOStat(b []byte) (s IOStat, err error) {
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		dev, rest, _ := bytes.Cut(line, []byte(" "))
		if len(dev) == 0 || bytes.HasPrefix(dev, loopMajor) {
			continue
		}
		for len(rest) > 0 {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte(" "))
			if err := s.add(pair); err != nil {
				return s, fmt.Errorf("line %q: %w", line, err)
			}
		}
	}
	return s, nil
}

func (s *IOStat) add(pair []byte) error {
	key, value, _ := bytes.Cut(pair, []byte("="))
	var field *uint64
	switch string(key) {
	case "rbytes":
		field = &s.ReadBytes
	case "wbytes":
		field = &s.WrittenBytes
	case "rios":
		field = &s.ReadOps
	case "wios":
		field = &s.WriteOps
	default:
		return nil
	}
	n, err := parseUint(value)
	*field += n
	return err
}

// Pressure is PSI of one resource: the time that some, or all, of the tasks
// that were not idle stood waiting for it. https://docs.kernel.org/accounting/psi.html
type Pressure struct{ Some, Full PressureLine }

// PressureLine is one line of a pressure file: averages in percent over 10, 60
// and 300 seconds, and the total since the cgroup was made.
type PressureLine struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

func parsePressure(b []byte) (p Pressure, err error) {
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		if len(line) == 0 {
			continue
		}
		kind, rest, _ := bytes.Cut(line, []byte(" "))
		var l *PressureLine
		switch string(kind) {
		case "some":
			l = &p.Some
		case "full":
			l = &p.Full
		default:
			return p, fmt.Errorf("line %q", line)
		}
		if err := l.parse(rest); err != nil {
			return p, fmt.Errorf("line %q: %w", line, err)
		}
	}
	return p, nil
}

func (l *PressureLine) parse(b []byte) error {
	for len(b) > 0 {
		var pair []byte
		pair, b, _ = bytes.Cut(b, []byte(" "))
		key, value, _ := bytes.Cut(pair, []byte("="))
		var err error
		switch string(key) {
		case "avg10":
			l.Avg10, err = parsePercent(value)
		case "avg60":
			l.Avg60, err = parsePercent(value)
		case "avg300":
			l.Avg300, err = parsePercent(value)
		case "total":
			var n uint64
			n, err = parseUint(value)
			l.Total = time.Duration(min(n, math.MaxInt64/1000)) * time.Microsecond
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parsePercent reads a fixed-point number such as 12.34.
func parsePercent(b []byte) (float64, error) {
	whole, part, _ := bytes.Cut(b, []byte("."))
	n, err := parseUint(whole)
	if err != nil || len(part) == 0 {
		return float64(n), err
	}
	m, err := parseUint(part)
	return float64(n) + float64(m)/math.Pow10(len(part)), err
}

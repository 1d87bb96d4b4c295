package meter

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// HostSample is one reading of the whole machine. Counters count since it booted.
type HostSample struct {
	At                          time.Time
	CPURatio                    float64 // share of all cores busy since the sample before, 0-1
	Load1                       float64
	MemoryUsed, MemoryAvailable int64 // MemTotal - MemAvailable, and that
	SwapUsed, StorageUsed       int64
	Network                     Flow // of the host's own devices
	Disk                        Flow // of whole disks

	CPUWaiting, MemoryWaiting, MemoryStalled, IOWaiting, IOStalled time.Duration // PSI

	AgentCPU         time.Duration
	AgentMemory      int64 // resident
	AgentGoroutines  int
	AgentDescriptors int
}

// Flow is bytes in (received, read) and out (sent, written).
type Flow struct{ In, Out uint64 }

// HostGiven is what others know of the host and its history keeps. NaN is unknown.
type HostGiven struct {
	VMs           int
	Fragmentation float64
}

// hostProbe reads the machine through kept files.
type hostProbe struct {
	dir                        string // the state directory
	root                       string // "", or what stands for / in tests
	stat, memory, load, status file
	pressure                   [3]file // cpu, memory, io
	network, disks             devices
	noPressure                 error

	busy, total uint64 // of /proc/stat

	mu    sync.Mutex // guards what follows
	given HostGiven
	last  HostSample
}

func newHostProbe(dir, root string) *hostProbe {
	h := &hostProbe{dir: dir, root: root, given: HostGiven{Fragmentation: math.NaN()}}
	h.stat.path, h.memory.path, h.load.path = root+"/proc/stat", root+"/proc/meminfo", root+"/proc/loadavg"
	h.status.path = root + "/proc/self/statm"
	for i, name := range []string{"cpu", "memory", "io"} {
		h.pressure[i].path = root + "/proc/pressure/" + name
	}
	h.network = devices{list: h.ownLinks, read: readLink}
	h.disks = devices{list: h.wholeDisks, read: readDisk}
	return h
}

func (h *hostProbe) close() {
	for _, f := range []*file{&h.stat, &h.memory, &h.load, &h.status, &h.pressure[0], &h.pressure[1], &h.pressure[2]} {
		f.close()
	}
	h.network.close()
	h.disks.close()
}

// sample reads everything. What fails keeps its last value.
func (h *hostProbe) sample(at time.Time) (HostSample, error) {
	s := h.last // only sample writes it
	s.At = at
	err := errors.Join(h.readCPU(&s), h.readMemory(&s), h.readLoad(&s), h.readSelf(&s))
	if h.noPressure == nil {
		h.noPressure = h.readPressure(&s) // not asked again: the kernel is not going to learn it
	}
	var failed [2]error
	s.Network, failed[0] = h.network.sum(at)
	s.Disk, failed[1] = h.disks.sum(at)
	return s, errors.Join(err, failed[0], failed[1])
}

// readCPU reads the first line of /proc/stat: user nice system idle iowait irq
// softirq steal, in ticks. The two of guests that follow are in user and nice.
func (h *hostProbe) readCPU(s *HostSample) error {
	b, err := h.stat.read()
	if err != nil {
		return err
	}
	first, _ := line(b)
	name, rest := word(first)
	var t [8]uint64
	if string(name) != "cpu" || numbers(rest, t[:]) < 4 {
		return fmt.Errorf("parse %s: line %q", h.stat.path, first)
	}
	var total uint64
	for _, v := range t {
		total += v
	}
	busy := total - t[3] - t[4]
	s.CPURatio = share(h.busy, busy, h.total, total)
	h.busy, h.total = busy, total
	return nil
}

// share is the part of the ticks between two readings that was busy; iowait can
// go back (proc(5)).
func share(busyBefore, busy, totalBefore, total uint64) float64 {
	if totalBefore == 0 || total <= totalBefore || busy < busyBefore {
		return 0
	}
	return min(float64(busy-busyBefore)/float64(total-totalBefore), 1)
}

func (h *hostProbe) readMemory(s *HostSample) error {
	b, err := h.memory.read()
	if err != nil {
		return err
	}
	var kib [4]uint64
	for i, key := range [...]string{"MemTotal:", "MemAvailable:", "SwapTotal:", "SwapFree:"} {
		if kib[i], err = after(b, key); err != nil {
			return fmt.Errorf("parse %s: %w", h.memory.path, err)
		}
	}
	s.MemoryUsed, s.MemoryAvailable = int64(kib[0]-min(kib[1], kib[0]))<<10, int64(kib[1])<<10
	s.SwapUsed = int64(kib[2]-min(kib[3], kib[2])) << 10
	return nil
}

func (h *hostProbe) readLoad(s *HostSample) error {
	b, err := h.load.read()
	if err != nil {
		return err
	}
	w, _ := word(b)
	v, err := parseFloat(w)
	if err != nil {
		return fmt.Errorf("parse %s: %q", h.load.path, b)
	}
	s.Load1 = v
	return nil
}

// parseFloat reads a number such as 0.42 without a string of its own.
func parseFloat(b []byte) (float64, error) {
	for i, c := range b {
		if c != '.' {
			continue
		}
		whole, ok1 := number(b[:i])
		part, ok2 := number(b[i+1:])
		if !ok1 || !ok2 {
			return 0, strconv.ErrSyntax
		}
		return float64(whole) + float64(part)/math.Pow10(len(b)-i-1), nil
	}
	n, ok := number(b)
	if !ok {
		return 0, strconv.ErrSyntax
	}
	return float64(n), nil
}

// readPressure reads the totals. The host's own cpu line has no full.
func (h *hostProbe) readPressure(s *HostSample) error {
	var us [3][2]uint64
	for i := range h.pressure {
		b, err := h.pressure[i].read()
		if err != nil {
			return err
		}
		some, rest := line(b)
		if us[i][0], err = after(some, "total="); err != nil {
			return fmt.Errorf("parse %s: %w", h.pressure[i].path, err)
		}
		if i > 0 {
			if us[i][1], err = after(rest, "total="); err != nil {
				return fmt.Errorf("parse %s: %w", h.pressure[i].path, err)
			}
		}
	}
	s.CPUWaiting = max(s.CPUWaiting, fromMicros(us[0][0]))
	s.MemoryWaiting, s.MemoryStalled = max(s.MemoryWaiting, fromMicros(us[1][0])), max(s.MemoryStalled, fromMicros(us[1][1]))
	s.IOWaiting, s.IOStalled = max(s.IOWaiting, fromMicros(us[2][0])), max(s.IOStalled, fromMicros(us[2][1]))
	return nil
}

func fromMicros(n uint64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/1000)) * time.Microsecond
}

// readStorage asks the state directory's file system, which may be slow.
func (h *hostProbe) readStorage(s *HostSample) error {
	var st unix.Statfs_t
	if err := unix.Statfs(h.dir, &st); err != nil {
		return fmt.Errorf("read file system of %s: %w", h.dir, err)
	}
	s.StorageUsed = int64(st.Blocks-min(st.Bfree, st.Blocks)) * st.Frsize
	return nil
}

// readSelf reads what the agent costs.
func (h *hostProbe) readSelf(s *HostSample) error {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return err
	}
	s.AgentCPU = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	b, err := h.status.read()
	if err != nil {
		return err
	}
	var pages [2]uint64
	if numbers(b, pages[:]) < 2 {
		return fmt.Errorf("parse %s: %q", h.status.path, b)
	}
	s.AgentMemory = int64(pages[1]) * int64(os.Getpagesize())
	s.AgentGoroutines = runtime.NumGoroutine()
	return h.readDescriptors(s)
}

// readDescriptors counts open files. Since Linux 6.2 the directory's size says
// how many there are; before, they are counted.
func (h *hostProbe) readDescriptors(s *HostSample) error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/fd", &st); err != nil {
		return fmt.Errorf("read /proc/self/fd: %w", err)
	}
	if st.Size > 0 {
		s.AgentDescriptors = int(st.Size)
		return nil
	}
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	s.AgentDescriptors = max(len(names)-1, 0) // less the directory itself
	return err
}

// values are those of the host's history.
func (s *HostSample) values(before *HostSample, g HostGiven, pressure bool, v *[hostSeries]float64) {
	t := s.At.Sub(before.At).Seconds()
	if before.At.IsZero() {
		t = 0
	}
	grown := func(to, from uint64) float64 { return rate(float64(to-min(from, to)), t) }
	wait := func(to, from time.Duration) float64 {
		if !pressure {
			return math.NaN()
		}
		return min(rate(max(to-from, 0).Seconds(), t), 1)
	}
	v[hostCPU], v[hostMemory] = s.CPURatio, float64(s.MemoryUsed)
	v[hostReceived], v[hostSent] = 8*grown(s.Network.In, before.Network.In), 8*grown(s.Network.Out, before.Network.Out)
	v[hostRead], v[hostWritten] = grown(s.Disk.In, before.Disk.In), grown(s.Disk.Out, before.Disk.Out)
	v[hostCPUPressure], v[hostMemoryPressure], v[hostIOPressure] = wait(s.CPUWaiting, before.CPUWaiting), wait(s.MemoryWaiting, before.MemoryWaiting), wait(s.IOWaiting, before.IOWaiting)
	v[hostAgentCPUs], v[hostAgentMemory] = rate((s.AgentCPU-before.AgentCPU).Seconds(), t), float64(s.AgentMemory)
	v[hostFragmentation], v[hostVMs] = g.Fragmentation, float64(g.VMs)
}

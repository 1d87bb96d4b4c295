// Package host knows what this machine is and has: capacity, use, and whether
// its kernel can do what VMs need.
package host

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/disk"
	gohost "github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
	"golang.org/x/sys/unix"
)

// Facts do not change while the machine runs.
type Facts struct {
	Name, Kernel, OS, BootID string
	BootedAt                 time.Time
	CPUs                     int   // online
	MemoryBytes              int64 // MemTotal
	StorageBytes             int64 // of the state directory's file system
}

// Usage is what the whole machine uses now.
type Usage struct {
	At                   time.Time
	CPURatio             float64 // share of all cores busy since the sample before, 0-1
	Load1                float64
	MemoryUsedBytes      int64 // MemTotal - MemAvailable
	MemoryAvailableBytes int64
	StorageUsedBytes     int64
	AgentCPUSeconds      float64
	AgentMemoryBytes     int64 // resident
}

// A Host reads this machine. It is safe for concurrent use.
type Host struct {
	dir   string
	facts Facts

	mu    sync.Mutex
	last  cpu.TimesStat
	usage Usage
}

// New reads the facts. dir is the state directory.
func New(dir string) (*Host, error) {
	info, err := gohost.Info()
	if err != nil {
		return nil, fmt.Errorf("read host facts: %w", err)
	}
	vm, err := mem.VirtualMemory()
	if err != nil {
		return nil, fmt.Errorf("read host memory: %w", err)
	}
	du, err := disk.Usage(dir)
	if err != nil {
		return nil, fmt.Errorf("read file system of %s: %w", dir, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	return &Host{dir: dir, facts: Facts{
		Name: info.Hostname, Kernel: info.KernelVersion, OS: strings.TrimSpace(info.Platform + " " + info.PlatformVersion),
		BootID: strings.TrimSpace(string(boot)), BootedAt: time.Unix(int64(info.BootTime), 0),
		CPUs: runtime.NumCPU(), MemoryBytes: int64(vm.Total), StorageBytes: int64(du.Total),
	}}, nil
}

// Facts returns what was read at the start.
func (h *Host) Facts() Facts { return h.facts }

// Usage returns the last sample.
func (h *Host) Usage() Usage {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.usage
}

// Sample reads the usage now. The busy share is worked out from our own last
// reading: gopsutil's cpu.Percent(0) shares one hidden sample among all callers.
func (h *Host) Sample(now time.Time) error {
	times, err := cpu.Times(false)
	if err != nil || len(times) != 1 {
		return fmt.Errorf("read /proc/stat: %w", err)
	}
	vm, err := mem.VirtualMemory()
	if err != nil {
		return fmt.Errorf("read /proc/meminfo: %w", err)
	}
	avg, err := load.Avg()
	if err != nil {
		return fmt.Errorf("read /proc/loadavg: %w", err)
	}
	du, err := disk.Usage(h.dir)
	if err != nil {
		return fmt.Errorf("read file system of %s: %w", h.dir, err)
	}
	u := Usage{At: now, Load1: avg.Load1, MemoryUsedBytes: int64(vm.Total - vm.Available),
		MemoryAvailableBytes: int64(vm.Available), StorageUsedBytes: int64(du.Used)}
	u.AgentCPUSeconds, u.AgentMemoryBytes = self()
	h.mu.Lock()
	defer h.mu.Unlock()
	u.CPURatio = busy(h.last, times[0])
	h.last, h.usage = times[0], u
	return nil
}

// busy is the share of time between two readings that no core was idle.
func busy(before, after cpu.TimesStat) float64 {
	total := after.Total() - before.Total()
	idle := after.Idle + after.Iowait - before.Idle - before.Iowait
	if total <= 0 || before.Total() == 0 {
		return 0
	}
	return min(max(1-idle/total, 0), 1)
}

// self is the CPU time and resident memory of this process.
func self() (cpuSeconds float64, resident int64) {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) == nil {
		cpuSeconds = time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds()
	}
	b, err := os.ReadFile("/proc/self/statm")
	if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
		pages, _ := strconv.ParseInt(f[1], 10, 64)
		resident = pages * int64(os.Getpagesize())
	}
	return cpuSeconds, resident
}

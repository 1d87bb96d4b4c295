// Package host knows what this machine is and has.
package host

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"cloudflash/agent/clock"

	"github.com/shirou/gopsutil/v3/disk"
	gohost "github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/mem"
)

// Facts do not change while the machine runs.
type Facts struct {
	Name, Kernel, OS, BootID string
	BootedAt                 time.Time
	CPUs                     int   // online
	MemoryBytes              int64 // MemTotal
	StorageBytes             int64 // of the state directory's file system
}

// A Host knows this machine. It is safe for concurrent use.
type Host struct{ facts Facts }

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
	boot, err := clock.BootID()
	if err != nil {
		return nil, err
	}
	return &Host{facts: Facts{
		Name: info.Hostname, Kernel: info.KernelVersion, OS: strings.TrimSpace(info.Platform + " " + info.PlatformVersion),
		BootID: boot, BootedAt: time.Unix(int64(info.BootTime), 0),
		CPUs: runtime.NumCPU(), MemoryBytes: int64(vm.Total), StorageBytes: int64(du.Total),
	}}, nil
}

// Facts returns what was read at the start.
func (h *Host) Facts() Facts { return h.facts }

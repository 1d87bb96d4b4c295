package gpu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

type clientKey struct {
	pci string
	id  uint64
}

// drmCounters are the clients of one reading.
type drmCounters map[clientKey]drmClient

type drmClient struct {
	client
	pid int
	vm  string
}

// maxFiles bounds the descriptors looked at in one process, lowest first, so
// that one with a million of them does not hold up the sample.
const maxFiles = 4096

// sampleDRM reads the clients of the VMs' processes, and of each unit what the
// driver counts itself.
func (m *Meter) sampleDRM(ctx context.Context, now time.Time, owner Owner) ([]UnitUse, []ProcessUse, error) {
	clients, err := m.readClients(ctx, owner)
	if err != nil {
		return nil, nil, err
	}
	processes := m.processes(clients, now)
	m.last, m.lastAt = clients, now
	var units []UnitUse
	for _, u := range m.drm {
		units = append(units, m.host.drmUse(u, processes))
	}
	slices.SortFunc(units, func(a, b UnitUse) int { return strings.Compare(a.Unit, b.Unit) })
	return units, processes, nil
}

func (m *Meter) readClients(ctx context.Context, owner Owner) (drmCounters, error) {
	names, err := m.host.names("/proc")
	if err != nil {
		return nil, err
	}
	found := drmCounters{}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read clients of GPUs: %w", err)
		}
		pid, err := strconv.Atoi(name)
		if err != nil || pid <= 0 {
			continue
		}
		m.readProcess(pid, owner, found)
	}
	return found, nil
}

// readProcess adds the clients of a process. Its directory is opened before the
// owner is asked: it stays that of the same process when the number is used
// again. One that ends meanwhile has no files any more, which is no error.
func (m *Meter) readProcess(pid int, owner Owner, found drmCounters) {
	dir, err := os.OpenRoot(m.host.path("/proc", strconv.Itoa(pid)))
	if err != nil {
		return
	}
	defer func() { _ = dir.Close() }()
	vm, ok := owner(pid)
	if !ok {
		return
	}
	list, err := dir.Open("fdinfo")
	if err != nil {
		return
	}
	defer list.Close()
	entries, _ := list.ReadDir(maxFiles)
	for _, e := range entries {
		c, ok := readFDInfo(dir, e.Name())
		if _, ours := m.drm[c.pci]; !ok || !ours {
			continue
		}
		key := clientKey{c.pci, c.id}
		if before, twice := found[key]; !twice || pid < before.pid { // shared after a fork
			found[key] = drmClient{c, pid, vm}
		}
	}
}

// readFDInfo reads what the kernel says of a descriptor. The file behind it
// belongs to the VM and is not touched, not even by stat, which could wait for a
// file system for ever.
func readFDInfo(dir *os.Root, fd string) (client, bool) {
	if target, err := dir.Readlink("fd/" + fd); err != nil || !strings.HasPrefix(target, "/") {
		return client{}, false // a socket, pipe or anonymous inode
	}
	f, err := dir.Open("fdinfo/" + fd)
	if err != nil {
		return client{}, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil && !errors.Is(err, io.EOF) {
		return client{}, false
	}
	return parseFDInfo(string(b))
}

// processes adds up the clients of each process on each unit: per class of
// engine, of which the busiest counts.
func (m *Meter) processes(clients drmCounters, now time.Time) []ProcessUse {
	type place struct {
		pid int
		pci string
	}
	use := map[place]*ProcessUse{}
	engines := map[place]map[string]float64{}
	for key, c := range clients {
		at := place{c.pid, key.pci}
		if use[at] == nil {
			use[at] = &ProcessUse{PID: c.pid, VM: c.vm, Unit: m.drm[key.pci].ID, MemoryBytes: new(int64)}
			engines[at] = map[string]float64{}
		}
		*use[at].MemoryBytes = add(*use[at].MemoryBytes, c.device())
		for name, e := range c.engines {
			engines[at][name] += e.ratio(m.last[key].engines[name], float64(now.Sub(m.lastAt)))
		}
	}
	var all []ProcessUse
	for at, p := range use {
		if !m.lastAt.IsZero() {
			p.BusyRatio = busiest(engines[at])
		}
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b ProcessUse) int {
		return 2*(a.PID-b.PID) + strings.Compare(a.Unit, b.Unit)
	})
	return all
}

func busiest(engines map[string]float64) *float64 {
	var ratio float64
	for _, r := range engines {
		ratio = max(ratio, min(r, 1))
	}
	return &ratio
}

// drmUse is amdgpu's own count where there is one. i915 and xe have none: the
// sum over the VMs' processes stands for it, which is all of it as long as the
// unit belongs to a VM.
func (h host) drmUse(u Unit, processes []ProcessUse) UnitUse {
	use := UnitUse{Unit: u.ID}
	device := drmClass + "/" + renderNode(u) + "/device"
	if n, err := strconv.ParseUint(h.text(device, "gpu_busy_percent"), 10, 7); err == nil {
		ratio := min(float64(n)/100, 1)
		use.BusyRatio = &ratio
	}
	if n, err := strconv.ParseUint(h.text(device, "mem_info_vram_used"), 10, 63); err == nil {
		used := int64(n)
		use.MemoryUsedBytes = &used
	}
	if u.Vendor == AMD {
		return use
	}
	use.MemoryUsedBytes = new(int64)
	for _, p := range processes {
		if p.Unit != u.ID {
			continue
		}
		*use.MemoryUsedBytes = add(*use.MemoryUsedBytes, *p.MemoryBytes)
		if p.BusyRatio != nil {
			ratio := *p.BusyRatio
			if use.BusyRatio != nil {
				ratio = min(ratio+*use.BusyRatio, 1)
			}
			use.BusyRatio = &ratio
		}
	}
	return use
}

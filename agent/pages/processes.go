package pages

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/pagemap"
)

// MemoryProcess is what one process of a VM has in memory.
type MemoryProcess struct {
	PID           int             `json:"pid" doc:"On the host"`
	Name          string          `json:"name" doc:"What it calls itself"`
	Scope         string          `json:"scope" doc:"init, or the id of the cloudlet it belongs to"`
	ResidentBytes int64           `json:"resident_bytes"`
	Mappings      []MemoryMapping `json:"mappings,omitempty"`
	Truncated     bool            `json:"truncated,omitempty" doc:"More is mapped than was looked at or is listed"`
}

// MemoryMapping is one mapping of a process. Amounts are pages.
type MemoryMapping struct {
	Start       string `json:"start" doc:"Address, hexadecimal"`
	End         string `json:"end"`
	Permissions string `json:"permissions"`
	Name        string `json:"name" doc:"Of a file, inside the VM, its first 256 bytes; [heap], [stack]; empty for memory without a name"`
	Pages       int64  `json:"pages"`
	Present     int64  `json:"present"`
	Swapped     int64  `json:"swapped"`
	Exclusive   int64  `json:"exclusive" doc:"Of the present, those that no other process maps"`
	Runs        int64  `json:"runs" doc:"Runs of adjacent page frames"`
	LargestRun  int64  `json:"largest_run"`
	HugePages   int64  `json:"huge_pages" doc:"Pages in runs at least as long as a huge page"`
}

const (
	// maxMappings is how many mappings an answer holds, those with the most pages
	// in memory.
	maxMappings = 2000
	// lookWait is how long a look at a process waits for another.
	lookWait = 5 * time.Second
)

// Processes lists the processes of a VM, the largest first.
func (p *Pages) Processes(ref string) ([]MemoryProcess, error) {
	v := p.cfg.State.View().FindVM(ref)
	if v == nil {
		return nil, state.NoVM(ref)
	}
	all := []MemoryProcess{}
	for _, pid := range p.pidsOf(v.ID) {
		out, proc, err := openProcess(v.ID, pid)
		if err != nil {
			continue // it has ended
		}
		_ = proc.Close() // an O_PATH descriptor: nothing can be lost
		all = append(all, out)
	}
	slices.SortFunc(all, func(x, y MemoryProcess) int {
		return cmp.Or(cmp.Compare(y.ResidentBytes, x.ResidentBytes), cmp.Compare(x.PID, y.PID))
	})
	return all, nil
}

// openProcess looks at a process, provided it belongs to the VM. The caller closes
// what is open of it.
func openProcess(vmID string, pid int) (MemoryProcess, *pagemap.Process, error) {
	p, err := pagemap.FS("/").OpenProcess(pid)
	if err != nil {
		return MemoryProcess{}, nil, err
	}
	// The directory is that of one process: who is in the VM now was not another
	// when it was opened.
	scope, err := scopeOf(p, vmID)
	out := MemoryProcess{PID: pid, Scope: scope, ResidentBytes: residentBytes(p)}
	if err == nil {
		out.Name, err = p.Name()
	}
	if err != nil {
		return out, nil, errors.Join(err, p.Close())
	}
	return out, p, nil
}

// scopeOf tells in which scope of the VM a process is.
func scopeOf(p *pagemap.Process, vmID string) (string, error) {
	path, err := p.Cgroup()
	if err != nil {
		return "", err
	}
	// The path may be relative to the agent's own cgroup namespace, so that only
	// its end is compared: nobody but the agent makes cgroups with a VM's id.
	i := strings.LastIndex(path, "/vms/"+vmID+"/")
	if i < 0 {
		return "", pagemap.ErrGone
	}
	scope, _, _ := strings.Cut(path[i+len("/vms/"+vmID+"/"):], "/")
	return strings.TrimPrefix(filepath.Base(scope), "cl-"), nil
}

// Mappings looks at every mapping of one process of a VM, page by page. pid
// is its id on the host. One look at a time: processes choose how much work they
// are. Whoever has waited for too long is refused with fault.ErrNotYet, as is who has
// gone when ctx ends.
func (p *Pages) Mappings(ctx context.Context, ref string, pid int) (MemoryProcess, error) {
	v := p.cfg.State.View().FindVM(ref)
	if v == nil {
		return MemoryProcess{}, state.NoVM(ref)
	}
	absent := fault.Refuse(fault.ErrNotFound, "process_not_found", "", "process %d of VM %s not found", pid, fault.Quote(ref))
	if pid <= 0 {
		return MemoryProcess{}, absent
	}
	if err := p.beginLook(ctx); err != nil {
		return MemoryProcess{}, err
	}
	defer p.endLook()
	out, err := mappingsOf(ctx, v.ID, pid)
	switch {
	case errors.Is(err, pagemap.ErrGone):
		return out, absent
	case ctx.Err() != nil:
		return out, lookEnded()
	}
	return out, err
}

func (p *Pages) beginLook(ctx context.Context) error {
	wait := time.NewTimer(lookWait)
	defer wait.Stop()
	select {
	case p.looking <- struct{}{}:
		return nil
	case <-ctx.Done():
		return lookEnded()
	case <-wait.C:
		return fault.Refuse(fault.ErrNotYet, "busy", "try again in a moment",
			"the mappings of another process are being looked at, which takes long")
	}
}

func (p *Pages) endLook() { <-p.looking }

func lookEnded() error {
	return fault.Refuse(fault.ErrNotYet, "request_ended", "", "the request ended before the mappings had been looked at")
}

func mappingsOf(ctx context.Context, vmID string, pid int) (MemoryProcess, error) {
	out, p, err := openProcess(vmID, pid)
	if err != nil {
		return out, err
	}
	defer func() { _ = p.Close() }() // an O_PATH descriptor: nothing can be lost
	order := pagemap.FS("/").HugeOrder(os.Getpagesize())
	found, truncated, err := p.Mappings(ctx, os.Getpagesize(), order, maxMappings)
	if err != nil {
		return out, err
	}
	out.Truncated = truncated
	out.Mappings = viewMappings(found)
	return out, nil
}

func viewMappings(found []pagemap.Mapping) []MemoryMapping {
	all := make([]MemoryMapping, 0, len(found))
	for _, m := range found {
		all = append(all, MemoryMapping{Start: fmt.Sprintf("%x", m.Start), End: fmt.Sprintf("%x", m.End), Permissions: m.Permissions, Name: m.Name,
			Pages: int64(m.Pages), Present: int64(m.Present), Swapped: int64(m.Swapped), Exclusive: int64(m.Exclusive),
			Runs: int64(m.Runs), LargestRun: int64(m.LargestRun), HugePages: int64(m.InHugeRuns)})
	}
	return all
}

package pages

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"cloudflash/pagemap"

	"golang.org/x/sys/unix"
)

// owners is the table of cgroups and their owners: the slice of a VM and
// what is below it are the VM's. The kernel reports what is left of a deleted
// cgroup as its nearest living ancestor's: of a VM's, that is the directory of all
// slices.
func (p *Pages) owners() map[uint64]string {
	table := map[uint64]string{}
	vms := filepath.Join(p.cfg.Parent.Dir(), "vms")
	put(table, vms, OwnerDeleted)
	ids, err := p.cfg.Parent.Slices()
	if err != nil {
		return table
	}
	for _, id := range ids {
		put(table, filepath.Join(vms, id), id)
		scopes, err := p.cfg.Parent.Slice(id).Scopes()
		if err != nil {
			continue // it was deleted meanwhile
		}
		for _, scope := range scopes {
			put(table, filepath.Join(vms, id, scope), id)
		}
	}
	return table
}

func put(table map[uint64]string, dir, owner string) {
	var st unix.Stat_t
	if unix.Lstat(dir, &st) == nil {
		table[st.Ino] = owner
	}
}

// Owners lists who has pages: VMs by id, then what deleted ones left, then
// the host.
func (p *Pages) Owners() ([]MemoryOwner, time.Time, error) {
	s := p.scanner
	if s == nil {
		return nil, time.Time{}, unsupported(p.scannerErr)
	}
	s.Look()
	now := time.Now().UTC()
	found, err := s.Owners()
	if errors.Is(err, pagemap.ErrEmpty) {
		return nil, now, notYet("no page has been scanned yet")
	}
	if err != nil {
		return nil, now, err
	}
	whole := s.Status().Passes > 0
	byOwner := map[string]pagemap.OwnerStats{}
	view := p.cfg.State.View()
	names := namesIn(view)
	for _, o := range found {
		owner := ownerNow(names, o.Owner)
		sum, seen := byOwner[owner]
		if seen {
			o.Pages += sum.Pages
		}
		o.Owner = owner
		byOwner[owner] = o
	}
	all := []MemoryOwner{}
	for v := range view.VMs() {
		o := viewOwner(byOwner[v.ID], os.Getpagesize(), whole)
		o.Owner, o.Name = v.ID, v.Name
		p.account(&o)
		all = append(all, o)
	}
	for _, owner := range []string{OwnerDeleted, OwnerHost} {
		o := viewOwner(byOwner[owner], os.Getpagesize(), whole && owner == OwnerDeleted)
		o.Owner, o.Name = owner, owner
		all = append(all, o)
	}
	return all, now, nil
}

func viewOwner(o pagemap.OwnerStats, pageSize int, whole bool) MemoryOwner {
	out := MemoryOwner{Pages: int64(o.Pages), Bytes: int64(o.Pages) * int64(pageSize), Runs: []MemoryRun{}}
	for _, r := range o.Runs {
		out.Runs = append(out.Runs, MemoryRun{PagesLog2: r.Log2, Count: int64(r.Count), Pages: int64(r.Pages)})
	}
	if whole && o.PassPages > 0 {
		huge, scatter := o.HugeRatio(), o.ScatterRatio()
		out.HugeRatio, out.ScatterRatio = &huge, &scatter
	}
	return out
}

// account compares a VM's pages with what its slice is charged for.
func (p *Pages) account(o *MemoryOwner) {
	slice := p.cfg.Parent.Slice(o.Owner)
	r, err := slice.OpenReader()
	if err != nil {
		return // it was deleted meanwhile
	}
	defer r.Close()
	if o.MemoryBytes, err = r.MemoryCurrent(); err != nil {
		return
	}
	if st, err := r.MemoryStat(); err == nil {
		o.UnmappedBytes = int64(st.Slab + st.Sock)
	}
	o.ResidualBytes = o.MemoryBytes - o.Bytes - o.UnmappedBytes
	for _, pid := range p.pidsOf(o.Owner) {
		if proc, err := pagemap.FS("/").OpenProcess(pid); err == nil { // else it has ended
			o.ResidentBytes += residentBytes(proc)
			_ = proc.Close() // an O_PATH descriptor: nothing can be lost
		}
	}
}

// pidsOf lists the processes of a VM, by their ids on the host.
func (p *Pages) pidsOf(vmID string) []int {
	slice := p.cfg.Parent.Slice(vmID)
	scopes, err := slice.Scopes()
	if err != nil {
		return nil
	}
	var all []int
	for _, name := range scopes {
		if pids, err := slice.Scope(name).PIDs(); err == nil {
			all = append(all, pids...)
		}
	}
	return all
}

// residentBytes is the resident set of a process, 0 when it is gone.
func residentBytes(p *pagemap.Process) int64 {
	pages, err := p.Resident()
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

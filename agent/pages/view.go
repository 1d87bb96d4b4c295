package pages

import (
	"errors"
	"os"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/pagemap"
)

// viewMemory is how the world sees the numbers.
func (p *Pages) viewMemory(t pagemap.Totals, at time.Time) *Memory {
	size := int64(t.PageSize)
	m := &Memory{
		At: at.UTC(), PageSize: t.PageSize, HugeOrder: t.HugeOrder, HugeBlockBytes: size << t.HugeOrder,
		SpanPages: int64(t.Span), TotalPages: int64(t.Total), TotalBytes: int64(t.Total) * size,
		FreePages: int64(t.Free), FreeBytes: int64(t.Free) * size, UsedPages: int64(t.Used), UsedBytes: int64(t.Used) * size,
		FragmentedPages: int64(t.Fragmented), AbsentPages: int64(t.Absent), UninitialisedPages: int64(t.Uninitialised),
		ReservedPages: int64(t.Reserved), ResidualPages: t.Residual,
		MemTotalBytes: int64(t.Meminfo.Total), MemFreeBytes: int64(t.Meminfo.Free), FreeHugeBlocks: int64(t.HugeBlocks),
	}
	if t.HasFree {
		m.FragmentationRatio = &t.Fragmentation
	}
	for _, z := range t.Zones {
		m.Zones = append(m.Zones, viewZone(z))
	}
	if t.Worst >= 0 {
		z := t.Zones[t.Worst]
		ratio, _ := z.FreeList.Unusable(t.HugeOrder)
		m.WorstZone = &WorstZone{Node: z.Node, Zone: z.Name, FragmentationRatio: ratio}
	}
	last := p.Last()
	if last != nil && last.Map != nil && at.Sub(p.mapped) < mapEvery {
		m.Map = last.Map
	}
	p.viewScan(m, at)
	return m
}

// mapEvery is how often the sums over all owners are made.
const mapEvery = 5 * time.Second

// readScan publishes the newest of the scan without waiting for the next second.
func (p *Pages) readScan() {
	p.view.Lock()
	defer p.view.Unlock()
	last := p.Last()
	if last == nil {
		return
	}
	m := *last
	m.Map = nil
	p.viewScan(&m, time.Now())
	p.current.Store(&m)
}

func viewZone(z pagemap.ZoneTotals) MemoryZone {
	out := MemoryZone{Node: z.Node, Zone: z.Name, FreePages: int64(z.FreeList.FreeFrom(0)), PresentPages: int64(z.Present), ManagedPages: int64(z.Managed)}
	for order, n := range z.FreeList.Blocks {
		out.FreeBlocks = append(out.FreeBlocks, int64(n))
		if ratio, ok := z.FreeList.Unusable(order); ok {
			out.UnusableFreeRatio = append(out.UnusableFreeRatio, ratio)
		}
	}
	return out
}

// viewScan fills in what the scan knows.
func (p *Pages) viewScan(m *Memory, now time.Time) {
	s := p.scanner
	if s == nil {
		m.Scan = MemoryScan{State: "unavailable", Reason: p.scannerErr.Error()}
		if p.off {
			m.Scan.State = "off"
		}
		return
	}
	st := s.Status()
	m.Scan = MemoryScan{State: st.State, Reason: st.Reason, PagesScanned: int64(min(st.Scanned, st.Pages)), Pages: int64(st.Pages),
		StartedAt: stamp(st.Started), FinishedAt: stamp(st.Finished), CPURatio: st.CPURatio, BudgetRatio: p.cfg.Budget,
		CPUSeconds: st.CPU.Seconds(), Passes: int64(st.Passes)}
	if !st.Finished.IsZero() {
		age := max(now.Sub(st.Finished).Seconds(), 0)
		m.Scan.AgeSeconds = &age
	}
	if st.State == pagemap.StateFull {
		m.Scan.Full = &MemoryFullScan{ID: st.FullID, Progress: min(st.FullProgress, 1)}
	}
	if m.Map == nil {
		m.Map = p.viewMapTotals(s, st)
		p.mapped = now
	}
	m.CompactableRatio = nil
	if st.Passes > 0 && st.Map.Blocks > 0 {
		ratio := float64(st.Map.MovableBlocks) / float64(st.Map.Blocks)
		m.CompactableRatio = &ratio
	}
}

func (p *Pages) viewMapTotals(s *pagemap.Scanner, st pagemap.Status) *MemoryMapTotal {
	owners, err := s.Owners()
	if err != nil {
		return nil
	}
	t := st.Map
	out := &MemoryMapTotal{ScannedPages: int64(t.Scanned), FreePages: int64(t.Free), FragmentedPages: int64(t.Fragmented),
		UsedPages: int64(t.Used), UnmovablePages: int64(t.Unmovable), AbsentPages: int64(t.Absent),
		UninitialisedPages: int64(t.Uninitialised), Blocks: int64(t.Blocks), MovableBlocks: int64(t.MovableBlocks), Owners: map[string]int64{},
		HugeRatios: map[string]float64{}, ScatterRatios: map[string]float64{}}
	out.Classes = map[string]int64{} // empty before the first whole pass
	for class, n := range st.Classes {
		out.Classes[class.String()] = int64(n)
	}
	names := namesIn(p.cfg.State.View())
	for _, o := range owners {
		owner := ownerNow(names, o.Owner)
		out.Owners[owner] += int64(o.Pages)
		if _, ok := names[owner]; ok && o.PassPages > 0 {
			out.HugeRatios[owner], out.ScatterRatios[owner] = o.HugeRatio(), o.ScatterRatio()
		}
	}
	return out
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// namesIn are the names of all VMs by their id.
func namesIn(s state.View) map[string]string {
	names := map[string]string{}
	for r := range s.VMs() {
		names[r.ID] = r.Name
	}
	return names
}

// ownerNow is the owner as of now: pages that were a VM's when they were scanned
// are leftovers once the VM is gone.
func ownerNow(names map[string]string, owner string) string {
	if _, ok := names[owner]; ok || owner == OwnerHost {
		return owner
	}
	return OwnerDeleted
}

// Map draws span page frames from the one numbered from on, as at most cells
// cells. A span of 0 is everything from there on. owner is a VM, by id or name,
// host or deleted, whose pages are counted apart; empty for none.
func (p *Pages) Map(from, span int64, cells int, owner string) (MemoryMap, error) {
	s := p.scanner
	if s == nil {
		return MemoryMap{}, unsupported(p.scannerErr)
	}
	all := int64(s.Span())
	var f fault.List
	fault.Within(&f, "?cells", cells, 1, pagemap.MaxCells)
	fault.Within(&f, "?from", from, 0, all-1)
	if span == 0 && from < all {
		span = all - from
	}
	if from >= 0 && from < all {
		fault.Within(&f, "?span", span, 1, all-from)
	}
	if err := f.Err("out_of_range"); err != nil {
		return MemoryMap{}, err
	}
	if owner != "" && owner != OwnerHost && owner != OwnerDeleted {
		v := p.cfg.State.View().FindVM(owner)
		if v == nil {
			return MemoryMap{}, state.NoVM(owner)
		}
		owner = v.ID
	}
	now := time.Now()
	picture, err := s.Map(uint64(from), uint64(span), cells, owner)
	if errors.Is(err, pagemap.ErrEmpty) {
		return MemoryMap{}, notYet("no page has been scanned yet")
	}
	if err != nil {
		return MemoryMap{}, err
	}
	return p.viewPicture(picture, owner, now), nil
}

func (p *Pages) viewPicture(of pagemap.Picture, owner string, now time.Time) MemoryMap {
	m := MemoryMap{At: now.UTC(), PageSize: os.Getpagesize(), From: int64(of.From), Span: int64(of.Span), PagesPerCell: int64(of.PagesPerCell),
		Owner: owner, Cells: make([]MemoryCell, len(of.Cells))}
	names := namesIn(p.cfg.State.View())
	for i, c := range of.Cells {
		out := MemoryCell{First: int64(c.First), Free: int64(c.Free), Used: int64(c.Used), Fragmented: int64(c.Fragmented),
			Absent: int64(c.Absent), Uninitialised: int64(c.Uninitialised), Unknown: int64(c.Unknown), Unmovable: int64(c.Unmovable),
			LargestFreeRun: int64(c.LargestFreeRun), Owned: int64(c.Owned), Node: c.Node, AgeSeconds: c.Age.Seconds(),
			Owners: make([]MemoryShare, 0, len(c.Owners))}
		for _, o := range c.Owners {
			out.Owners = append(out.Owners, MemoryShare{ownerNow(names, o.Owner), int64(o.Pages)})
		}
		m.Cells[i] = out
	}
	return m
}

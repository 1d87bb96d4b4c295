package pagemap

// Totals are the pages of the host at one moment, by the kernel's own counters.
//
//	Total = Used + Free + Uninitialised, and Fragmented is a part of Free.
type Totals struct {
	PageSize  int
	HugeOrder int

	Span          uint64 // page frames up to the last with memory, holes included
	Total         uint64 // frames with online memory
	Absent        uint64 // Span - Total
	Free          uint64 // in free lists of the buddy allocator
	Fragmented    uint64 // of Free, in blocks too small for a huge page
	Uninitialised uint64 // in MemTotal, but not yet given to the allocator
	Used          uint64 // the rest; pages on per-CPU free lists are in it
	Reserved      uint64 // of Used, what the kernel kept at boot: not in MemTotal
	Managed       uint64 // what the allocator was given
	// Residual is MemFree less Free and Uninitialised: what changed between two
	// reads, and what this package does not understand.
	Residual int64

	Meminfo       Meminfo
	HugeBlocks    uint64 // huge pages that could be had now
	Fragmentation float64
	HasFree       bool // else there is no Fragmentation
	Worst         int  // index of the worst of Zones, -1 when nothing is free
	Zones         []ZoneTotals
}

// ZoneTotals is one zone that has memory.
type ZoneTotals struct {
	Zone
	FreeList FreeList
}

// Read reads the counters now. It takes some 40 µs.
func (c *Counters) Read() (Totals, error) {
	lists, zones, info, err := c.read()
	if err != nil {
		return Totals{}, err
	}
	return total(lists, zones, info, c.ram, c.pageSize, c.order), nil
}

func (c *Counters) read() (lists []FreeList, zones []Zone, info Meminfo, err error) {
	// The two that are compared with each other are read back to back.
	if c.buf, err = c.zones.read(c.buf); err != nil {
		return nil, nil, info, err
	}
	if zones, err = parseZoneinfo(c.buf); err != nil {
		return nil, nil, info, err
	}
	if c.buf, err = c.buddy.read(c.buf); err != nil {
		return nil, nil, info, err
	}
	if lists, err = parseBuddyinfo(c.buf); err != nil {
		return nil, nil, info, err
	}
	if c.buf, err = c.meminfo.read(c.buf); err != nil {
		return nil, nil, info, err
	}
	info, err = parseMeminfo(c.buf)
	return lists, zones, info, err
}

// total does the arithmetic.
func total(lists []FreeList, zones []Zone, info Meminfo, ram []Range, pageSize, order int) Totals {
	size := uint64(pageSize)
	t := Totals{PageSize: pageSize, HugeOrder: order, Total: pagesOf(ram), Meminfo: info, Worst: -1}
	if n := len(ram); n > 0 {
		t.Span = ram[n-1].End
	}
	t.Absent = t.Span - t.Total
	for _, z := range zones {
		t.Managed += z.Managed
		if z.Present > 0 {
			t.Zones = append(t.Zones, ZoneTotals{Zone: z, FreeList: freeListOf(lists, z)})
		}
	}
	worst := -1.0
	for i, z := range t.Zones {
		t.Free += z.FreeList.FreeFrom(0)
		t.HugeBlocks += z.FreeList.BlocksFrom(order)
		t.Fragmented += z.FreeList.FreeFrom(0) - z.FreeList.FreeFrom(order)
		if u, ok := z.FreeList.Unusable(order); ok && u > worst {
			worst, t.Worst = u, i
		}
	}
	if t.Fragmentation, t.HasFree = unusable(t.Free, t.Free-t.Fragmented); !t.HasFree {
		t.Worst = -1
	}
	// A kernel that initialises memory late counts it in MemTotal from the start.
	// Elsewhere the two are equal, but for rounding and a race with a balloon.
	// Memory not yet accepted from a hypervisor is managed, but in no free list.
	late := info.Total/size - min(info.Total/size, t.Managed) + info.Unaccepted/size
	t.Uninitialised = min(late, t.Total-min(t.Total, t.Free))
	t.Reserved = t.Total - min(t.Total, t.Managed+t.Uninitialised)
	t.Used = t.Total - min(t.Total, t.Free+t.Uninitialised)
	t.Residual = int64(info.Free/size) - int64(t.Free) - int64(t.Uninitialised)
	return t
}

func freeListOf(lists []FreeList, z Zone) FreeList {
	for _, l := range lists {
		if l.Node == z.Node && l.Zone == z.Name {
			return l
		}
	}
	return FreeList{Node: z.Node, Zone: z.Name}
}

// untouched is where there may be memory that was never initialised: the kernel
// leaves it out by sections, of 128 MiB with pages of 4 KiB.
func (t Totals) untouched() []Range {
	if t.Uninitialised == 0 {
		return nil
	}
	var all []Range
	for _, z := range t.Zones {
		if (z.Present-min(z.Present, z.Managed))*uint64(t.PageSize) >= 128<<20 {
			all = append(all, Range{z.Start, z.Start + z.Spanned})
		}
	}
	return all
}

// NodeOf is the NUMA node whose zone spans the frame, -1 when none does.
func (t Totals) NodeOf(frame uint64) int {
	for _, z := range t.Zones {
		if z.contains(frame) {
			return z.Node
		}
	}
	return -1
}

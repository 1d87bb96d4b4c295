package pagemap

// Bits of /proc/kpageflags; include/uapi/linux/kernel-page-flags.h, and RESERVED
// of include/linux/kernel-page-flags.h.
const (
	flagLRU      = 1 << 5
	flagSlab     = 1 << 7
	flagBuddy    = 1 << 10
	flagMmap     = 1 << 11
	flagAnon     = 1 << 12
	flagHead     = 1 << 15
	flagTail     = 1 << 16
	flagHuge     = 1 << 17
	flagHWPoison = 1 << 19
	flagNoPage   = 1 << 20
	flagTHP      = 1 << 22 // a folio of any size that is on the LRU, not only a huge one
	flagOffline  = 1 << 23 // given back to the hypervisor, say
	flagZero     = 1 << 24
	flagPgtable  = 1 << 26
	flagReserved = 1 << 32
)

// Class is what a page frame is used for.
type Class uint8

// The classes. Those from Slab on cannot be moved by compaction.
const (
	Absent Class = iota
	Uninitialised
	Free
	Anon    // of processes
	File    // page cache, shared memory
	Hugetlb // reserved huge pages
	Slab
	PageTable
	Reserved // at boot
	Kernel   // anything else: stacks, modules, drivers, per-CPU free lists
	Offline
	Poisoned
	classes
)

// String is the name of the class in JSON and metrics.
func (c Class) String() string {
	names := [classes]string{"absent", "uninitialised", "free", "anon", "file", "hugetlb", "slab", "page_table", "reserved", "kernel", "offline", "poisoned"}
	if c < classes {
		return names[c]
	}
	return "unknown"
}

// Unmovable reports whether compaction must leave the page where it is.
func (c Class) Unmovable() bool { return c >= Slab }

// classify classes a page that has memory by its own flags.
func classify(flags uint64) Class {
	switch {
	case flags&(flagNoPage|flagHWPoison|flagOffline) != 0:
		switch {
		case flags&flagNoPage != 0:
			return Absent
		case flags&flagHWPoison != 0:
			return Poisoned
		}
		return Offline
	case flags&flagBuddy != 0:
		return Free
	case flags&flagHuge != 0:
		return Hugetlb
	case flags&flagSlab != 0:
		return Slab
	case flags&flagPgtable != 0:
		return PageTable
	case flags&flagReserved != 0:
		return Reserved
	case flags&flagAnon != 0:
		return Anon
	case flags&(flagLRU|flagMmap|flagTHP) != 0:
		return File
	}
	return Kernel
}

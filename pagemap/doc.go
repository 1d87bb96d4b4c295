// Package pagemap tells what every page frame of the host is used for: free,
// used and whose, fragmented, absent, not yet initialised.
//
// Counters reads the kernel's own sums (buddyinfo, zoneinfo, meminfo, iomem) in
// some 40 µs. A Scanner walks /proc/kpageflags and /proc/kpagecgroup in address
// order under a CPU budget and keeps a Map: 32 bytes for each block of the huge
// page size. Whoever wants single pages has the window read anew.
//
// It is not a profiler: nothing is known of what is hot, and it never clears
// referenced bits. It never reads /proc/pagetypeinfo either, which walks the
// free lists with interrupts off.
//
// Kernels differ, and the package lives by what was seen on 6.1, 6.12 and 6.18:
//   - Holes read as KPF_NOPAGE, or, since the files were rewritten in 2025, as 0.
//     Holes are taken from /proc/iomem.
//   - Memory that the kernel has not initialised yet reads as 0 as well, and is
//     counted in MemTotal but in no zone's managed pages.
//   - Before 6.7 or so the tail pages of a compound page have no owner and no LRU
//     flag of their own: tails take both from their head.
//   - Slab pages have no owner even when they are charged to one.
//   - A deleted cgroup's pages are reported as its nearest living ancestor's.
//
// https://docs.kernel.org/admin-guide/mm/pagemap.html
package pagemap

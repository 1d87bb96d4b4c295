package metrics

import (
	"maps"
	"slices"
	"strconv"

	"cloudflash/agent/pages"
)

// memoryFamilies are what the page frames of the host are used for. What single
// pages are comes from the rolling scan and is as old as page_scan_age_seconds.
var memoryFamilies = []family[pages.Memory]{
	gauge("host_page_size_bytes", "Bytes of a page.", func(m *pages.Memory) float64 { return float64(m.PageSize) }),
	gauge("host_memory_pages", "Page frames with memory, System RAM of /proc/iomem.",
		func(m *pages.Memory) float64 { return float64(m.TotalPages) }),
	split(gauge("host_pages", "Those by state: free in /proc/buddyinfo, uninitialised by /proc/zoneinfo (present less managed), used is the rest.", none[pages.Memory]), "state",
		value[pages.Memory]{"free", func(m *pages.Memory) float64 { return float64(m.FreePages) }},
		value[pages.Memory]{"used", func(m *pages.Memory) float64 { return float64(m.UsedPages) }},
		value[pages.Memory]{"uninitialised", func(m *pages.Memory) float64 { return float64(m.UninitialisedPages) }}),
	gauge("host_fragmented_pages", "Free pages in blocks smaller than a huge page, /proc/buddyinfo.",
		func(m *pages.Memory) float64 { return float64(m.FragmentedPages) }),
	gauge("host_absent_pages", "Page frames below the last with memory that have none, /proc/iomem.",
		func(m *pages.Memory) float64 { return float64(m.AbsentPages) }),
	gauge("host_reserved_pages", "Used pages that the kernel kept at boot and that are not in MemTotal, /proc/iomem less /proc/meminfo.", func(m *pages.Memory) float64 { return float64(m.ReservedPages) }),
	gauge("host_residual_pages", "MemFree less free and uninitialised pages: what the kernel's counters leave unexplained.", func(m *pages.Memory) float64 { return float64(m.ResidualPages) }),
	gauge("host_fragmentation_ratio", "Share of the free pages in blocks smaller than a huge page: the kernel's unusable free space index, over all zones of /proc/buddyinfo.", func(m *pages.Memory) float64 { return optional(m.FragmentationRatio) }),
	rows(gaugeKind, "host_unusable_free_ratio",
		"Share of a zone's free pages in blocks of less than 2^order pages, /proc/buddyinfo.", func(m *pages.Memory,
			row func(string, float64)) {
			eachZone(m, func(l string, z *pages.MemoryZone) {
				for _, order := range shownOrders(len(z.UnusableFreeRatio), m.HugeOrder) {
					row(l+`,order="`+strconv.Itoa(order)+`"`, z.UnusableFreeRatio[order])
				}
			})
		}),
	rows(gaugeKind, "host_free_blocks", "Free blocks of 2^order pages, /proc/buddyinfo.", func(m *pages.Memory, row func(string, float64)) {
		eachZone(m, func(l string, z *pages.MemoryZone) {
			for order, n := range z.FreeBlocks {
				row(l+`,order="`+strconv.Itoa(order)+`"`, float64(n))
			}
		})
	}),
	gauge("host_free_huge_blocks", "Huge pages that could be had now, /proc/buddyinfo.",
		func(m *pages.Memory) float64 { return float64(m.FreeHugeBlocks) }),
	gauge("host_huge_block_bytes", "Size of a huge page.", func(m *pages.Memory) float64 { return float64(m.HugeBlockBytes) }),
	rows(gaugeKind, "host_huge_blocks", "Blocks of the size of a huge page by whether a page in them is unmovable, by the scan of /proc/kpageflags.", func(m *pages.Memory, row func(string, float64)) {
		if m.Map != nil {
			row(`state="movable"`, float64(m.Map.MovableBlocks))
			row(`state="unmovable"`, float64(m.Map.Blocks-m.Map.MovableBlocks))
		}
	}),
	gauge("host_compactable_ratio", "Share of the blocks of a huge page's size without unmovable pages, by the scan of /proc/kpageflags.", func(m *pages.Memory) float64 { return optional(m.CompactableRatio) }),
	rows(gaugeKind, "host_class_pages", "Pages by what they are, in the last whole pass over /proc/kpageflags.",
		func(m *pages.Memory, row func(string, float64)) {
			if m.Map != nil {
				for _, class := range slices.Sorted(maps.Keys(m.Map.Classes)) {
					row(label("class", class), float64(m.Map.Classes[class]))
				}
			}
		}),
	gauge("host_own_pages", "Used pages that no VM is charged for, by the scan of /proc/kpagecgroup.",
		func(m *pages.Memory) float64 { return owned(m, pages.OwnerHost) }),
	gauge("leftover_pages", "Pages still charged to deleted VMs, mostly page cache, by the scan of /proc/kpagecgroup.", func(m *pages.Memory) float64 { return owned(m, pages.OwnerDeleted) }),

	gauge("page_scan_age_seconds", "How long ago the last whole pass over the pages ended.",
		func(m *pages.Memory) float64 { return optional(m.Scan.AgeSeconds) }),
	gauge("page_scan_scanned_pages", "Pages that the pass under way, or the last, has gone through.",
		func(m *pages.Memory) float64 { return float64(m.Scan.PagesScanned) }),
	gauge("page_scan_span_pages", "Pages that a pass has to go through.", func(m *pages.Memory) float64 { return float64(m.Scan.Pages) }),
	gauge("page_scan_budget_cores", "Cores that the scan may take.", func(m *pages.Memory) float64 { return m.Scan.BudgetRatio }),
	counter("page_scan_cpu_seconds_total", "CPU time of the scan since the agent began.",
		func(m *pages.Memory) float64 { return m.Scan.CPUSeconds }),
	counter("page_scan_passes_total", "Whole passes since the agent began.", func(m *pages.Memory) float64 { return float64(m.Scan.Passes) }),
}

func eachZone(m *pages.Memory, do func(labels string, z *pages.MemoryZone)) {
	for i := range m.Zones {
		z := &m.Zones[i]
		do(label("numa_node", strconv.Itoa(z.Node))+","+label("mem_zone", z.Zone), z)
	}
}

// shownOrders are those that tell something: of the kernel's costly allocations,
// of a huge page, and the largest.
func shownOrders(n, huge int) []int {
	const costly = 3 // PAGE_ALLOC_COSTLY_ORDER
	var orders []int
	for _, order := range []int{costly, huge, n - 1} {
		if order > 0 && order < n && !slices.Contains(orders, order) {
			orders = append(orders, order)
		}
	}
	return orders
}

// owned is how many pages an owner has, absent before the first scan.
func owned(m *pages.Memory, owner string) float64 {
	if m.Map == nil {
		return absent
	}
	return float64(m.Map.Owners[owner])
}

// share is the part of the map that is a VM's.
type share struct {
	vm string
	of *pages.Memory
}

var shareFamilies = []family[share]{
	gauge("vm_pages", "Pages charged to the VM, by the scan of /proc/kpagecgroup; slab and socket buffers are not in it.", func(s *share) float64 { return owned(s.of, s.vm) }),
}

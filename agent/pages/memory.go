package pages

import "time"

// Memory is what the page frames of the host are used for now. Amounts are pages
// but where the name says bytes.
//
//	total_pages = free + used + uninitialised, and fragmented is a part of free
//	span_pages  = total + absent
type Memory struct {
	At                 time.Time       `json:"at"`
	PageSize           int             `json:"page_size" doc:"Bytes of a page"`
	SpanPages          int64           `json:"span_pages" doc:"Page frames of the map: up to the last with memory, holes included"`
	TotalPages         int64           `json:"total_pages" doc:"Page frames with memory, by /proc/iomem"`
	TotalBytes         int64           `json:"total_bytes"`
	FreePages          int64           `json:"free_pages" doc:"In the free lists of /proc/buddyinfo"`
	FreeBytes          int64           `json:"free_bytes"`
	UsedPages          int64           `json:"used_pages" doc:"total - free - uninitialised; what lies on per-CPU free lists is in it"`
	UsedBytes          int64           `json:"used_bytes"`
	FragmentedPages    int64           `json:"fragmented_pages" doc:"Of the free, those in blocks smaller than a huge page"`
	AbsentPages        int64           `json:"absent_pages" doc:"Page frames below the last with memory that have none"`
	UninitialisedPages int64           `json:"uninitialised_pages" doc:"In MemTotal, but not yet given to the allocator"`
	ReservedPages      int64           `json:"reserved_pages" doc:"Of the used, what the kernel kept at boot: it is not in MemTotal"`
	ResidualPages      int64           `json:"residual_pages" doc:"MemFree - free - uninitialised: what the counters leave unexplained"`
	MemTotalBytes      int64           `json:"mem_total_bytes"`
	MemFreeBytes       int64           `json:"mem_free_bytes"`
	HugeOrder          int             `json:"huge_order" doc:"A huge page is 2^order pages"`
	HugeBlockBytes     int64           `json:"huge_block_bytes"`
	FragmentationRatio *float64        `json:"fragmentation_ratio" doc:"fragmented / free, 0-1: the kernel's unusable free space index for a huge page, over all zones; null when nothing is free"`
	WorstZone          *WorstZone      `json:"worst_zone" doc:"The zone with the highest ratio"`
	FreeHugeBlocks     int64           `json:"free_huge_blocks" doc:"Huge pages that could be had now"`
	CompactableRatio   *float64        `json:"compactable_ratio" doc:"Share of huge-page-sized blocks without unmovable pages, which compaction could empty; null before the first whole pass"`
	Zones              []MemoryZone    `json:"zones"`
	Scan               MemoryScan      `json:"scan"`
	Map                *MemoryMapTotal `json:"map" doc:"The same by the scan of single pages, from different moments; null before anything was scanned"`
}

// WorstZone is the most fragmented zone.
type WorstZone struct {
	Node               int     `json:"node"`
	Zone               string  `json:"zone"`
	FragmentationRatio float64 `json:"fragmentation_ratio"`
}

// MemoryZone is a zone of the kernel's allocator.
type MemoryZone struct {
	Node              int       `json:"node"`
	Zone              string    `json:"zone"`
	FreePages         int64     `json:"free_pages"`
	PresentPages      int64     `json:"present_pages"`
	ManagedPages      int64     `json:"managed_pages"`
	FreeBlocks        []int64   `json:"free_blocks" doc:"Of 2^i pages at i"`
	UnusableFreeRatio []float64 `json:"unusable_free_ratio" doc:"Share of the free pages in blocks of less than 2^i pages; null when nothing is free"`
}

// MemoryScan is how far the scan of single pages is.
type MemoryScan struct {
	State        string          `json:"state" enum:"idle,rolling,full,unavailable,off"`
	Reason       string          `json:"reason,omitempty" doc:"Why it is unavailable"`
	PagesScanned int64           `json:"pages_scanned" doc:"In this pass, or the last"`
	Pages        int64           `json:"pages" doc:"That a pass has to go through"`
	StartedAt    *time.Time      `json:"started_at"`
	FinishedAt   *time.Time      `json:"finished_at" doc:"Of the last whole pass"`
	AgeSeconds   *float64        `json:"age_seconds" doc:"Since the last whole pass ended"`
	CPURatio     float64         `json:"cpu_ratio" doc:"Cores taken since this pass began"`
	BudgetRatio  float64         `json:"budget_ratio" doc:"Cores it may take; a full pass that was asked for may take one"`
	CPUSeconds   float64         `json:"cpu_seconds" doc:"Since the agent's start"`
	Passes       int64           `json:"passes" doc:"Whole passes since the agent's start"`
	Full         *MemoryFullScan `json:"full"`
}

// MemoryFullScan is a full pass that was asked for.
type MemoryFullScan struct {
	ID       string  `json:"id" doc:"Of its operation"`
	Progress float64 `json:"progress" doc:"0-1"`
}

// MemoryMapTotal is the sum of the map. Amounts are pages:
// scanned = free + used + absent + uninitialised, and used is that of all owners.
type MemoryMapTotal struct {
	ScannedPages       int64            `json:"scanned_pages" doc:"Frames in blocks with memory that have been scanned"`
	FreePages          int64            `json:"free_pages"`
	FragmentedPages    int64            `json:"fragmented_pages"`
	UsedPages          int64            `json:"used_pages"`
	UnmovablePages     int64            `json:"unmovable_pages"`
	AbsentPages        int64            `json:"absent_pages" doc:"In those blocks"`
	UninitialisedPages int64            `json:"uninitialised_pages"`
	Blocks             int64            `json:"blocks" doc:"Of the size of a huge page, all of it memory"`
	MovableBlocks      int64            `json:"movable_blocks" doc:"Of those, the ones without unmovable pages"`
	Classes            map[string]int64 `json:"classes" doc:"Pages by what they are, in the last whole pass"`
	Owners             map[string]int64 `json:"owners" doc:"Used pages by VM id, deleted or host"`
	// Of VMs, in the last whole pass; see MemoryOwner.
	HugeRatios    map[string]float64 `json:"huge_ratios"`
	ScatterRatios map[string]float64 `json:"scatter_ratios"`
}

// Owners of pages beside VMs.
const (
	OwnerHost    = "host"
	OwnerDeleted = "deleted"
)

// MemoryMap is a part of the map as cells of equal size.
type MemoryMap struct {
	At           time.Time    `json:"at"`
	PageSize     int          `json:"page_size"`
	From         int64        `json:"from" doc:"First page frame: the one asked for, rounded down to a cell"`
	Span         int64        `json:"span" doc:"Page frames shown, whole cells"`
	PagesPerCell int64        `json:"pages_per_cell"`
	Owner        string       `json:"owner,omitempty" doc:"Whose pages owned counts"`
	Cells        []MemoryCell `json:"cells"`
}

// MemoryCell is one square of the map. Amounts are pages; free, used, absent,
// uninitialised and unknown make up the cell.
type MemoryCell struct {
	First          int64         `json:"first"`
	Free           int64         `json:"free"`
	Used           int64         `json:"used"`
	Fragmented     int64         `json:"fragmented" doc:"Of the free, where not the whole huge page is free"`
	Absent         int64         `json:"absent"`
	Uninitialised  int64         `json:"uninitialised"`
	Unknown        int64         `json:"unknown" doc:"Not scanned yet"`
	Unmovable      int64         `json:"unmovable" doc:"Of the used"`
	LargestFreeRun int64         `json:"largest_free_run"`
	Owned          int64         `json:"owned" doc:"By the owner that was asked for"`
	Node           int           `json:"node" doc:"NUMA node, -1 where no memory is"`
	AgeSeconds     float64       `json:"age_seconds" doc:"Of the part that was scanned the longest ago"`
	Owners         []MemoryShare `json:"owners" nullable:"false" doc:"The three with the most pages"`
}

// MemoryShare is how many pages somebody has.
type MemoryShare struct {
	Owner string `json:"owner"`
	Pages int64  `json:"pages"`
}

// MemoryOwner is what a VM, the host or the VMs that are gone have of the pages.
type MemoryOwner struct {
	Owner         string      `json:"owner" doc:"Id of a VM, deleted or host"`
	Name          string      `json:"name"`
	Pages         int64       `json:"pages"`
	Bytes         int64       `json:"bytes"`
	HugeRatio     *float64    `json:"huge_ratio" doc:"Share of its pages in folios of the huge page size; null before the first whole pass, and for the host"`
	ScatterRatio  *float64    `json:"scatter_ratio" doc:"Share of its pages outside of runs of adjacent ones at least as long as a huge page"`
	Runs          []MemoryRun `json:"runs" nullable:"false" doc:"Runs of adjacent pages by length"`
	ResidentBytes int64       `json:"resident_bytes" doc:"Sum of the resident sets of its processes; what they share counts for each"`
	MemoryBytes   int64       `json:"memory_bytes" doc:"memory.current"`
	UnmappedBytes int64       `json:"unmapped_bytes" doc:"Of that, slab and socket buffers, whose pages have no owner in the map"`
	ResidualBytes int64       `json:"residual_bytes" doc:"memory_bytes - bytes - unmapped_bytes: charged in advance, per-CPU data, and what changed since the scan"`
}

// MemoryRun counts runs of 2^pages_log2 to less than twice as many adjacent pages.
type MemoryRun struct {
	PagesLog2 int   `json:"pages_log2"`
	Count     int64 `json:"count"`
	Pages     int64 `json:"pages"`
}

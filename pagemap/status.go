package pagemap

import "time"

// States of a scan.
const (
	StateIdle        = "idle"
	StateRolling     = "rolling"
	StateFull        = "full"
	StateUnavailable = "unavailable"
)

// Status is how far the scan is.
type Status struct {
	State             string
	Reason            string // why it is unavailable
	Scanned, Pages    uint64 // of this pass, or the last when idle; pages with memory
	Started, Finished time.Time
	CPU               time.Duration // since the start
	CPURatio          float64       // of one core, since this pass began
	Passes            uint64        // that went through
	FullID            string
	FullProgress      float64
	Classes           map[Class]uint64 // of the last whole pass, nil before
	Map               MapTotals
}

// Status tells how far the scan is.
func (s *Scanner) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.state
	out := Status{State: StateIdle, Scanned: p.pages, Pages: pagesOf(s.ram), Started: p.started, Finished: p.finished,
		CPU: p.cpuTotal, Passes: p.passes}
	if p.last != nil {
		out.Classes = map[Class]uint64{}
		for c, n := range p.last.classes {
			out.Classes[Class(c)] = n
		}
	}
	switch {
	case p.failure != nil:
		out.State, out.Reason = StateUnavailable, p.failure.Error()
	case s.full != nil:
		out.State, out.FullID = StateFull, s.full.id
		out.FullProgress = min(float64(p.pages)/float64(max(out.Pages, 1)), 1) // whole blocks are counted
	case p.scanning:
		out.State = StateRolling
	}
	if took := time.Since(p.started); !p.started.IsZero() && took > 0 {
		out.CPURatio = float64(p.cpu) / float64(took)
	}
	s.m.mu.RLock()
	defer s.m.mu.RUnlock()
	out.Map = s.m.totals()
	return out
}

// MapTotals are sums over the map. Its parts are of different moments, so that
// they do not agree with the kernel's counters to the page. Amounts are pages.
//
//	Scanned = Free + Used + Absent + Uninitialised
type MapTotals struct {
	Scanned       uint64 // of Span, frames in blocks with memory that have been scanned
	Span          uint64
	Free          uint64
	Fragmented    uint64 // of Free
	Used          uint64 // by VMs, what is left of them, and the host
	Unmovable     uint64 // of Used
	Absent        uint64 // beside those in blocks without any memory
	Uninitialised uint64
	Blocks        uint64 // of the huge page size, all of it online memory
	MovableBlocks uint64 // of Blocks, those without unmovable pages
}

// totals returns the sums. The caller holds m.mu.
func (m *pageMap) totals() MapTotals {
	s := m.sums
	return MapTotals{Scanned: s.scanned, Span: m.span, Free: s.free, Fragmented: s.fragmented, Used: s.scanned - s.free - s.absent - s.uninit,
		Unmovable: s.unmovable, Absent: s.absent, Uninitialised: s.uninit, Blocks: s.onlineBlocks, MovableBlocks: s.movableBlocks}
}

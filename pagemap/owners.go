package pagemap

import "slices"

// OwnerStats is what one owner has, as far as the scan knows.
type OwnerStats struct {
	Owner string
	Pages uint64
	// The rest is of the last whole pass.
	PassPages uint64
	Huge      uint64 // pages in folios of the huge page size
	InRuns    uint64 // pages in runs of adjacent ones at least as long as a huge page
	Runs      []RunCount
}

// HugeRatio is the share of the pages that are in folios of the huge page size.
func (o OwnerStats) HugeRatio() float64 { return float64(o.Huge) / float64(max(o.PassPages, 1)) }

// ScatterRatio is the share of the pages outside of runs of adjacent ones at least
// as long as a huge page.
func (o OwnerStats) ScatterRatio() float64 {
	return float64(o.PassPages-o.InRuns) / float64(max(o.PassPages, 1))
}

// RunCount is how many runs of 2^Log2 to less than 2^(Log2+1) adjacent pages there
// are, and their pages.
type RunCount struct {
	Log2         int
	Count, Pages uint64
}

// Owners lists who has pages: VMs by name, then Deleted and Host, which has what
// is used and nobody else's.
func (s *Scanner) Owners() ([]OwnerStats, error) {
	s.mu.Lock()
	last := s.state.last
	s.mu.Unlock()
	s.m.mu.RLock()
	defer s.m.mu.RUnlock()
	if s.m.sums.scanned == 0 {
		return nil, ErrEmpty
	}
	sums := s.m.sums
	left := sums.scanned - sums.free - sums.absent - sums.uninit
	var all []OwnerStats
	for number, pages := range s.m.owned {
		o := OwnerStats{Owner: s.owners.name(number), Pages: pages}
		left -= pages
		if last != nil {
			o.take(last.owners[number], s.m.order)
		}
		all = append(all, o)
	}
	all = append(all, OwnerStats{Owner: Host, Pages: left})
	slices.SortFunc(all, func(x, y OwnerStats) int { return compareOwners(x.Owner, y.Owner) })
	return all, nil
}

func compareOwners(x, y string) int {
	rank := func(s string) int {
		switch s {
		case Host:
			return 2
		case Deleted:
			return 1
		}
		return 0
	}
	if d := rank(x) - rank(y); d != 0 {
		return d
	}
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func (o *OwnerStats) take(s *ownerStats, order uint) {
	if s == nil {
		return
	}
	o.Huge = s.huge
	for i, n := range s.runs.count {
		if n == 0 {
			continue
		}
		o.Runs = append(o.Runs, RunCount{i, n, s.runs.pages[i]})
		o.PassPages += s.runs.pages[i]
		if i >= int(order) {
			o.InRuns += s.runs.pages[i]
		}
	}
}

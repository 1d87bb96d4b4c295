package pagemap

import (
	"fmt"
	"time"
)

// Map draws a part of the map as at most cells cells. Cells smaller than a huge
// page are read from the kernel now; others come from the scan. owner may be "".
//
// It fails with ErrEmpty before anything has been scanned.
func (s *Scanner) Map(from, span uint64, cells int, owner string) (Picture, error) {
	if span == 0 || cells < 1 || from >= s.Span() || span > s.Span()-from {
		return Picture{}, fmt.Errorf("frames %d to %d of %d in %d cells: out of range", from, from+span, s.Span(), cells)
	}
	s.Look()
	wanted, ok := s.owners.find(owner)
	if !ok {
		wanted = 0xffff
	}
	p, exact := grid(from, span, cells, s.m.blockPages())
	s.mu.Lock()
	node := s.node
	s.mu.Unlock()
	if exact {
		return p, s.drawExact(&p, wanted, node)
	}
	if s.Status().Map.Scanned == 0 {
		return p, ErrEmpty
	}
	s.m.draw(&p, s.owners, wanted, node, time.Now())
	return p, nil
}

// Span is how many page frames the map has, holes included.
func (s *Scanner) Span() uint64 { return s.m.span }

// drawExact fills a picture whose cells are smaller than a block. One is read at a
// time: at most MaxCells times half a block, some 0.1 s of CPU.
func (s *Scanner) drawExact(p *Picture, wanted uint16, node func(uint64) int) error {
	s.exact.Lock()
	defer s.exact.Unlock()
	block := s.m.blockPages()
	p.Cells = make([]Cell, 0, p.Span/p.PagesPerCell)
	s.mu.Lock()
	d := newDigester(s.owners, s.uninit)
	s.mu.Unlock()
	d.stats = nil
	end := p.From + p.Span
	for first := p.From / block * block; first < end; first += WindowPages {
		count := min(WindowPages, (end-first+block-1)/block*block)
		if err := s.window.load(s.src, s.ramNow(), d, block, first, count); err != nil {
			return err
		}
		s.cut(p, d, first, count, wanted, node)
	}
	return nil
}

// cut makes cells of the window that was read from first on.
func (s *Scanner) cut(p *Picture, d *digester, first, count uint64, wanted uint16, node func(uint64) int) {
	block, per := s.m.blockPages(), p.PagesPerCell
	var c cellSum
	for b := uint64(0); b < count; b += block {
		k := s.window.kinds[b/block]
		for at := b; at < b+block; at += per {
			t := d.block(k, s.window.flags[at:at+per], s.window.cgroups[at:at+per])
			if first+at < p.From || first+at >= p.From+p.Span {
				continue
			}
			fragmented := t.free
			if k == free {
				fragmented = 0
			}
			c.begin(first+at, per)
			c.add(t, per, fragmented)
			for _, o := range t.owners {
				c.own(o)
			}
			p.Cells = append(p.Cells, c.end(s.owners, wanted, node))
		}
	}
}

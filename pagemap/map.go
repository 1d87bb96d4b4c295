package pagemap

import (
	"sort"
	"sync"
	"time"
)

// block is what is kept of one block of page frames. What is neither free nor
// absent nor uninitialised is used; what of that no VM owns is the host's.
type block struct {
	at                              uint32 // seconds after Map.began, 0: never scanned
	free, absent, uninit, unmovable uint16
	largest, prefix, suffix         uint16
	owners                          [3]ownerPages // a fourth and more are in Map.extra
	more                            bool
}

// segment is a run of blocks with memory. Between segments is none.
type segment struct {
	first, end uint64 // blocks
	base       int    // index of the first in Map.blocks
}

// counts are sums over blocks, in pages but for blocks.
type counts struct {
	scanned, free, fragmented, absent, uninit, unmovable uint64
	movableBlocks, onlineBlocks                          uint64
}

// pageMap is the summary of all blocks.
type pageMap struct {
	order uint   // of a block
	span  uint64 // page frames
	began time.Time

	mu       sync.RWMutex
	segments []segment
	blocks   []block
	extra    map[int][]ownerPages
	sums     counts
	owned    map[uint16]uint64
}

func newMap(order int, ram []Range, now time.Time) *pageMap {
	m := &pageMap{order: uint(order), began: now.Add(-time.Second), extra: map[int][]ownerPages{}, owned: map[uint16]uint64{}}
	for _, r := range ram {
		m.span = max(m.span, r.End)
		first, end := r.First>>order, (r.End+1<<order-1)>>order
		if n := len(m.segments); n > 0 && first <= m.segments[n-1].end {
			m.segments[n-1].end = max(m.segments[n-1].end, end)
			continue
		}
		m.segments = append(m.segments, segment{first: first, end: end})
	}
	n := 0
	for i := range m.segments {
		m.segments[i].base = n
		n += int(m.segments[i].end - m.segments[i].first)
	}
	m.blocks = make([]block, n)
	return m
}

func (m *pageMap) blockPages() uint64 { return 1 << m.order }

// at finds a block by its number. Without memory there is none.
func (m *pageMap) at(number uint64) (int, bool) {
	i := sort.Search(len(m.segments), func(i int) bool { return m.segments[i].end > number })
	if i == len(m.segments) || m.segments[i].first > number {
		return 0, false
	}
	return m.segments[i].base + int(number-m.segments[i].first), true
}

// store puts what was found in blocks from number on. The caller holds m.mu.
func (m *pageMap) store(number uint64, found []tally, now time.Time) {
	at := uint32(max(now.Sub(m.began)/time.Second, 1))
	for i, t := range found {
		index, ok := m.at(number + uint64(i))
		if !ok {
			continue
		}
		m.count(index, -1)
		b := block{at: at, free: t.free, absent: t.absent, uninit: t.uninit, unmovable: t.unmovable,
			largest: t.largest, prefix: t.prefix, suffix: t.suffix}
		n := copy(b.owners[:], t.owners)
		if n < len(t.owners) {
			b.more = true
			m.extra[index] = append([]ownerPages(nil), t.owners[n:]...)
		} else if m.blocks[index].more {
			delete(m.extra, index)
		}
		m.blocks[index] = b
		m.count(index, 1)
	}
}

// count adds a block to the sums, or takes it out of them.
func (m *pageMap) count(index int, sign int) {
	b := &m.blocks[index]
	if b.at == 0 {
		return
	}
	s, d := &m.sums, uint64(sign)
	size := m.blockPages()
	s.scanned += d * size
	s.free += d * uint64(b.free)
	s.fragmented += d * uint64(b.fragmented(size))
	s.absent += d * uint64(b.absent)
	s.uninit += d * uint64(b.uninit)
	s.unmovable += d * uint64(b.unmovable)
	if uint64(b.absent)+uint64(b.uninit) == 0 {
		s.onlineBlocks += d
		if b.unmovable == 0 {
			s.movableBlocks += d
		}
	}
	m.eachOwner(index, func(o ownerPages) {
		m.owned[o.owner] += d * uint64(o.pages)
		if m.owned[o.owner] == 0 {
			delete(m.owned, o.owner)
		}
	})
}

func (m *pageMap) eachOwner(index int, fn func(ownerPages)) {
	b := &m.blocks[index]
	for _, o := range b.owners {
		if o.pages > 0 {
			fn(o)
		}
	}
	if b.more {
		for _, o := range m.extra[index] {
			fn(o)
		}
	}
}

// fragmented is how many of a block's pages are free, but not in one piece with
// the whole block.
func (b *block) fragmented(size uint64) uint16 {
	if uint64(b.free) == size {
		return 0
	}
	return b.free
}

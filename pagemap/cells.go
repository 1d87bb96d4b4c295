package pagemap

import (
	"cmp"
	"slices"
	"time"
)

// MaxCells is how many cells one picture of the map may have.
const MaxCells = 4096

// Cell is one square of the map. Amounts are pages; Free, Used, Absent,
// Uninitialised and Unknown make up all of them.
type Cell struct {
	First, Pages   uint64
	Free           uint64
	Fragmented     uint64 // of Free, where not the whole huge page is
	Used           uint64
	Unmovable      uint64 // of Used
	Absent         uint64
	Uninitialised  uint64
	Unknown        uint64 // not scanned yet
	LargestFreeRun uint64
	Node           int           // -1 where no memory is
	Age            time.Duration // of what was scanned the longest ago
	Owned          uint64        // by the owner that was asked for
	Owners         []OwnerPages  // those with the most pages, host included
}

// OwnerPages is how many pages an owner has.
type OwnerPages struct {
	Owner string
	Pages uint64
}

// topOwners is how many owners a cell names.
const topOwners = 3

// Picture is a part of the map as cells of the same size.
type Picture struct {
	From, Span, PagesPerCell uint64
	Cells                    []Cell
}

// grid is how a part of the map is cut into cells: as few pages as fit, rounded up
// to a power of two below a block and to whole blocks above. exact says that it
// takes a look at single pages.
func grid(from, span uint64, cells int, block uint64) (p Picture, exact bool) {
	n := uint64(cells)
	for per := uint64(1); ; {
		p.From = from / per * per
		p.PagesPerCell = per
		if count := (from + span - p.From + per - 1) / per; count <= n {
			p.Span = count * per
			return p, per < block
		}
		switch {
		case per < block:
			per *= 2
		default: // straight to about the right size
			per = max(per+block, span/n/block*block)
		}
	}
}

// cellSum adds blocks, or parts of one, that follow each other.
type cellSum struct {
	Cell
	run    uint64 // free pages at the end
	oldest uint32
	owners []ownerSum
}

type ownerSum struct {
	owner uint16
	pages uint64
}

func (c *cellSum) begin(first, pages uint64) {
	*c = cellSum{Cell: Cell{First: first, Pages: pages, Node: -1}, owners: c.owners[:0]}
}

// add adds what was found in size pages.
func (c *cellSum) add(t tally, size uint64, fragmented uint16) {
	c.Free += uint64(t.free)
	c.Fragmented += uint64(fragmented)
	c.Absent += uint64(t.absent)
	c.Uninitialised += uint64(t.uninit)
	c.Unmovable += uint64(t.unmovable)
	c.LargestFreeRun = max(c.LargestFreeRun, uint64(t.largest), c.run+uint64(t.prefix))
	if uint64(t.prefix) == size {
		c.run += size
	} else {
		c.run = uint64(t.suffix)
	}
}

func (c *cellSum) own(o ownerPages) {
	for i := range c.owners {
		if c.owners[i].owner == o.owner {
			c.owners[i].pages += uint64(o.pages)
			return
		}
	}
	c.owners = append(c.owners, ownerSum{o.owner, uint64(o.pages)})
}

// end returns the finished cell. wanted is the owner that was asked for.
func (c *cellSum) end(r *registry, wanted uint16, node func(uint64) int) Cell {
	c.Used = c.Pages - c.Free - c.Absent - c.Uninitialised - c.Unknown
	if c.Absent < c.Pages {
		c.Node = node(c.First + c.Pages/2)
		if c.Node < 0 {
			c.Node = node(c.First)
		}
	}
	left := c.Used
	for _, o := range c.owners {
		left -= o.pages
	}
	if left > 0 {
		c.owners = append(c.owners, ownerSum{host, left})
	}
	slices.SortFunc(c.owners, func(x, y ownerSum) int {
		return cmp.Or(cmp.Compare(y.pages, x.pages), cmp.Compare(x.owner, y.owner))
	})
	for i, o := range c.owners {
		if o.owner == wanted {
			c.Owned = o.pages
		}
		if i < topOwners {
			c.Owners = append(c.Owners, OwnerPages{r.name(o.owner), o.pages})
		}
	}
	return c.Cell
}

// draw fills a picture whose cells are whole blocks.
func (m *pageMap) draw(p *Picture, r *registry, wanted uint16, node func(uint64) int, now time.Time) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	size := m.blockPages()
	p.Cells = make([]Cell, p.Span/p.PagesPerCell)
	var c cellSum
	for i := range p.Cells {
		c.begin(p.From+uint64(i)*p.PagesPerCell, p.PagesPerCell)
		for n := c.First / size; n < (c.First+c.Pages)/size; n++ {
			m.addBlock(&c, n)
		}
		if c.oldest > 0 {
			c.Age = max(now.Sub(m.began)-time.Duration(c.oldest)*time.Second, 0)
		}
		p.Cells[i] = c.end(r, wanted, node)
	}
}

// addBlock adds one block to a cell.
func (m *pageMap) addBlock(c *cellSum, number uint64) {
	size := m.blockPages()
	index, ok := m.at(number)
	switch {
	case !ok:
		c.Absent += size
		c.run = 0
		return
	case m.blocks[index].at == 0:
		c.Unknown += size
		c.run = 0
		return
	}
	b := &m.blocks[index]
	if c.oldest == 0 || b.at < c.oldest {
		c.oldest = b.at
	}
	c.add(tally{free: b.free, absent: b.absent, uninit: b.uninit, unmovable: b.unmovable,
		largest: b.largest, prefix: b.prefix, suffix: b.suffix}, size, b.fragmented(size))
	m.eachOwner(index, c.own)
}

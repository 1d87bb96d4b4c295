package pagemap

import "math/bits"

// host is the owner of whatever no VM owns.
const host = 0

// ownerPages counts the pages of one owner, by its index.
type ownerPages struct{ owner, pages uint16 }

// tally is what was found in a run of at most one block of page frames.
type tally struct {
	free, absent, uninit, unmovable uint16
	largest                         uint16 // free run
	prefix, suffix                  uint16 // free run at either end
	owners                          []ownerPages
}

// runs counts the runs of adjacent pages of one owner by the logarithm of their
// length.
type runs struct{ count, pages [64]uint64 }

func (r *runs) add(length uint64) {
	i := bits.Len64(length) - 1
	r.count[i]++
	r.pages[i] += length
}

// ownerStats is what a pass finds out of one owner.
type ownerStats struct {
	runs runs
	huge uint64 // pages in folios of the huge page size
}

// digester turns words of the kernel into tallies, in address order.
type digester struct {
	owners  *registry
	uninit  []Range // where empty blocks are memory that the kernel has not initialised
	classes [classes]uint64
	stats   map[uint16]*ownerStats // nil: not wanted

	headClass Class // of the compound page that the last page was in; classes: not known
	headOwner uint16
	runOwner  uint16
	runLength uint64
	known     [64]cgroupOwner // those asked for last, to ask once a window
}

// cgroupOwner is whose a cgroup is. The inode 0 is none's: the host's.
type cgroupOwner struct {
	inode uint64
	owner uint16
}

func newDigester(owners *registry, uninit []Range) *digester {
	return &digester{owners: owners, uninit: uninit, stats: map[uint16]*ownerStats{}, headClass: classes}
}

// gap tells that the next frame does not follow the last.
func (d *digester) gap() {
	d.run(host)
	d.headClass = classes
}

func (d *digester) statsOf(owner uint16) *ownerStats {
	s := d.stats[owner]
	if s == nil {
		s = &ownerStats{}
		d.stats[owner] = s
	}
	return s
}

// run ends the run of the last owner where another begins.
func (d *digester) run(owner uint16) {
	if d.runLength > 0 && d.stats != nil {
		d.statsOf(d.runOwner).runs.add(d.runLength)
	}
	d.runOwner, d.runLength = owner, 0
}

// kind is what a block is at first sight.
type kind uint8

const (
	mixed     kind = iota // needs to be looked at page by page
	empty                 // no flag at all
	untouched             // the same, where the kernel has memory that it has not initialised
	free                  // all in the buddy allocator
	oneHuge               // one folio
)

// kindOf looks at a block's flags; it is what makes most of a scan cheap.
func kindOf(flags []uint64) kind {
	first := flags[0]
	if first != 0 && first&(flagBuddy|flagTHP|flagHuge) == 0 {
		return mixed
	}
	or, and := first, ^uint64(0)
	for _, f := range flags[1:] {
		or |= f
		and &= f
	}
	switch {
	case or == 0:
		return empty
	case or&special != 0:
		return mixed
	case and&first&flagBuddy != 0:
		return free
	case first&(flagHead|flagTail) != 0 && and&flagTail != 0 && and&first&(flagTHP|flagHuge) != 0:
		return oneHuge
	}
	return mixed
}

// block digests a whole block of memory. cgroups may be nil where its kind needs
// none.
func (d *digester) block(k kind, flags, cgroups []uint64) tally {
	n := uint16(len(flags))
	switch {
	case k == free:
		d.run(host)
		d.classes[Free] += uint64(n)
		return tally{free: n, largest: n, prefix: n, suffix: n}
	case k == untouched:
		d.run(host)
		d.classes[Uninitialised] += uint64(n)
		return tally{uninit: n}
	case k == oneHuge:
		return d.huge(flags, cgroups)
	}
	return d.pages(flags, cgroups)
}

// huge digests a block that is one folio.
func (d *digester) huge(flags, cgroups []uint64) tally {
	n := uint16(len(flags))
	class, owner := d.look(flags[0], cgroups[0])
	d.classes[class] += uint64(n)
	var t tally
	if owner != d.runOwner {
		d.run(owner)
	}
	if owner != host {
		d.runLength += uint64(n)
		t.owners = []ownerPages{{owner, n}}
		if d.stats != nil {
			d.statsOf(owner).huge += uint64(n)
		}
	}
	return t
}

// special are flags of a page alone, whatever it is a part of.
const special = flagNoPage | flagHWPoison | flagOffline

// look classes a page that is not free. A tail is what its head is.
func (d *digester) look(flags, inode uint64) (Class, uint16) {
	if flags&special != 0 {
		if flags&flagTail == 0 {
			d.headClass = classes
		}
		return classify(flags), host
	}
	if flags&flagTail != 0 && d.headClass != classes {
		return d.headClass, d.headOwner
	}
	class := classify(flags)
	k := &d.known[inode%uint64(len(d.known))]
	if k.inode != inode {
		*k = cgroupOwner{inode, d.owners.of(inode)}
	}
	if flags&flagTail == 0 {
		d.headClass, d.headOwner = class, k.owner
	}
	return class, k.owner
}

// pages digests page by page.
func (d *digester) pages(flags, cgroups []uint64) tally {
	var t tally
	run := uint16(0)
	class, owner := classes, uint16(host)
	last, lastCgroup := uint64(flagBuddy), uint64(0)
	for i, f := range flags {
		if f&(flagBuddy|special) == flagBuddy {
			run++
			t.free++
			if d.runLength > 0 {
				d.run(host)
			}
			continue
		}
		if run > 0 {
			t.freeRun(run, i)
			run = 0
		}
		if f != last || cgroups[i] != lastCgroup { // neighbours are often alike
			class, owner = d.look(f, cgroups[i])
			last, lastCgroup = f, cgroups[i]
		}
		d.classes[class]++
		if class == Absent {
			t.absent++
		} else if class.Unmovable() {
			t.unmovable++
		}
		if owner != d.runOwner {
			d.run(owner)
		}
		if owner != host {
			d.runLength++
			t.own(owner)
		}
	}
	d.classes[Free] += uint64(t.free)
	if run > 0 {
		t.freeRun(run, len(flags))
		t.suffix = run
	}
	return t
}

// freeRun notes a run of free pages that ends before index end.
func (t *tally) freeRun(length uint16, end int) {
	t.largest = max(t.largest, length)
	if int(length) == end {
		t.prefix = length
	}
}

func (t *tally) own(owner uint16) {
	if n := len(t.owners); n > 0 && t.owners[n-1].owner == owner { // most often
		t.owners[n-1].pages++
		return
	}
	for i := range t.owners {
		if t.owners[i].owner == owner {
			t.owners[i].pages++
			// The next page has the same owner: find it at once.
			last := len(t.owners) - 1
			t.owners[i], t.owners[last] = t.owners[last], t.owners[i]
			return
		}
	}
	t.owners = append(t.owners, ownerPages{owner, 1})
}

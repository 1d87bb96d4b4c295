package pagemap

import "fmt"

// FreeList is a line of /proc/buddyinfo: the free blocks of a zone.
type FreeList struct {
	Node   int
	Zone   string
	Blocks []uint64 // of 2^i pages at i; as many orders as the kernel prints
}

const (
	maxOrders = 32      // more than any kernel has
	maxBlocks = 1 << 30 // of one order in a zone: pages of 4 TiB, or a mistake
)

// parseBuddyinfo parses /proc/buddyinfo.
func parseBuddyinfo(b []byte) ([]FreeList, error) {
	var all []FreeList
	for n := 1; len(b) > 0; n++ {
		var l []byte
		l, b = line(b)
		if len(trim(l)) == 0 {
			continue
		}
		node, zone, rest, ok := zoneHeader(l)
		if !ok {
			return nil, fmt.Errorf("parse buddyinfo line %d: no zone in %.60q", n, l)
		}
		f := FreeList{Node: node, Zone: zone}
		for rest = trim(rest); len(rest) > 0; {
			var v uint64
			if v, rest, ok = number(rest); !ok || v > maxBlocks || len(f.Blocks) == maxOrders || len(rest) > 0 && rest[0] != ' ' {
				return nil, fmt.Errorf("parse buddyinfo line %d: no counts in %.60q", n, l)
			}
			f.Blocks = append(f.Blocks, v)
			rest = trim(rest)
		}
		if len(f.Blocks) == 0 {
			return nil, fmt.Errorf("parse buddyinfo line %d: no counts in %.60q", n, l)
		}
		all = append(all, f)
	}
	if all == nil {
		return nil, fmt.Errorf("parse buddyinfo: no zone")
	}
	return all, nil
}

// FreeFrom is how many free pages lie in blocks of at least that order: all of
// them for order 0.
func (f FreeList) FreeFrom(order int) uint64 {
	sum := uint64(0)
	for i := max(order, 0); i < len(f.Blocks); i++ {
		sum += f.Blocks[i] << i
	}
	return sum
}

// BlocksFrom is how many blocks of that order the zone could give.
func (f FreeList) BlocksFrom(order int) uint64 { return f.FreeFrom(order) >> order }

// Unusable is the unusable free space index of the zone at an order: the share of
// its free pages that lie in smaller blocks, 0 to 1. There is none when nothing is
// free; the kernel's debugfs says 1 then, its compaction 0.
func (f FreeList) Unusable(order int) (ratio float64, ok bool) {
	return unusable(f.FreeFrom(0), f.FreeFrom(order))
}

func unusable(free, usable uint64) (float64, bool) {
	if free == 0 {
		return 0, false
	}
	return float64(free-usable) / float64(free), true
}

// Unusable is the index over several zones: pages are summed, never indices.
func Unusable(zones []FreeList, order int) (ratio float64, ok bool) {
	var free, usable uint64
	for _, z := range zones {
		free += z.FreeFrom(0)
		usable += z.FreeFrom(order)
	}
	return unusable(free, usable)
}

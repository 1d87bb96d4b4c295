package pagemap

import (
	"bytes"
	"fmt"
	"slices"
)

// Range is a run of page frames: First up to, but without, End.
type Range struct{ First, End uint64 }

// Pages is how many there are.
func (r Range) Pages() uint64 { return r.End - r.First }

// parseIomem takes the whole pages of memory ("System RAM") from /proc/iomem, in
// address order. Who lacks CAP_SYS_ADMIN is shown zeros; that is an error.
func parseIomem(b []byte, pageSize int) ([]Range, error) {
	var all []Range
	within := -1 // depth of the memory that further lines may be inside of
	found := false
	size := uint64(pageSize)
	for n := 1; len(b) > 0; n++ {
		var l []byte
		l, b = line(b)
		depth := len(l) - len(bytes.TrimLeft(l, " "))
		addresses, name, ok := bytes.Cut(l[depth:], []byte(" : "))
		if !ok {
			continue
		}
		if within >= 0 && depth > within {
			continue
		}
		within = -1
		if !isRAM(name) {
			continue
		}
		first, last, ok := addressRange(addresses)
		if !ok || last < first || last>>52 != 0 {
			return nil, fmt.Errorf("parse iomem line %d: no address range in %.60q", n, l)
		}
		within, found = depth, true
		if r := (Range{(first + size - 1) / size, (last + 1) / size}); r.End > r.First {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		if found {
			return nil, fmt.Errorf("parse iomem: addresses are hidden, CAP_SYS_ADMIN is missing")
		}
		return nil, fmt.Errorf("parse iomem: no System RAM")
	}
	return merge(all), nil
}

// isRAM also takes memory that a driver has added, "System RAM (kmem)".
func isRAM(name []byte) bool {
	rest, ok := bytes.CutPrefix(trim(name), []byte("System RAM"))
	return ok && (len(rest) == 0 || rest[0] == ' ')
}

func addressRange(b []byte) (first, last uint64, ok bool) {
	if first, b, ok = hex(b); !ok || len(b) == 0 || b[0] != '-' {
		return 0, 0, false
	}
	last, b, ok = hex(b[1:])
	return first, last, ok && len(b) == 0
}

// merge sorts ranges and joins those that touch or overlap.
func merge(all []Range) []Range {
	slices.SortFunc(all, func(x, y Range) int {
		if x.First < y.First {
			return -1
		}
		return 1
	})
	out := all[:0]
	for _, r := range all {
		if n := len(out); n > 0 && r.First <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, r.End)
			continue
		}
		out = append(out, r)
	}
	return out
}

// subtract takes the frames of hole out of ranges.
func subtract(all []Range, hole Range) []Range {
	var out []Range
	for _, r := range all {
		if left := (Range{r.First, min(r.End, hole.First)}); left.End > left.First {
			out = append(out, left)
		}
		if right := (Range{max(r.First, hole.End), r.End}); right.End > right.First {
			out = append(out, right)
		}
	}
	return out
}

func pagesOf(all []Range) uint64 {
	sum := uint64(0)
	for _, r := range all {
		sum += r.Pages()
	}
	return sum
}

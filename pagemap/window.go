package pagemap

import "slices"

// window is the buffers for one read of page frames.
type window struct {
	flags, cgroups []uint64
	kinds          []kind
	found          []tally
}

func grown[T any](s []T, n uint64) []T {
	if uint64(cap(s)) < n {
		return make([]T, n)
	}
	return s[:n]
}

// read reads count page frames from first on, which are whole blocks, and digests
// them. The result is valid until the next read.
func (w *window) read(src source, ram []Range, d *digester, block, first, count uint64) ([]tally, error) {
	if err := w.load(src, ram, d, block, first, count); err != nil {
		return nil, err
	}
	w.found = grown(w.found, count/block)
	for i := range w.found {
		from := uint64(i) * block
		w.found[i] = d.block(w.kinds[i], w.flags[from:from+block], w.cgroups[from:from+block])
	}
	return w.found, nil
}

// load reads flags, then the owners of those blocks whose kind needs them. Both
// are read of the same window back to back: the kernel takes no picture.
func (w *window) load(src source, ram []Range, d *digester, block, first, count uint64) error {
	w.flags, w.cgroups = grown(w.flags, count), grown(w.cgroups, count)
	w.kinds = grown(w.kinds, count/block)
	clear(d.known[:]) // a cgroup may be new
	n, err := src.Flags(first, w.flags)
	if err != nil {
		return err
	}
	for i := n; i < len(w.flags); i++ {
		w.flags[i] = flagNoPage // the file ends where memory does
	}
	w.mask(ram, first)
	for i := range w.kinds {
		from := uint64(i) * block
		w.kinds[i] = kindOf(w.flags[from : from+block])
		if w.kinds[i] == empty && slices.ContainsFunc(d.uninit, func(r Range) bool { return first+from >= r.First && first+from < r.End }) {
			w.kinds[i] = untouched
		}
	}
	for i := 0; i < len(w.kinds); {
		j := i
		for j < len(w.kinds) && w.kinds[j].hasOwners() {
			j++
		}
		if j > i {
			part := w.cgroups[uint64(i)*block : uint64(j)*block]
			n, err := src.Owners(first+uint64(i)*block, part)
			if err != nil {
				return err
			}
			clear(part[n:])
		}
		i = max(j, i+1)
	}
	return nil
}

func (k kind) hasOwners() bool { return k == mixed || k == oneHuge || k == empty }

// mask marks frames that no memory is behind: newer kernels have no flag for them.
func (w *window) mask(ram []Range, first uint64) {
	at, end := first, first+uint64(len(w.flags))
	for _, r := range ram {
		if r.End <= at {
			continue
		}
		for ; at < min(r.First, end); at++ {
			w.flags[at-first] = flagNoPage
		}
		at = max(at, r.End)
		if at >= end {
			return
		}
	}
	for ; at < end; at++ {
		w.flags[at-first] = flagNoPage
	}
}

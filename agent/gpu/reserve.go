package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNone is every answer of Reserve that there are too few free units.
var ErrNone = errors.New("too few free GPUs")

// A NoneError is an ErrNone with its figures.
type NoneError struct{ Asked, Free, Total int }

func (e *NoneError) Error() string {
	return fmt.Sprintf("%d of %d GPUs free, %d asked for", e.Free, e.Total, e.Asked)
}

// Is makes a NoneError an ErrNone.
func (e *NoneError) Is(target error) bool { return target == ErrNone }

// Reserve chooses n free units of one kind, as near to each other as there are:
// on one GPU, else on one NUMA node, else of one vendor, else any. Among places
// that fit it takes the fullest, so that large ones stay whole. It changes
// nothing; a unit is taken when taken has its ID, its GPU's, or one of the
// instances of the GPU that it is.
func Reserve(all []Unit, taken map[string]bool, n int) ([]Unit, error) {
	if n <= 0 {
		return nil, nil
	}
	free := available(all, taken)
	if len(free) < n {
		return nil, &NoneError{Asked: n, Free: len(free), Total: len(all)}
	}
	if fit := groups(free, vendorOf, n); len(fit) > 0 {
		free = fit[0] // in the order of the inventory: NVIDIA before integrated graphics
	}
	near := map[string]int{} // free units on each NUMA node
	for _, u := range free {
		near[numaOf(u)]++
	}
	for _, key := range []func(Unit) string{parentOf, numaOf} {
		if fit := groups(free, key, n); len(fit) > 0 {
			return slices.MinFunc(fit, func(a, b []Unit) int {
				return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(near[numaOf(a[0])], near[numaOf(b[0])]))
			})[:n], nil
		}
	}
	largestFirst(free)
	return free[:n], nil
}

// available are the free units, each ID once.
func available(all []Unit, taken map[string]bool) []Unit {
	broken := map[string]bool{} // GPUs of which an instance is taken
	for id, yes := range taken {
		if parent, ok := parentOfInstance(id); ok && yes {
			broken[parent] = true
		}
	}
	var free []Unit
	seen := map[string]bool{}
	for _, u := range all {
		if seen[u.ID] || taken[u.ID] || taken[u.Parent] || broken[u.ID] {
			continue
		}
		seen[u.ID] = true
		free = append(free, u)
	}
	return free
}

// parentOfInstance is the GPU in the ID of a MIG instance.
func parentOfInstance(id string) (string, bool) {
	rest, ok := strings.CutPrefix(id, "MIG-")
	parent, _, cut := strings.Cut(rest, "/")
	return parent, ok && cut
}

// groups are the groups of at least n units with the same key, in order.
func groups(units []Unit, key func(Unit) string, n int) [][]Unit {
	byKey := map[string][]Unit{}
	var order []string
	for _, u := range units {
		k := key(u)
		if byKey[k] == nil {
			order = append(order, k)
		}
		byKey[k] = append(byKey[k], u)
	}
	var fit [][]Unit
	for _, k := range order {
		if len(byKey[k]) >= n {
			fit = append(fit, byKey[k])
		}
	}
	return fit
}

// largestFirst sorts by the number of units on the same GPU, so that the first n
// are on few.
func largestFirst(units []Unit) {
	count := map[string]int{}
	for _, u := range units {
		count[u.Parent]++
	}
	slices.SortStableFunc(units, func(a, b Unit) int {
		return cmp.Compare(count[b.Parent], count[a.Parent])
	})
}

func vendorOf(u Unit) string { return u.Vendor }
func numaOf(u Unit) string   { return fmt.Sprintf("%s/%d", u.Vendor, u.NUMA) }
func parentOf(u Unit) string { return u.Parent }

package gpu

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// whole and part are units of a GPU on a NUMA node.
func whole(id string, numa int) Unit { return Unit{ID: id, Parent: id, Vendor: NVIDIA, NUMA: numa} }
func part(gpu string, gi, numa int) Unit {
	return Unit{ID: instance{gi: gi}.id(gpu), Parent: gpu, Vendor: NVIDIA, NUMA: numa}
}

func ids(units []Unit) []string {
	var names []string
	for _, u := range units {
		names = append(names, u.ID)
	}
	return names
}

func TestReserve(t *testing.T) {
	four := []Unit{whole("a", 0), whole("b", 0), whole("c", 1), whole("d", 1)}
	mig := []Unit{part("a", 1, 0), part("a", 2, 0), part("a", 3, 0), part("b", 1, 1), part("b", 2, 1), part("b", 3, 1)}
	intel := Unit{ID: "i", Parent: "i", Vendor: Intel, NUMA: 0}
	tests := map[string]struct {
		all   []Unit
		taken []string
		n     int
		want  []string
	}{
		"none is nothing":                                 {all: four, n: 0},
		"the first of equals":                             {all: four, n: 1, want: []string{"a"}},
		"a pair is on one node":                           {all: four, taken: []string{"a"}, n: 2, want: []string{"c", "d"}},
		"one leaves the whole pair":                       {all: four, taken: []string{"c"}, n: 1, want: []string{"d"}},
		"three are on two nodes":                          {all: four, n: 3, want: []string{"a", "b", "c"}},
		"instances of one GPU":                            {all: mig, taken: []string{"MIG-a/1/0"}, n: 3, want: []string{"MIG-b/1/0", "MIG-b/2/0", "MIG-b/3/0"}},
		"the fuller GPU first":                            {all: mig, taken: []string{"MIG-b/1/0"}, n: 2, want: []string{"MIG-b/2/0", "MIG-b/3/0"}},
		"a GPU taken whole has no instances":              {all: mig, taken: []string{"a"}, n: 1, want: []string{"MIG-b/1/0"}},
		"an instance taken keeps its GPU":                 {all: four, taken: []string{"MIG-a/1/0"}, n: 1, want: []string{"b"}},
		"graphics only when nothing else fits":            {all: []Unit{whole("a", 0), intel}, n: 1, want: []string{"a"}},
		"graphics when the rest is taken":                 {all: []Unit{whole("a", 0), intel}, taken: []string{"a"}, n: 1, want: []string{"i"}},
		"vendors are mixed only if there is no other way": {all: []Unit{whole("a", 0), intel}, n: 2, want: []string{"a", "i"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			taken := map[string]bool{}
			for _, id := range tt.taken {
				taken[id] = true
			}
			got, err := Reserve(tt.all, taken, tt.n)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, ids(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReserveSaysWhatIsFree(t *testing.T) {
	_, err := Reserve([]Unit{whole("a", 0), whole("b", 0)}, map[string]bool{"a": true, "b": true}, 1)
	var none *NoneError
	if !errors.Is(err, ErrNone) || !errors.As(err, &none) || err.Error() != "0 of 2 GPUs free, 1 asked for" {
		t.Errorf("err = %v", err)
	}
}

// TestReserveNeverAssignsTwice lets VMs come and go on random hosts.
func TestReserveNeverAssignsTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.Custom(host8).Draw(t, "host")
		owner := map[string]int{}
		for vm := range rapid.IntRange(1, 12).Draw(t, "vms") {
			taken := map[string]bool{}
			for id := range owner {
				taken[id] = true
			}
			n := rapid.IntRange(-1, 5).Draw(t, "n")
			got, err := Reserve(all, taken, n)
			checkReservation(t, all, taken, n, got, err)
			for _, u := range got {
				owner[u.ID] = vm
			}
			if gone := rapid.IntRange(0, 12).Draw(t, "gone"); gone < vm {
				for id, o := range owner {
					if o == gone {
						delete(owner, id)
					}
				}
			}
		}
	})
}

// host8 is up to 8 GPUs on 2 nodes, each whole or in up to 7 instances.
func host8(t *rapid.T) []Unit {
	var all []Unit
	for i := range rapid.IntRange(0, 8).Draw(t, "gpus") {
		id, numa := fmt.Sprintf("GPU-%d", i), i/4
		parts := rapid.IntRange(0, 7).Draw(t, "parts")
		if parts == 0 {
			all = append(all, whole(id, numa))
		}
		for gi := range parts {
			all = append(all, part(id, gi, numa))
		}
	}
	return all
}

func checkReservation(t *rapid.T, all []Unit, taken map[string]bool, n int, got []Unit, err error) {
	free, perGPU := 0, map[string]int{}
	for _, u := range all {
		if !taken[u.ID] {
			free++
			perGPU[u.Parent]++
		}
	}
	if (err != nil) != (n > free) || err == nil && len(got) != max(n, 0) || err != nil && got != nil {
		t.Fatalf("asked for %d of %d free: %d units, %v", n, free, len(got), err)
	}
	seen, gpus := map[string]bool{}, map[string]bool{}
	for _, u := range got {
		if taken[u.ID] || seen[u.ID] {
			t.Fatalf("%s was assigned twice", u.ID)
		}
		seen[u.ID], gpus[u.Parent] = true, true
	}
	for id, k := range perGPU {
		if n > 0 && k >= n && len(gpus) > 1 {
			t.Fatalf("%d units on %d GPUs, %s alone has %d", n, len(gpus), id, k)
		}
	}
}

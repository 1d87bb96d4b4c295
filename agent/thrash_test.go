package agent

import (
	"errors"
	"testing"
	"time"
)

func TestThrash(t *testing.T) {
	const limit = 100 * mib
	at := func(second int, waited float64) Usage {
		return Usage{At: time.Unix(1000+int64(second), 0), MemoryBytes: limit, MemoryWaitingSeconds: waited}
	}
	stands := func(s int) Usage { return at(s, 0.5*float64(s)) }
	reads := func(s int) (cache, error) { return cache{size: mib / 4, refaults: int64(s) * 10 * mib}, nil }
	tests := []struct {
		name string
		each func(second int) Usage
		look func(second int) (cache, error)
		want int // the second of the verdict, 0 for none in twenty
	}{
		{"stands still", stands, reads, 5},
		{"cache to drop", stands, func(s int) (cache, error) { return cache{size: 10 * mib, refaults: int64(s) * 100 * mib}, nil }, 0},
		{"cache unknown", stands, func(int) (cache, error) { return cache{}, errors.New("gone") }, 0},
		{"writes", stands, func(s int) (cache, error) {
			return cache{size: mib, unwritten: mib * 3 / 4, refaults: int64(s) * 10 * mib}, nil
		}, 0},
		{"reads files once", stands, func(s int) (cache, error) { return cache{size: mib, refaults: int64(s) * mib}, nil }, 0},
		{"no cache at all", stands, func(int) (cache, error) { return cache{}, nil }, 0},
		{"full and at work", func(s int) Usage { return at(s, 0.1*float64(s)) }, reads, 0},
		{"not full", func(s int) Usage {
			u := stands(s)
			u.MemoryBytes = limit * 9 / 10
			return u
		}, reads, 0},
		{"gets out of it", func(s int) Usage { return at(s, 0.5*float64(s-s/3)) }, reads, 0},
		{"counter goes back", func(s int) Usage { return at(s, -float64(s)) }, reads, 0},
		{"late samples", func(s int) Usage { return at(5*s, 2*float64(s)) }, reads, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var th thrash
			got := 0
			for s := 0; s <= 20 && got == 0; s++ {
				u := tt.each(s)
				if th.observe(u, limit, func() (cache, error) { return tt.look(s) }) {
					got = s
				}
				if th.observe(u, limit, func() (cache, error) { return tt.look(s) }) {
					t.Error("the same sample twice made a verdict")
				}
			}
			if got != tt.want {
				t.Errorf("verdict after %d s, want %d", got, tt.want)
			}
		})
	}
}

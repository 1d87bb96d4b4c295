package thrash

import (
	"errors"
	"testing"
	"time"

	"cloudflash/agent/state"
)

const mib = int64(1) << 20

func TestThrash(t *testing.T) {
	const limit = 100 * mib
	at := func(second int, waited float64) state.Usage {
		return state.Usage{At: time.Unix(1000+int64(second), 0), MemoryBytes: limit, MemoryWaitingSeconds: waited}
	}
	stands := func(s int) state.Usage { return at(s, 0.5*float64(s)) }
	reads := func(s int) (Cache, error) { return Cache{Size: mib / 4, Refaults: int64(s) * 10 * mib}, nil }
	tests := []struct {
		name string
		each func(second int) state.Usage
		look func(second int) (Cache, error)
		want int // the second of the verdict, 0 for none in twenty
	}{
		{"stands still", stands, reads, 5},
		{"cache to drop", stands, func(s int) (Cache, error) { return Cache{Size: 10 * mib, Refaults: int64(s) * 100 * mib}, nil }, 0},
		{"cache unknown", stands, func(int) (Cache, error) { return Cache{}, errors.New("gone") }, 0},
		{"writes", stands, func(s int) (Cache, error) {
			return Cache{Size: mib, Unwritten: mib * 3 / 4, Refaults: int64(s) * 10 * mib}, nil
		}, 0},
		{"reads files once", stands, func(s int) (Cache, error) { return Cache{Size: mib, Refaults: int64(s) * mib}, nil }, 0},
		{"no cache at all", stands, func(int) (Cache, error) { return Cache{}, nil }, 0},
		{"full and at work", func(s int) state.Usage { return at(s, 0.1*float64(s)) }, reads, 0},
		{"not full", func(s int) state.Usage {
			u := stands(s)
			u.MemoryBytes = limit * 9 / 10
			return u
		}, reads, 0},
		{"gets out of it", func(s int) state.Usage { return at(s, 0.5*float64(s-s/3)) }, reads, 0},
		{"counter goes back", func(s int) state.Usage { return at(s, -float64(s)) }, reads, 0},
		{"late samples", func(s int) state.Usage { return at(5*s, 2*float64(s)) }, reads, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var th Watch
			got := 0
			for s := 0; s <= 20 && got == 0; s++ {
				u := tt.each(s)
				if th.Observe(u, limit, func() (Cache, error) { return tt.look(s) }) {
					got = s
				}
				if th.Observe(u, limit, func() (Cache, error) { return tt.look(s) }) {
					t.Error("the same sample twice made a verdict")
				}
			}
			if got != tt.want {
				t.Errorf("verdict after %d s, want %d", got, tt.want)
			}
		})
	}
}

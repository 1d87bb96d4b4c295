package agent

import (
	"errors"
	"testing"
	"time"
)

func TestThrash(t *testing.T) {
	const limit = 100 * mib
	full := func(waited float64) Usage { return Usage{MemoryBytes: limit, MemoryWaitingSeconds: waited} }
	tests := []struct {
		name  string
		cache int64
		err   error
		each  func(second int) Usage
		want  int // the second of the verdict, 0 for none in ten
	}{
		{"stands still", mib, nil, func(s int) Usage { return full(0.5 * float64(s)) }, 4},
		{"cache to drop", 10 * mib, nil, func(s int) Usage { return full(0.5 * float64(s)) }, 0},
		{"cache unknown", 0, errors.New("gone"), func(s int) Usage { return full(0.5 * float64(s)) }, 0},
		{"full and at work", mib, nil, func(s int) Usage { return full(0.1 * float64(s)) }, 0},
		{"not full", mib, nil, func(s int) Usage {
			return Usage{MemoryBytes: limit * 9 / 10, MemoryWaitingSeconds: 0.5 * float64(s)}
		}, 0},
		{"gets out of it", mib, nil, func(s int) Usage { return full(0.5 * float64(s-s/3)) }, 0},
		{"counter goes back", mib, nil, func(s int) Usage { return full(-float64(s)) }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var th thrash
			got := 0
			for s := 0; s <= 10 && got == 0; s++ {
				u := tt.each(s)
				u.At = time.Unix(1000+int64(s), 0)
				if th.observe(u, limit, func() (int64, error) { return tt.cache, tt.err }) {
					got = s
				}
				if th.observe(u, limit, func() (int64, error) { return 0, nil }) {
					t.Error("the same sample twice made a verdict")
				}
			}
			if got != tt.want {
				t.Errorf("verdict after %d s, want %d", got, tt.want)
			}
		})
	}
}

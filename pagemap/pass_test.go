package pagemap

import (
	"testing"
	"time"
)

func TestBurstsStayShort(t *testing.T) {
	for name, c := range map[string]struct {
		size, block uint64
		took        time.Duration
		want        uint64
	}{
		"long":           {4096, 512, 5 * time.Millisecond, 2048},
		"as it should":   {4096, 512, 2 * time.Millisecond, 4096},
		"short":          {4096, 512, 500 * time.Microsecond, 8192},
		"the smallest":   {512, 512, time.Second, 512},
		"the largest":    {rollingPages, 512, 0, rollingPages},
		"of large pages": {8192, 8192, time.Second, 8192},
	} {
		if got := nextSize(c.size, c.block, c.took); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

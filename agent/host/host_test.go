package host

import (
	"testing"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
)

func TestBusy(t *testing.T) {
	before := cpu.TimesStat{User: 100, Idle: 900}
	tests := map[string]struct {
		before, after cpu.TimesStat
		want          float64
	}{
		"half busy":               {before, cpu.TimesStat{User: 105, Idle: 905}, 0.5},
		"waiting for IO is idle":  {before, cpu.TimesStat{User: 105, Idle: 900, Iowait: 5}, 0.5},
		"no time passed":          {before, before, 0},
		"the first reading is 0":  {cpu.TimesStat{}, before, 0},
		"counters that went back": {before, cpu.TimesStat{User: 1, Idle: 2}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := busy(tt.before, tt.after); got != tt.want {
				t.Errorf("busy = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestSampleReadsThisMachine(t *testing.T) {
	h, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Sample(time.Now()); err != nil {
		t.Fatal(err)
	}
	f, u := h.Facts(), h.Usage()
	if f.CPUs < 1 || f.MemoryBytes <= 0 || f.StorageBytes <= 0 || len(f.BootID) != 36 || f.Kernel == "" {
		t.Errorf("facts = %+v", f)
	}
	if u.MemoryUsedBytes <= 0 || u.MemoryUsedBytes+u.MemoryAvailableBytes != f.MemoryBytes || u.AgentMemoryBytes <= 0 {
		t.Errorf("usage = %+v", u)
	}
}

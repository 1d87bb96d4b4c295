package host

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shirou/gopsutil/v3/cpu"
)

// sysfs makes a /sys/dev/block with a disk 254:0, its partition 254:1 and a
// stacked device 253:0 over it.
func sysfs(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"devices/vda/dev":            "254:0\n",
		"devices/vda/vda1/dev":       "254:1\n",
		"devices/vda/vda1/partition": "1\n",
		"devices/dm-0/dev":           "253:0\n",
		"devices/dm-0/slaves/vda/x":  "",
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "block"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"254:0": "../devices/vda", "254:1": "../devices/vda/vda1", "253:0": "../devices/dm-0"} {
		if err := os.Symlink(target, filepath.Join(root, "block", name)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "block")
}

func TestWholeDevice(t *testing.T) {
	sys := sysfs(t)
	tests := map[string]struct {
		in   Device
		want Device
		fail bool
	}{
		"a disk is itself":                     {in: Device{254, 0}, want: Device{254, 0}},
		"a partition becomes its disk":         {in: Device{254, 1}, want: Device{254, 0}},
		"a stacked device is refused":          {in: Device{253, 0}, fail: true},
		"an unknown device is refused":         {in: Device{9, 9}, fail: true},
		"a file system without one is refused": {in: Device{0, 42}, fail: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := wholeDevice(sys, tt.in, "/state")
			if (err != nil) != tt.fail {
				t.Fatalf("err = %v, want failure %v", err, tt.fail)
			}
			if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
				t.Error(diff)
			}
		})
	}
}

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

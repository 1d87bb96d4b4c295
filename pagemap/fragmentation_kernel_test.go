package pagemap

import (
	"bytes"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kernelIndex reads the kernel's own index from debugfs: for each zone, by order.
func kernelIndex(t *testing.T, path string) map[string][]float64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]float64{}
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		node, zone, rest, ok := zoneHeader(l)
		if !ok {
			t.Fatalf("unusable_index: %q", l)
		}
		for _, f := range bytes.Fields(rest) {
			v, err := strconv.ParseFloat(string(f), 64)
			if err != nil {
				t.Fatal(err)
			}
			key := strconv.Itoa(node) + zone
			all[key] = append(all[key], v)
		}
	}
	return all
}

// compareIndex waits for a moment in which nobody allocates, and returns by how
// much the worst of all zones and orders is off.
func compareIndex(t *testing.T, c *Counters, path string) (worst float64, now Totals) {
	t.Helper()
	for range 200 {
		before, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		theirs := kernelIndex(t, path)
		if now, err = c.Read(); err != nil {
			t.Fatal(err)
		}
		if math.Abs(before.Fragmentation-now.Fragmentation) > 0.0003 || before.Free != now.Free {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		worst = 0
		for _, z := range now.Zones {
			for order, v := range theirs[strconv.Itoa(z.Node)+z.Name] {
				if ours, ok := z.FreeList.Unusable(order); ok {
					worst = max(worst, math.Abs(ours-v))
				}
			}
		}
		if len(theirs) == 0 {
			t.Fatal("debugfs has no zone")
		}
		return worst, now
	}
	t.Fatal("memory is never at rest")
	return 0, now
}

// The index rises when a test fragments memory on purpose, falls when it gives it
// back, and is the kernel's own all the while.
func TestKernelFragmentationIsTheKernels(t *testing.T) {
	if os.Getenv("CLOUDFLASH_KERNEL_TESTS") != "1" {
		t.Skip("fills the memory of the machine: needs CLOUDFLASH_KERNEL_TESTS=1")
	}
	debugfs := t.TempDir()
	if err := unix.Mount("debugfs", debugfs, "debugfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(debugfs, 0) })
	path := debugfs + "/extfrag/unusable_index"
	c, s := native(t)
	step := func(name string) Totals {
		worst, now := compareIndex(t, c, path)
		s.Layout(now)
		passOnce(t, s)
		m := s.Status().Map
		ratio := float64(m.MovableBlocks) / float64(m.Blocks)
		t.Logf("%-10s fragmentation %.4f (map: %.4f), off by at most %.4f from debugfs; %d of %d free pages fragmented, %d huge blocks; %.3f of blocks movable",
			name, now.Fragmentation, float64(m.Fragmented)/float64(m.Free), worst, now.Fragmented, now.Free, now.HugeBlocks, ratio)
		if worst > 0.002 {
			t.Errorf("%s: off by %.4f from the kernel's own", name, worst)
		}
		if math.Abs(float64(m.Fragmented)/float64(m.Free)-now.Fragmentation) > 0.02 {
			t.Errorf("%s: the map has %d of %d free pages fragmented", name, m.Fragmented, m.Free)
		}
		return now
	}
	calm := step("before")
	size := int(calm.Free) * calm.PageSize * 6 / 10
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < size; i += calm.PageSize {
		b[i] = 1
	}
	for i := 0; i+calm.PageSize <= size; i += 2 * calm.PageSize {
		if err := unix.Madvise(b[i:i+calm.PageSize], unix.MADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
	broken := step("fragmented")
	if err := unix.Munmap(b); err != nil {
		t.Fatal(err)
	}
	after := step("after")
	if broken.Fragmentation < calm.Fragmentation+0.2 || after.Fragmentation > broken.Fragmentation-0.2 {
		t.Errorf("%.4f, %.4f, %.4f: it does not rise and fall", calm.Fragmentation, broken.Fragmentation, after.Fragmentation)
	}
}

// Of the machine it runs on: every frame has one class, and the map's sums are the
// counters' within what changes meanwhile.
func TestKernelMapReconciles(t *testing.T) {
	c, s := native(t)
	if os.Getenv("CLOUDFLASH_KERNEL_TESTS") != "1" {
		t.Skip("needs CLOUDFLASH_KERNEL_TESTS=1")
	}
	totals, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	s.Layout(totals)
	passOnce(t, s)
	m := s.Status().Map
	t.Logf("counters %+v", totals)
	t.Logf("map %+v", m)
	if have := m.Scanned - m.Absent; have != totals.Total {
		t.Errorf("the map has %d frames with memory, /proc/iomem %d", have, totals.Total)
	}
	if totals.Uninitialised == 0 && m.Uninitialised != 0 {
		t.Errorf("%d frames uninitialised on a kernel that initialises all", m.Uninitialised)
	}
	if r := totals.Residual; r > 4096 || r < -4096 {
		t.Errorf("residual of %d pages", r)
	}
	var names []string
	for c, n := range s.Status().Classes {
		names = append(names, c.String()+"="+strconv.FormatUint(n, 10))
	}
	t.Log(strings.Join(names, " "))
}

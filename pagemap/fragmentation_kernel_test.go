package pagemap

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

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

// compareIndex reads the kernel's index between two of ours, and returns by how much
// the worst of all zones and orders is off: outside of both, as memory may move.
func compareIndex(t *testing.T, c *Counters, path string) (worst float64) {
	t.Helper()
	var before, after Totals
	var theirs map[string][]float64
	for deadline := time.Now().Add(30 * time.Second); ; {
		var err error
		if before, err = c.Read(); err != nil {
			t.Fatal(err)
		}
		theirs = kernelIndex(t, path)
		if after, err = c.Read(); err != nil {
			t.Fatal(err)
		}
		if math.Abs(before.Fragmentation-after.Fragmentation) < 0.005 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("memory is never at rest")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(theirs) == 0 || len(before.Zones) != len(after.Zones) {
		t.Fatalf("debugfs has %d zones; we have %d, then %d", len(theirs), len(before.Zones), len(after.Zones))
	}
	for i, z := range after.Zones {
		for order, v := range theirs[strconv.Itoa(z.Node)+z.Name] {
			first, ok1 := before.Zones[i].FreeList.Unusable(order)
			last, ok2 := z.FreeList.Unusable(order)
			if ok1 && ok2 {
				worst = max(worst, min(first, last)-v, v-max(first, last))
			}
		}
	}
	return worst
}

// frames are the page frames of a mapping, by page.
func frames(t *testing.T, b []byte) []uint64 {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw := make([]byte, 8*(len(b)/os.Getpagesize()))
	at := int64(uintptr(unsafe.Pointer(&b[0]))) / int64(os.Getpagesize()) * 8
	if _, err := f.ReadAt(raw, at); err != nil {
		t.Fatal(err)
	}
	all := make([]uint64, len(raw)/8)
	for i := range all {
		all[i] = binary.NativeEndian.Uint64(raw[8*i:]) & (1<<55 - 1)
	}
	return all
}

// keepFew lets processors keep few of the pages that are freed to themselves: such are
// neither free nor used by anybody.
func keepFew(t *testing.T) {
	t.Helper()
	const sysctl = "/proc/sys/vm/percpu_pagelist_high_fraction"
	was, err := os.ReadFile(sysctl)
	if err == nil {
		err = os.WriteFile(sysctl, []byte("1000"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(sysctl, was, 0) })
}

// fragment takes two fifths of what is free and gives back every page of an even frame.
// The odd ones stay, so that these are free alone, whatever memory was like before. It
// returns how many there are, and what gives back the rest.
func fragment(t *testing.T, now Totals) (freed uint64, giveBack func()) {
	t.Helper()
	size := int(now.Free) * 4 / 10 * now.PageSize
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < size; i += now.PageSize {
		b[i] = 1
	}
	for i, frame := range frames(t, b) {
		if frame == 0 || frame%2 != 0 {
			continue
		}
		if err := unix.Madvise(b[i*now.PageSize:(i+1)*now.PageSize], unix.MADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		freed++
	}
	return freed, func() {
		if err := unix.Munmap(b); err != nil {
			t.Fatal(err)
		}
	}
}

// The index is the kernel's own, whatever memory is like, and what a test fragments on
// purpose is in it.
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
		t.Helper()
		worst := compareIndex(t, c, path)
		before, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		s.Layout(before)
		passOnce(t, s)
		now, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		m := s.Status().Map
		mapped := float64(m.Fragmented) / float64(m.Free)
		t.Logf("%-10s fragmentation %.4f (map: %.4f), off by at most %.4f from debugfs; %d of %d free pages "+
			"fragmented, %d huge blocks; %.3f of blocks movable", name, now.Fragmentation, mapped, worst, now.Fragmented, now.Free,
			now.HugeBlocks, float64(m.MovableBlocks)/float64(m.Blocks))
		if worst > 0.002 {
			t.Errorf("%s: off by %.4f from the kernel's own", name, worst)
		}
		least, most := min(before.Fragmentation, now.Fragmentation), max(before.Fragmentation, now.Fragmentation)
		if mapped < least-0.02 || mapped > most+0.02 {
			t.Errorf("%s: the map has %.4f, the counters %.4f to %.4f", name, mapped, least, most)
		}
		return now
	}

	keepFew(t)
	calm := step("before")
	freed, giveBack := fragment(t, calm)
	broken := step("fragmented")
	if float64(broken.Fragmented) < 0.9*float64(freed) || freed < calm.Free/10 {
		t.Errorf("%d pages are free alone, %d are fragmented", freed, broken.Fragmented)
	}
	giveBack()
	step("after") // how far it falls is the kernel's business
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

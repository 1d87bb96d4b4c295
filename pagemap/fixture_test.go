package pagemap

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fixture unpacks the files of a kernel into a directory.
func fixture(t testing.TB, kernel string) FS {
	t.Helper()
	dir := t.TempDir()
	err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", kernel)))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"proc/kpageflags", "proc/kpagecgroup"} {
		packed, err := os.Open(filepath.Join(dir, name+".gz"))
		if err != nil {
			t.Fatal(err)
		}
		defer packed.Close()
		z, err := gzip.NewReader(packed)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, z); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return FS(dir)
}

// captured is what a kernel showed, and what is made of it.
type captured struct {
	totals  Totals // without zones and meminfo
	mapped  MapTotals
	classes map[string]uint64
	cgroup  uint64 // inode of a cgroup with a process that holds 64 MiB
	owned   OwnerStats
}

// The files of a kernel were captured one after another: what is free differs by
// what happened meanwhile. Those of 6.18 are of a host with memory that was never
// initialised, and their flags end at 4.5 GiB of 24.
func TestCapturedKernels(t *testing.T) {
	for kernel, want := range kernels {
		t.Run(kernel, func(t *testing.T) {
			fs := fixture(t, kernel)
			counters, err := fs.OpenCounters(4096)
			if err != nil {
				t.Fatal(err)
			}
			defer counters.Close()
			totals, err := counters.Read()
			if err != nil {
				t.Fatal(err)
			}
			s, err := fs.NewScanner(Options{PageSize: 4096, Owners: func() map[uint64]string { return map[uint64]string{want.cgroup: "vm"} }})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.Layout(totals)
			passOnce(t, s)
			compareKernel(t, want, totals, s)
			compareFixtureIndex(t, kernel, totals)
		})
	}
}

func compareKernel(t *testing.T, want captured, totals Totals, s *Scanner) {
	t.Helper()
	got := captured{totals: totals, mapped: s.Status().Map, classes: map[string]uint64{}, cgroup: want.cgroup}
	got.totals.Zones, got.totals.Meminfo, got.totals.Fragmentation = nil, Meminfo{}, 0
	for c, n := range s.Status().Classes {
		if n > 0 {
			got.classes[c.String()] = n
		}
	}
	owners, err := s.Owners()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range owners {
		if o.Owner == "vm" {
			got.owned = o
		}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(captured{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// compareFixtureIndex compares with what debugfs said at the same time.
func compareFixtureIndex(t *testing.T, kernel string, totals Totals) {
	t.Helper()
	path := filepath.Join("testdata", kernel, "unusable_index")
	if _, err := os.Stat(path); err != nil {
		return // that kernel has no debugfs
	}
	theirs := kernelIndex(t, path)
	for _, z := range totals.Zones {
		for order, v := range theirs[strconv.Itoa(z.Node)+z.Name] {
			if ours, ok := z.FreeList.Unusable(order); !ok || ours < v-0.001 || ours > v+0.002 {
				t.Errorf("zone %s, order %d: %.4f, debugfs %.3f", z.Name, order, ours, v)
			}
		}
	}
}

var kernels = map[string]captured{
	"6.12": {
		totals: Totals{PageSize: 4096, HugeOrder: 9, Span: 131025, Total: 130927, Absent: 98, Free: 89591, Fragmented: 1527, Used: 41336,
			Reserved: 12145, Managed: 118782, Residual: -28, HugeBlocks: 172, HasFree: true},
		mapped: MapTotals{Scanned: 131072, Span: 131025, Free: 89591, Fragmented: 1527, Used: 41336, Unmovable: 21061, Absent: 145,
			Blocks: 254, MovableBlocks: 205},
		classes: map[string]uint64{"absent": 145, "anon": 16801, "file": 3474, "free": 89591, "kernel": 5883, "page_table": 181,
			"reserved": 12145, "slab": 2852},
		cgroup: 78, // memory.current: 17,469 pages, 20 of them slab, up to 128 charged in advance
		owned: OwnerStats{Owner: "vm", Pages: 17325, PassPages: 17325, InRuns: 16163, Runs: []RunCount{{0, 13, 13}, {1, 8, 21}, {2, 11, 49},
			{3, 1, 8}, {4, 1, 16}, {5, 1, 59}, {8, 3, 996}, {9, 1, 512}, {13, 1, 15651}}},
	},
	"6.1": {
		totals: Totals{PageSize: 4096, HugeOrder: 9, Span: 131025, Total: 130927, Absent: 98, Free: 88318, Fragmented: 1278, Used: 42609,
			Reserved: 13900, Managed: 117027, HugeBlocks: 170, HasFree: true},
		mapped: MapTotals{Scanned: 131072, Span: 131025, Free: 88814, Fragmented: 1262, Used: 42113, Unmovable: 22676, Absent: 145,
			Blocks: 254, MovableBlocks: 203},
		classes: map[string]uint64{"absent": 145, "anon": 16787, "file": 2650, "free": 88814, "kernel": 3759, "page_table": 100,
			"reserved": 13900, "slab": 4917},
		cgroup: 68, // memory.current: 17,405 pages
		owned: OwnerStats{Owner: "vm", Pages: 17310, PassPages: 17310, InRuns: 16009, Runs: []RunCount{{0, 37, 37}, {1, 18, 40}, {2, 9, 41},
			{3, 3, 30}, {4, 1, 16}, {6, 1, 76}, {8, 3, 1061}, {9, 2, 1152}, {13, 1, 14857}}},
	},
	"6.18": {
		totals: Totals{PageSize: 4096, HugeOrder: 9, Span: 6553600, Total: 6291358, Absent: 262242, Free: 2340745, Fragmented: 122249,
			Uninitialised: 2379610, Used: 1571003, Reserved: 120334, Managed: 3791414, Residual: -2085, HugeBlocks: 4333, HasFree: true, Worst: 2},
		mapped: MapTotals{Scanned: 6291456, Span: 6553600, Free: 823913, Fragmented: 5737, Used: 90933, Unmovable: 30240, Absent: 5374050,
			Uninitialised: 2560, Blocks: 1786, MovableBlocks: 1630},
		classes: map[string]uint64{"absent": 5374050, "anon": 6319, "file": 54374, "free": 823913, "kernel": 7911, "page_table": 611,
			"reserved": 9576, "slab": 12142, "uninitialised": 2560},
	},
}

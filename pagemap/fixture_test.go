package pagemap

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
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

// What three kernels show, and what is made of it. Their files were captured one
// after another: free pages differ by what happened meanwhile. Of 6.18, the flags
// end at 4.5 GiB of 24.
func TestCapturedKernels(t *testing.T) {
	for kernel, c := range map[string]struct {
		totals   Totals // without zones
		mapped   MapTotals
		classes  map[Class]uint64
		owner    uint64 // inode of a cgroup that holds 64 MiB, and its pages
		pages    uint64
		movable  uint64
		freeDiff int64 // free by the map less that of the zones it covers
	}{
		"6.12": {},
		"6.1":  {},
		"6.18": {},
	} {
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
			s, err := fs.NewScanner(Options{PageSize: 4096, Owners: func() map[uint64]string { return map[uint64]string{c.owner: "vm"} }})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.Layout(totals)
			if err := s.pass(context.Background(), true, func() bool { return false }); err != nil {
				t.Fatal(err)
			}
			st := s.Status()
			totals.Zones = nil
			t.Logf("%#v\n%#v\n%v", totals, st.Map, st.Classes)
			if diff := cmp.Diff(c.totals, totals); diff != "" {
				t.Errorf("totals (-want +got):\n%s", diff)
			}
		})
	}
}

package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// kernels are those that testdata was captured on, from a busy cgroup with
// limits.
var kernels = []string{"6.1", "6.12"}

func fixture(tb testing.TB, kernel, file string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", kernel, file))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// fixtureReader reads a directory of captured files as if it were a cgroup.
func fixtureReader(tb testing.TB, kernel string) *Reader {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", kernel))); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	r, err := group{dir}.OpenReader()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	return r
}

// sample is everything a Reader can tell.
type sample struct {
	CPU                CPUStat
	Stat               MemoryStat
	Events             MemoryEvents
	IO                 IOStat
	Current, Peak, PID int64
	Memory             Pressure
	Populated, Frozen  bool
}

func (s *sample) read(r *Reader) error {
	var errs [9]error
	s.CPU, errs[0] = r.CPU()
	s.Stat, errs[1] = r.MemoryStat()
	s.Events, errs[2] = r.MemoryEvents()
	s.IO, errs[3] = r.IO()
	s.Current, errs[4] = r.MemoryCurrent()
	s.Peak, errs[5] = r.MemoryPeak()
	s.PID, errs[6] = r.PIDs()
	s.Memory, errs[7] = r.Pressure("memory")
	s.Populated, s.Frozen, errs[8] = r.Events()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestReaderOnCapturedKernels(t *testing.T) {
	var s sample
	if err := s.read(fixtureReader(t, "6.12")); err != nil {
		t.Fatal(err)
	}
	want := CPUStat{Usage: 495361 * time.Microsecond, User: 296404 * time.Microsecond, System: 198956 * time.Microsecond, Periods: 11, Throttled: 9, ThrottledTime: 916570 * time.Microsecond}
	if diff := cmp.Diff(want, s.CPU); diff != "" {
		t.Error(diff)
	}
	if s.IO != (IOStat{ReadBytes: 888832, ReadOps: 18}) || s.Peak != 2322432 || s.Current == 0 || s.Current > s.Peak || !s.Populated || s.Frozen || s.PID == 0 {
		t.Errorf("%+v", s)
	}
	if s.Stat.Anon == 0 || s.Stat.PageFaults == 0 || s.Stat.Anon+s.Stat.File+s.Stat.Kernel > uint64(s.Peak) {
		t.Errorf("memory.stat: %+v", s.Stat)
	}
	if err := s.read(fixtureReader(t, "6.1")); err != nil || s.CPU.Throttled != 7 {
		t.Errorf("6.1: %+v, %v", s.CPU, err)
	}
}

func TestReaderAllocatesNothing(t *testing.T) {
	r := fixtureReader(t, "6.12")
	var s sample
	if err := s.read(r); err != nil { // opens the files and lets the buffer grow
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := s.read(r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a sample", n)
	}
}

func TestReaderErrors(t *testing.T) {
	r := fixtureReader(t, "6.12")
	if err := os.Remove(filepath.Join(r.path, "memory.peak")); err != nil {
		t.Fatal(err)
	}
	var u *UnsupportedError
	if _, err := r.MemoryPeak(); !errors.As(err, &u) || !errors.Is(err, ErrUnsupported) || u.Feature != "memory.peak" || u.Needs != "Linux 5.19" {
		t.Errorf("no such file: %v", err)
	}
	if err := os.WriteFile(filepath.Join(r.path, "cpu.stat"), []byte("usage_usec ?\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CPU(); err == nil || !strings.HasPrefix(err.Error(), "parse cpu.stat of "+r.path) {
		t.Errorf("rubble: %v", err)
	}
	if _, err := r.Pressure("disk"); err == nil || !strings.Contains(err.Error(), "cpu, memory or io") {
		t.Errorf("another resource: %v", err)
	}
	if err := os.RemoveAll(r.path); err != nil {
		t.Fatal(err)
	}
	if _, err := r.IO(); !errors.Is(err, ErrGone) {
		t.Errorf("removed: %v", err)
	}
	if _, err := (group{r.path}).OpenReader(); !errors.Is(err, ErrGone) {
		t.Errorf("open after removal: %v", err)
	}
}

// A file longer than the buffer is read whole.
func TestReaderGrows(t *testing.T) {
	r := fixtureReader(t, "6.12")
	long := strings.Repeat("padding_of_no_meaning 1\n", 1000) + "anon 42\n"
	if err := os.WriteFile(filepath.Join(r.path, "memory.stat"), []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := r.MemoryStat(); err != nil || s.Anon != 42 {
		t.Errorf("%+v, %v", s, err)
	}
}

func BenchmarkSample(b *testing.B) {
	r := fixtureReader(b, "6.12")
	var s sample
	b.ReportAllocs()
	for b.Loop() {
		if err := s.read(r); err != nil {
			b.Fatal(err)
		}
	}
}

package pagemap

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// native opens the files of this machine, or skips with what is missing.
func native(t testing.TB) (*Counters, *Scanner) {
	t.Helper()
	c, err := FS("/").OpenCounters(os.Getpagesize())
	if err != nil {
		t.Skipf("page-level files of this machine: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s, err := FS("/").NewScanner(Options{PageSize: os.Getpagesize(), Owners: func() map[uint64]string { return nil }})
	if err != nil {
		t.Skipf("page-level files of this machine: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return c, s
}

func passOnce(t testing.TB, s *Scanner) {
	t.Helper()
	if err := s.pass(context.Background(), true, func() bool { return false }); err != nil {
		t.Fatal(err)
	}
}

// Of this machine, whichever it is: the pages that the scan finds free are those
// that the kernel counts.
func TestScanAgreesWithTheKernelsCounters(t *testing.T) {
	c, s := native(t)
	for try := 1; ; try++ {
		before, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		s.Layout(before)
		began := time.Now()
		passOnce(t, s)
		took := time.Since(began)
		after, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		m := s.Status().Map
		between := float64(before.Free+after.Free) / 2
		off := (float64(m.Free) - between) / between
		t.Logf("%d frames in %v: free %d by scan, %d and %d by the counters: %+.3f %%; fragmented %d, %d; uninitialised %d, %d; residual of the counters %d",
			m.Span, took, m.Free, before.Free, after.Free, 100*off, m.Fragmented, after.Fragmented, m.Uninitialised, after.Uninitialised, after.Residual)
		if sum := m.Free + m.Used + m.Absent + m.Uninitialised; sum != m.Scanned {
			t.Fatalf("free %d, used %d, absent %d, uninitialised %d are not the %d scanned", m.Free, m.Used, m.Absent, m.Uninitialised, m.Scanned)
		}
		if off > -0.005 && off < 0.005 {
			break
		}
		if try == 5 { // others use the memory of this machine meanwhile
			t.Fatalf("off by %.3f %%", 100*off)
		}
	}
	t.Log(s.Status())
}

// processCPU is the CPU time of this process.
func processCPU(t testing.TB) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

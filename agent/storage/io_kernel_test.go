package storage

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloudflash/cgroup"
	"cloudflash/cgroup/cgrouptest"
	"golang.org/x/sys/unix"
)

// writer is a slice with a scope in it, which writes to one device.
type writer struct {
	slice  *cgroup.Slice
	scope  *cgroup.Scope
	device Device
}

func newWriter(t *testing.T, s *cgroup.Slice, d Device) *writer {
	t.Helper()
	w := &writer{slice: s, scope: s.Scope("a"), device: d}
	if err := s.Create(); err != nil {
		t.Fatal(err)
	}
	if err := w.scope.Create(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writer) limit(t *testing.T, l cgroup.IODevice) {
	t.Helper()
	l.Major, l.Minor = w.device.Major, w.device.Minor
	if err := w.slice.Apply(cgroup.Limits{IO: []cgroup.IODevice{l}}); err != nil {
		t.Fatal(err)
	}
}

// written is what io.stat says has gone to the device.
func (w *writer) written(t *testing.T, field string) float64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.slice.Path(), "io.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, fmt.Sprintf("%d:%d ", w.device.Major, w.device.Minor))
		if m := regexp.MustCompile(field + `=(\d+)`).FindStringSubmatch(rest); ok && m != nil {
			n, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// dd runs dd in the scope and tells how long it took.
func (w *writer) dd(t *testing.T, args ...string) time.Duration {
	t.Helper()
	fd, err := w.scope.OpenDir()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.Command("dd", append([]string{"bs=64k", "status=none"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return time.Since(began)
}

// direct is how many chunks of 64 KiB go through per second, past the cache.
func (w *writer) direct(t *testing.T, dir string, chunks int) float64 {
	t.Helper()
	out := filepath.Join(dir, "direct")
	defer os.Remove(out)
	return float64(chunks) / w.dd(t, "if=/dev/zero", "of="+out, fmt.Sprintf("count=%d", chunks), "oflag=direct").Seconds()
}

// buffered is how many chunks per second are written back: they are in memory
// when the clock starts. It cannot be read from io.stat meanwhile: XFS of 6.12
// makes one request of tens of megabytes, which waits as a whole.
func (w *writer) buffered(t *testing.T, dir string, chunks int) (perSecond, operations float64) {
	t.Helper()
	out := filepath.Join(dir, "buffered")
	defer os.Remove(out)
	w.dd(t, "if=/dev/zero", "of="+out, fmt.Sprintf("count=%d", chunks))
	before := w.written(t, "wios")
	seconds := w.dd(t, "if=/dev/null", "of="+out, "conv=notrunc,fsync").Seconds()
	return float64(chunks) / seconds, (w.written(t, "wios") - before) / seconds
}

// within wants a rate within 10 % of its limit, in three tries. On a machine with
// more to do than it can, a writer may stay below; no more than half is asked for
// then, which two limits on top of each other would not reach.
func within(t *testing.T, what string, limit float64, measure func() float64) {
	t.Helper()
	best := math.Inf(1)
	for range 3 {
		ratio := measure() / limit
		t.Logf("%s: %.3f of the limit", what, ratio)
		if math.Abs(ratio-1) < math.Abs(best-1) {
			best = ratio
		}
		if math.Abs(best-1) <= 0.1 {
			return
		}
	}
	if best > 1.1 || best < 0.55 {
		t.Errorf("%s: %.3f of the limit", what, best)
	}
}

// io.max on the device holds for direct and for buffered writes, and only for
// the slice that has it.
func TestKernelIOMaxHoldsOnTheDevice(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		d, err := s.Device()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(d.Name, "loop") || d.Major != loopMajor {
			t.Errorf("device %+v", d)
		}
		parent := cgrouptest.Kernel(t)
		limited, free := newWriter(t, parent.Slice("limited"), d), newWriter(t, parent.Slice("free"), d)
		dir, other := assign(t, s, "a", 0, 256*mib), assign(t, s, "b", 1, 256*mib)

		const chunks = 16.0 // in a MiB
		limited.limit(t, cgroup.IODevice{WriteBPS: 5 * mib})
		within(t, "bytes, direct", 5, func() float64 { return limited.direct(t, dir, 25*chunks) / chunks })
		within(t, "bytes, buffered", 5, func() float64 { n, _ := limited.buffered(t, dir, 25*chunks); return n / chunks })
		n, _ := free.buffered(t, other, 25*chunks)
		t.Logf("without a limit: %.1f MiB/s", n/chunks)

		limited.limit(t, cgroup.IODevice{WriteIOPS: 50})
		within(t, "operations, direct", 50, func() float64 { return limited.direct(t, dir, 300) })
		// The kernel merges what is buffered, so there may be less than is allowed.
		if _, operations := limited.buffered(t, dir, 2048); operations > 55 {
			t.Errorf("%.0f buffered operations per second, limited to 50", operations)
		}
	})
}

func TestKernelDeviceOfTheDiskIsTheDisk(t *testing.T) {
	needVM(t)
	d, err := DeviceOf("/var/lib")
	if err != nil || d.Name != "vdb" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, path := range []string{"/run", "/proc"} {
		if d, err := DeviceOf(path); err == nil {
			t.Errorf("%s is on %+v", path, d)
		}
	}
}

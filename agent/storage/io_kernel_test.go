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

// rate runs dd and tells how much of the field it made per second, after a tenth
// of it all: a buffered writer fills memory first, and a limit begins with a burst.
func (w *writer) rate(t *testing.T, field string, total float64, args ...string) float64 {
	t.Helper()
	fd, err := w.scope.OpenDir()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.Command("dd", append([]string{"if=/dev/zero", "bs=64k", "status=none"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	zero := w.written(t, field)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var began, ended time.Time
	var first, last float64
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return (last - first) / ended.Sub(began).Seconds()
		case <-tick.C:
			n, now := w.written(t, field)-zero, time.Now()
			if began.IsZero() && n >= total/10 {
				began, first = now, n
			}
			if n > last { // the end is when the last of it went
				ended, last = now, n
			}
		}
	}
}

// within measures up to three times: a busy machine can make a writer slower
// than its limit, and nothing may make it faster.
func within(t *testing.T, what string, limit float64, measure func() float64) {
	t.Helper()
	var ratio float64
	for range 3 {
		ratio = measure() / limit
		t.Logf("%s: %.3f of the limit", what, ratio)
		if ratio > 1.1 || ratio >= 0.9 {
			break
		}
	}
	if math.Abs(ratio-1) > 0.1 {
		t.Errorf("%s: %.3f of the limit", what, ratio)
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
		out := "of=" + filepath.Join(assign(t, s, "a", 0, 256*mib), "f")
		other := "of=" + filepath.Join(assign(t, s, "b", 1, 256*mib), "f")

		const total = float64(40 * mib)
		limited.limit(t, cgroup.IODevice{WriteBPS: 5 * mib})
		within(t, "bytes, direct", float64(5*mib), func() float64 { return limited.rate(t, "wbytes", total, out, "count=640", "oflag=direct") })
		within(t, "bytes, buffered", float64(5*mib), func() float64 { return limited.rate(t, "wbytes", total, out, "count=640", "conv=fsync") })
		t.Logf("without a limit: %.1f MiB/s", free.rate(t, "wbytes", total, other, "count=640", "conv=fsync")/float64(mib))

		limited.limit(t, cgroup.IODevice{WriteIOPS: 50})
		within(t, "operations, direct", 50, func() float64 { return limited.rate(t, "wios", 400, out, "count=400", "oflag=direct") })
		// The kernel merges what is buffered, so there may be less than is allowed.
		if rate := limited.rate(t, "wios", 100, out, "count=2048", "conv=fsync"); rate > 55 {
			t.Errorf("%.0f buffered operations per second, limited to 50", rate)
		}
	})
}

func TestKernelDeviceOfTheDiskIsTheDisk(t *testing.T) {
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

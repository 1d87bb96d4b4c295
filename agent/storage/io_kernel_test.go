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

	"cloudflash/cgroup"
	"cloudflash/cgroup/cgrouptest"
	"golang.org/x/sys/unix"
)

// dd writes in a scope and tells its seconds.
func dd(t *testing.T, c *cgroup.Scope, args ...string) float64 {
	t.Helper()
	fd, err := c.OpenDir()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.Command("dd", append([]string{"if=/dev/zero", "bs=64k"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := regexp.MustCompile(`copied, ([0-9.e+-]+) s`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("%s", out)
	}
	seconds, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return seconds
}

// operations is what io.stat counts as writes to a device.
func operations(t *testing.T, s *cgroup.Slice, d Device) float64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Path(), "io.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if m := regexp.MustCompile(fmt.Sprintf(`^%d:%d .*\bwios=(\d+)`, d.Major, d.Minor)).FindStringSubmatch(line); m != nil {
			n, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
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
		limited, free := parent.Slice("limited"), parent.Slice("free")
		scopes := map[*cgroup.Slice]*cgroup.Scope{limited: limited.Scope("a"), free: free.Scope("a")}
		for slice, scope := range scopes {
			if err := slice.Create(); err != nil {
				t.Fatal(err)
			}
			if err := scope.Create(); err != nil {
				t.Fatal(err)
			}
		}
		limit := func(l cgroup.IODevice) {
			t.Helper()
			l.Major, l.Minor = d.Major, d.Minor
			if err := limited.Apply(cgroup.Limits{IO: []cgroup.IODevice{l}}); err != nil {
				t.Fatal(err)
			}
		}
		out := "of=" + filepath.Join(assign(t, s, "a", 0, 256*mib), "f")
		other := "of=" + filepath.Join(assign(t, s, "b", 1, 256*mib), "f")

		limit(cgroup.IODevice{WriteBPS: 5 * mib})
		const megabytes = 40
		count := fmt.Sprintf("count=%d", megabytes*16)
		within(t, "direct writes", 5, func() float64 { return megabytes / dd(t, scopes[limited], out, count, "oflag=direct") })
		within(t, "buffered writes", 5, func() float64 { return megabytes / dd(t, scopes[limited], out, count, "conv=fsync") })
		if rate := megabytes / dd(t, scopes[free], other, count, "conv=fsync"); rate < 6 {
			t.Logf("the neighbour without a limit writes %.1f MiB/s: the machine is busy", rate)
		}

		limit(cgroup.IODevice{WriteIOPS: 50})
		within(t, "operations, direct", 50, func() float64 { return 400 / dd(t, scopes[limited], out, "count=400", "oflag=direct") })
		before := operations(t, limited, d)
		seconds := dd(t, scopes[limited], out, "count=1024", "conv=fsync")
		if rate := (operations(t, limited, d) - before) / seconds; rate > 55 {
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

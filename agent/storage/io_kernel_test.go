package storage

import (
	"fmt"
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

// run runs a shell script in the scope and tells how long it took.
func (w *writer) run(t *testing.T, script string) time.Duration {
	t.Helper()
	fd, err := w.scope.OpenDir()
	if err != nil {
		t.Error(err)
		return 0
	}
	defer unix.Close(fd)
	cmd := exec.Command("sh", "-ec", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", script, err, out)
	}
	return time.Since(began)
}

// held wants that so much took about as long as the limit makes it. Less never is
// right. More may be the machine's: what the same took without a limit, and the time
// it was away. What is left of the double is for two limits on top of each other.
func held(t *testing.T, what string, took, want, free, away time.Duration) {
	t.Helper()
	t.Logf("%s: %v, want %v; %v without a limit, the machine was away for %v", what, took, want, free, away)
	if took < want*8/10 || took > want*19/10+3*free+3*away {
		t.Errorf("%s: %v, want %v", what, took, want)
	}
}

// awayFor is for how long nobody ran who wanted to while f did.
func awayFor(f func()) (away time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-done:
			return away
		case <-time.After(time.Millisecond):
			away += max(0, time.Since(last)-10*time.Millisecond)
		}
	}
}

// io.max on the device holds for direct and for buffered writes, and only for
// the slice that has it.
func TestKernelIOMaxHoldsOnTheDevice(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		t.Parallel() // it mostly waits
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

		// Who has no limit is done first, whatever else the machine does.
		const direct = "dd if=/dev/zero of=direct bs=64k count=128 oflag=direct status=none"
		limited.limit(t, cgroup.IODevice{WriteBPS: 64 << 10})
		slow := make(chan struct{})
		go func() {
			defer close(slow)
			limited.run(t, "cd "+dir+"; "+direct)
		}()
		free.run(t, "cd "+other+"; "+direct)
		select {
		case <-slow:
			t.Error("a limited writer is not slower than one without a limit")
		default:
		}
		limited.limit(t, cgroup.IODevice{WriteBPS: gib})
		<-slow

		// Each script ends when all it has written is on the device.
		const bytes, operations = 8 << 20, 40
		scripts := []struct {
			what, script string
			limit        cgroup.IODevice
			field        string
			least        float64
		}{
			{"bytes, direct", direct,
				cgroup.IODevice{WriteBPS: bytes}, "wbytes", bytes},
			{"bytes, buffered", "dd if=/dev/zero of=buffered bs=64k count=128 conv=fsync status=none",
				cgroup.IODevice{WriteBPS: bytes}, "wbytes", bytes},
			{"operations, direct", "dd if=/dev/zero of=direct bs=64k count=40 oflag=direct status=none",
				cgroup.IODevice{WriteIOPS: operations}, "wios", operations},
			// The kernel merges what is buffered of one file, so there is one to an operation.
			{"operations, buffered", "for i in $(seq 40); do echo x >$i; done; sync -f .",
				cgroup.IODevice{WriteIOPS: operations}, "wios", operations},
		}
		for _, s := range scripts {
			limited.limit(t, s.limit)
			before, others := limited.written(t, s.field), free.written(t, s.field)
			unlimited := free.run(t, "cd "+other+"; "+s.script)
			var took time.Duration
			away := awayFor(func() { took = limited.run(t, "cd "+dir+"; "+s.script) })
			wrote, others := limited.written(t, s.field)-before, free.written(t, s.field)-others

			if wrote < s.least || others < s.least || wrote > 2*s.least {
				t.Errorf("%s: %.0f and %.0f %s, want %.0f", s.what, wrote, others, s.field, s.least)
			}
			want := time.Duration(wrote / s.least * float64(time.Second))
			held(t, s.what, took, want, unlimited, away)
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

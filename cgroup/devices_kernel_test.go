package cgroup_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloudflash/cgroup"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// asProbe makes the test binary a process that opens devices instead.
const asProbe = "CLOUDFLASH_TEST_DEVICES"

func TestMain(m *testing.M) {
	if what := os.Getenv(asProbe); what != "" {
		probeDevices(what)
		return
	}
	m.Run()
}

// probeDevices opens "path flags" pairs and prints how that went. "loop" does it
// until it is killed: /dev/zero, which must open, and /dev/kmsg, which must not.
func probeDevices(what string) {
	if what == "loop" {
		for {
			if fd, err := unix.Open("/dev/zero", unix.O_RDWR, 0); err != nil {
				fmt.Println("refused")
			} else {
				_ = unix.Close(fd)
			}
			if fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY, 0); err == nil {
				fmt.Println("opened")
				_ = unix.Close(fd)
			}
		}
	}
	flags := map[string]int{"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR, "3": 3}
	var said []string
	for _, one := range strings.Split(what, ",") {
		path, how, _ := strings.Cut(one, " ")
		var err error
		if how == "m" {
			if err = unix.Mknod("/tmp/probe-node", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err == nil {
				_ = unix.Unlink("/tmp/probe-node")
			}
		} else {
			var fd int
			if fd, err = unix.Open(path, flags[how]|unix.O_NONBLOCK|unix.O_NOCTTY, 0); err == nil {
				_ = unix.Close(fd)
			}
		}
		switch err {
		case nil:
			said = append(said, "yes")
		case unix.EPERM:
			said = append(said, "no")
		default:
			said = append(said, err.Error())
		}
	}
	fmt.Print(strings.Join(said, " "))
}

// probe runs the test binary in the scope.
func probe(tb testing.TB, c *cgroup.Scope, what string) *exec.Cmd {
	tb.Helper()
	fd, err := c.OpenDir()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{asProbe + "=" + what, "GOMAXPROCS=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	return cmd
}

func opens(tb testing.TB, c *cgroup.Scope, what string) string {
	tb.Helper()
	out, err := probe(tb, c, what).Output()
	if err != nil {
		tb.Fatal(err)
	}
	return string(out)
}

func count(tb testing.TB, s *cgroup.Slice, want int) {
	tb.Helper()
	if n, err := s.Devices(); n != want || err != nil {
		tb.Errorf("%d filters, %v, want %d", n, err, want)
	}
}

func TestKernelDevices(t *testing.T) {
	s := slice(t)
	c := scope(t, s, "one")
	count(t, s, 0)
	for _, tt := range []struct {
		rules      []cgroup.DeviceRule
		what, want string
	}{
		{cgroup.MinimalDevices(), "/dev/null rw,/dev/zero r,/dev/full w,/dev/random r,/dev/urandom 3,/dev/ptmx rw", "yes yes yes yes yes yes"},
		{cgroup.MinimalDevices(), "/dev/kmsg r,/dev/kmsg w,/dev/mem r,/dev/vda r,/dev/zero m", "no no no no no"},
		{[]cgroup.DeviceRule{{'c', 1, 3, "rw"}, {'c', 1, 5, "r"}}, "/dev/zero r,/dev/zero w,/dev/zero rw,/dev/zero 3,/dev/zero m", "yes no no no no"},
		{[]cgroup.DeviceRule{{'c', 1, 3, "rw"}, {'c', 1, 5, "w"}}, "/dev/zero r,/dev/zero w,/dev/zero rw", "no yes no"},
		{[]cgroup.DeviceRule{{'c', 1, 3, "rw"}, {'c', 1, 5, "r"}, {'c', 1, cgroup.AnyDevice, "w"}}, "/dev/zero rw,/dev/kmsg r,/dev/kmsg w", "yes no yes"},
		{[]cgroup.DeviceRule{{'c', 1, 3, "rw"}, {'c', 1, 5, "m"}}, "/dev/zero m,/dev/zero r", "yes no"},
		{[]cgroup.DeviceRule{{'c', 1, 3, "rw"}, {'b', cgroup.AnyDevice, cgroup.AnyDevice, "r"}}, "/dev/vda r,/dev/zero r,/dev/vda rw", "yes no no"},
		{[]cgroup.DeviceRule{{'c', cgroup.AnyDevice, 3, "rw"}, {'c', 1, 3, "rwm"}}, "/dev/null rw,/dev/zero r", "yes no"},
		{nil, "/dev/zero r,/dev/kmsg r", "no no"},
	} {
		for range 2 { // the second time there is nothing to do
			if err := s.SetDevices(tt.rules); err != nil {
				t.Fatal(err)
			}
			count(t, s, 1)
			if got := opens(t, c, tt.what); got != tt.want {
				t.Errorf("%v: %s: %s, want %s", tt.rules, tt.what, got, tt.want)
			}
		}
	}
	if err := s.SetDevices([]cgroup.DeviceRule{{'x', 1, 1, "r"}}); err == nil {
		t.Error("a rule that is none")
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.SetDevices(nil); !errors.Is(err, cgroup.ErrGone) {
		t.Errorf("a slice that is gone: %v", err)
	}
}

// While rules change, what both sets allow opens, what neither allows does not,
// and no program is left over.
func TestKernelDevicesReplacedUnderLoad(t *testing.T) {
	s := slice(t)
	c := scope(t, s, "one")
	a := cgroup.MinimalDevices()
	b := append(cgroup.MinimalDevices(), cgroup.DeviceRule{Type: 'c', Major: 10, Minor: 229, Access: "rw"})
	if err := s.SetDevices(a); err != nil {
		t.Fatal(err)
	}
	files := openFiles(t)
	cmd := probe(t, c, "loop")
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var sum, least time.Duration = 0, time.Hour
	const times = 40
	for i := range times {
		began := time.Now()
		if err := s.SetDevices([][]cgroup.DeviceRule{b, a}[i%2]); err != nil {
			t.Fatal(err)
		}
		d := time.Since(began)
		sum, least = sum+d, min(least, d)
	}
	began := time.Now()
	for range times {
		if err := s.SetDevices(a); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a change takes %v, at best %v; finding that nothing has changed %v", sum/times, least, time.Since(began)/times)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if out.Len() > 0 {
		t.Errorf("there was a gap: %q...", out.String()[:min(out.Len(), 100)])
	}
	count(t, s, 1)
	if n := openFiles(t); n > files+2 { // the command's own
		t.Errorf("%d open files, there were %d", n, files)
	}
	until(t, "only one program is loaded", func() bool { return loaded(t) == 1 })
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "no program is loaded", func() bool { return loaded(t) == 0 })
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// loaded counts our programs in the whole kernel.
func loaded(t *testing.T) (n int) {
	t.Helper()
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		if info, err := p.Info(); err == nil && strings.HasPrefix(info.Name, "cfdev_") {
			n++
		}
		_ = p.Close()
	}
}

// The filter outlives whoever has set it, and whoever comes next finds it.
func TestKernelDevicesOutliveTheirMaker(t *testing.T) {
	s := slice(t)
	c := scope(t, s, "one")
	maker := exec.Command("/proc/self/exe", "-test.run=^TestSetDevicesOf$")
	maker.Env = []string{"CLOUDFLASH_TEST_SLICE=" + s.Path()}
	if out, err := maker.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	count(t, s, 1)
	if got := opens(t, c, "/dev/null rw,/dev/kmsg r"); got != "yes no" {
		t.Errorf("%s", got)
	}
	if err := s.SetDevices([]cgroup.DeviceRule{{'c', 1, 3, "rw"}, {'c', 1, 11, "r"}}); err != nil {
		t.Fatal(err)
	}
	count(t, s, 1)
	if got := opens(t, c, "/dev/null rw,/dev/kmsg r"); got != "yes yes" {
		t.Errorf("%s", got)
	}
}

// TestSetDevicesOf is what the maker above runs.
func TestSetDevicesOf(t *testing.T) {
	path := os.Getenv("CLOUDFLASH_TEST_SLICE")
	if path == "" {
		return
	}
	dir, id, _ := strings.Cut(path, "/vms/")
	parent, err := cgroup.OpenParent(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Slice(id).SetDevices(cgroup.MinimalDevices()); err != nil {
		t.Fatal(err)
	}
}

// Slices do not disturb each other.
func TestKernelDevicesOfManySlices(t *testing.T) {
	s := slice(t)
	path, _, _ := strings.Cut(s.Path(), "/vms/")
	parent, err := cgroup.OpenParent(path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := parent.Slice(fmt.Sprintf("many%d", i))
			if err := s.Create(); err != nil {
				t.Error(err)
				return
			}
			for range 10 {
				if err := errors.Join(s.SetDevices(cgroup.MinimalDevices()), s.SetDevices(nil)); err != nil {
					t.Error(err)
				}
			}
			count(t, s, 1)
		})
	}
	wg.Wait()
}

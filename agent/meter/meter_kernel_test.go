package meter

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloudflash/cgroup"
	"cloudflash/cgroup/cgrouptest"
	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// kernelVM is a slice with one scope.
func kernelVM(tb testing.TB, parent *cgroup.Parent, id string) (*cgroup.Slice, *cgroup.Scope) {
	tb.Helper()
	s := parent.Slice(id)
	if err := s.Create(); err != nil {
		tb.Fatal(err)
	}
	c := s.Scope("cl-1")
	if err := c.Create(); err != nil {
		tb.Fatal(err)
	}
	return s, c
}

// sh starts a shell that is born in the scope.
func sh(tb testing.TB, c *cgroup.Scope, script string) *exec.Cmd {
	tb.Helper()
	fd, err := c.OpenDir()
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// kernelSays reads a number of a flat keyed file, or the only one of another.
func kernelSays(tb testing.TB, dir, file, key string) uint64 {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		tb.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		name, value, two := strings.Cut(strings.TrimSpace(l), " ")
		if !two {
			name, value = "", name
		}
		if name == key {
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return n
		}
	}
	tb.Fatalf("%s of %s has no %q: %s", file, dir, key, b)
	return 0
}

// A sample of a VM under load is what the kernel's files say just before and just
// after, and its history is what the load was.
func TestKernelSampleUnderLoad(t *testing.T) {
	parent := cgrouptest.Kernel(t)
	slice, scope := kernelVM(t, parent, "load")
	if err := slice.Apply(cgroup.Limits{CPU: &cgroup.CPU{Quota: 20 * time.Millisecond, Period: 100 * time.Millisecond}}); err != nil {
		t.Fatal(err)
	}
	m := New(Config{StateDir: t.TempDir()})
	defer m.Close()
	vm, err := m.VM("load", slice)
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	cl, err := m.Scope("cl-1", scope)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	sh(t, scope, "while :; do :; done")
	dir := filepath.Join(parent.Dir(), "vms", "load")
	names := map[Count][2]string{CPUTime: {"cpu.stat", "usage_usec"}, UserTime: {"cpu.stat", "user_usec"}, SystemTime: {"cpu.stat", "system_usec"},
		Periods: {"cpu.stat", "nr_periods"}, ThrottledPeriods: {"cpu.stat", "nr_throttled"}, ThrottledTime: {"cpu.stat", "throttled_usec"},
		MemoryMax: {"memory.events", "max"}, OOMKills: {"memory.events", "oom_group_kill"}}
	scopeDir := filepath.Join(dir, "cl-1")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var first, last, began, ended uint64 // CPU time, and when it was read, in us
	for i := range 5 {                   // a history is of whole seconds
		<-tick.C
		last, ended = kernelSays(t, dir, "cpu.stat", "usage_usec"), uint64(time.Now().UnixMicro())
		if i == 0 {
			first, began = last, ended
		}
		ofScope := kernelSays(t, scopeDir, "cpu.stat", "usage_usec")
		before := map[Count]uint64{}
		for c, f := range names {
			before[c] = kernelSays(t, dir, f[0], f[1])
		}
		m.Pass(time.Now())
		s := vm.Last()
		for c, f := range names {
			if after := kernelSays(t, dir, f[0], f[1]); s.Counters[c] < before[c] || s.Counters[c] > after {
				t.Errorf("%s is %d, the kernel says %d to %d", f[1], s.Counters[c], before[c], after)
			}
		}
		used, after := cl.Last().Counters[CPUTime], kernelSays(t, scopeDir, "cpu.stat", "usage_usec")
		if used < ofScope || used > after {
			t.Errorf("the cloudlet used %d us, the kernel says %d to %d", used, ofScope, after)
		}
	}
	s := vm.Last()
	if n := s.Counters; n[ThrottledPeriods] == 0 || n[Periods] < n[ThrottledPeriods] || n[CPUWaiting] == 0 {
		t.Errorf("%d of %d periods throttled, %d us waiting", n[ThrottledPeriods], n[Periods], n[CPUWaiting])
	}
	now := kernelSays(t, dir, "memory.current", "")
	if s.Memory <= 0 || s.Memory > int64(now)+1<<20 || s.WorkingSet > s.Memory || s.Anon <= 0 || s.Kernel <= 0 || s.PIDs != 1 {
		t.Errorf("memory %d (now %d), working set %d, anon %d, kernel %d; %d pids", s.Memory, now, s.WorkingSet, s.Anon, s.Kernel, s.PIDs)
	}
	w, err := m.VMWindow("load", time.Now(), 4*time.Second, []string{"cpus", "pids"})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, v := range w.Series[0].Avg {
		sum += v // single seconds may be anything where the kernel that runs this one is busy
		if !(v >= 0) || w.Series[1].Avg[i] != 1 {
			t.Errorf("second %d: %v cpus, %v pids", i, v, w.Series[1].Avg[i])
		}
	}
	real := float64(last-first) / float64(ended-began)
	if mean := sum / float64(len(w.Times)); math.Abs(mean/real-1) > 0.5 || mean > 0.3 {
		t.Errorf("%v cpus on average, the kernel says %v, at a limit of 0.2", mean, real)
	}
	for name, c := range m.Collectors() {
		if !c.OK {
			t.Errorf("collector %s: %s", name, c.Error)
		}
	}
}

// VMs come and go while they are sampled: nothing fails, nothing is logged, and no
// file stays open.
func TestSystemVMsVanishMidSample(t *testing.T) {
	parent := cgrouptest.Kernel(t)
	var log bytes.Buffer
	m := New(Config{StateDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer m.Close()
	m.Pass(time.Now()) // opens the files of the host
	had := openFiles(t)
	stop := make(chan struct{})
	var sampler sync.WaitGroup
	passes := 0
	sampler.Go(func() {
		for now := time.Now(); ; passes++ {
			select {
			case <-stop:
				return
			default:
				now = now.Add(time.Second)
				m.Pass(now)
			}
		}
	})
	const vms = 30
	for i := range vms {
		id := fmt.Sprint("v", i)
		slice, scope := kernelVM(t, parent, id)
		vm, err := m.VM(id, slice)
		if err != nil {
			t.Fatal(err)
		}
		cl, err := m.Scope("cl-1", scope)
		if err != nil {
			t.Fatal(err)
		}
		for vm.Last().At.IsZero() { // its files are open
			time.Sleep(time.Millisecond)
		}
		if err := slice.Remove(t.Context()); err != nil { // under the sampler's hands
			t.Fatal(err)
		}
		cl.Close()
		vm.Close()
		m.Forget(id)
	}
	close(stop)
	sampler.Wait()
	if now := openFiles(t); now > had+2 { // those that a pass opens anew may differ
		t.Errorf("%d files open, %d before", now, had)
	}
	for name, c := range m.Collectors() {
		if !c.OK {
			t.Errorf("collector %s: %s", name, c.Error)
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", &log)
	}
	if len(m.vms)+len(m.scopes)+len(m.past) != 0 {
		t.Errorf("%d VMs, %d scopes, %d histories are left", len(m.vms), len(m.scopes), len(m.past))
	}
	t.Logf("%d VMs in %d passes", vms, passes)
}

func openFiles(tb testing.TB) int {
	tb.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(d)
}

// One second of 30 VMs, all moving, beside the same by containerd's Stat in the
// same run; and on the real kernel, too, a sample allocates nothing.
func TestKernelSamplingBesideContainerd(t *testing.T) {
	const vms, passes = 30, 10
	parent := cgrouptest.Kernel(t)
	m := New(Config{StateDir: t.TempDir()})
	defer m.Close()
	group, err := filepath.Rel(cgrouptest.Mount, parent.Dir())
	if err != nil {
		t.Fatal(err)
	}
	var probes []*Probe
	var managers []*cgroup2.Manager
	for i := range vms {
		id := fmt.Sprint("v", i)
		slice, _ := kernelVM(t, parent, id)
		p, err := m.VM(id, slice)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		probes = append(probes, p)
		manager, err := cgroup2.Load("/" + group + "/vms/" + id)
		if err != nil {
			t.Fatal(err)
		}
		managers = append(managers, manager)
	}
	now := time.Now()
	ours := func(moving bool) func() {
		return func() {
			now = now.Add(time.Second)
			for _, p := range probes {
				if moving {
					p.raw[CPUTime]-- // as if there had been a microsecond since
				}
				if err := p.pass(now.Unix(), now.Unix(), &m.scratch); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	theirs := func() {
		for _, manager := range managers {
			if _, err := manager.Stat(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 35 { // files are open, chunks have been packed
		ours(true)()
	}
	moving, idle, stat := cost(passes, ours(true)), cost(passes, ours(false)), cost(passes/5, theirs)
	t.Logf("%d VMs, CPU time of one pass: moving %v, idle %v, containerd Stat %v: %.3f and %.3f times as much",
		vms, moving, idle, stat, float64(moving)/float64(stat), float64(idle)/float64(stat))
	if moving > stat {
		t.Error("containerd is cheaper")
	}
	if n := testing.AllocsPerRun(10, ours(true)); n >= vms { // a tier's first chunk is made once in its life
		t.Errorf("%v allocations in a pass of %d VMs", n, vms)
	} else {
		t.Logf("%v allocations in a pass of %d VMs", n, vms)
	}
}

// cost is the CPU time of one of n runs, that of other processes left out.
func cost(n int, run func()) time.Duration {
	began := cpuTime()
	for range n {
		run()
	}
	return (cpuTime() - began) / time.Duration(n)
}

func cpuTime() time.Duration {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru) // cannot fail
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

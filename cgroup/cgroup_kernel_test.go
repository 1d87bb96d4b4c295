package cgroup_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloudflash/cgroup"
	"cloudflash/cgroup/cgrouptest"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func ptr[T any](v T) *T { return &v }

func slice(tb testing.TB) *cgroup.Slice {
	tb.Helper()
	s := cgrouptest.Kernel(tb).Slice("test")
	if err := s.Create(); err != nil {
		tb.Fatal(err)
	}
	return s
}

func scope(tb testing.TB, s *cgroup.Slice, name string) *cgroup.Scope {
	tb.Helper()
	c := s.Scope(name)
	if err := c.Create(); err != nil {
		tb.Fatal(err)
	}
	return c
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

func until(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within 30 s: %s", what)
		}
	}
}

// disk is the whole device below /var/lib, which the test VM has for this.
func disk(tb testing.TB) (major, minor uint32) {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/var/lib", &st); err != nil {
		tb.Fatal(err)
	}
	return unix.Major(st.Dev), unix.Minor(st.Dev)
}

func TestKernelLimitsAreReadBack(t *testing.T) {
	s := slice(t)
	major, minor := disk(t)
	want := cgroup.Limits{
		CPU: &cgroup.CPU{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond}, CPUWeight: ptr(int64(200)), CPUBurst: ptr(20 * time.Millisecond),
		MemoryMax: ptr(int64(64 << 20)), MemoryHigh: ptr(int64(48 << 20)), SwapMax: ptr(int64(0)), OOMGroup: ptr(true),
		IO:       []cgroup.IODevice{{Major: major, Minor: minor, ReadBPS: cgroup.Max, WriteBPS: 5 << 20, ReadIOPS: 100, WriteIOPS: cgroup.Max}},
		IOWeight: ptr(int64(50)), PIDsMax: ptr(int64(64)),
	}
	if err := s.Apply(want); err != nil {
		t.Fatal(err)
	}
	have, err := s.Limits()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
	for file, text := range map[string]string{"cpu.max": "50000 100000", "cpu.weight": "200", "cpu.max.burst": "20000", "memory.max": "67108864", "memory.high": "50331648",
		"memory.swap.max": "0", "memory.oom.group": "1", "io.weight": "default 50", "pids.max": "64"} {
		if got := file1(t, s.Path(), file); got != text {
			t.Errorf("%s is %q, want %q", file, got, text)
		}
	}
	none := cgroup.Limits{CPU: &cgroup.CPU{Period: 100 * time.Millisecond}, CPUBurst: ptr(time.Duration(0)), MemoryMax: ptr(int64(cgroup.Max)), MemoryHigh: ptr(int64(cgroup.Max)),
		SwapMax: ptr(int64(cgroup.Max)), PIDsMax: ptr(int64(cgroup.Max)), IO: []cgroup.IODevice{{Major: major, Minor: minor}}, OOMGroup: ptr(false)}
	if err := s.Apply(none); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"cpu.max": "max 100000", "memory.max": "max", "memory.high": "max", "memory.swap.max": "max", "io.max": "", "pids.max": "max", "memory.oom.group": "0"} {
		if got := file1(t, s.Path(), file); got != text {
			t.Errorf("%s is %q, want %q", file, got, text)
		}
	}
}

func file1(tb testing.TB, dir, name string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// A quota below the burst is refused by the kernel, whichever is written first.
func TestKernelQuotaShrinksBelowItsBurst(t *testing.T) {
	s := slice(t)
	for _, quota := range []time.Duration{100, 10, 200, 5} {
		burst := quota * time.Millisecond / 2
		if err := s.Apply(cgroup.Limits{CPU: &cgroup.CPU{Quota: quota * time.Millisecond, Period: 100 * time.Millisecond}, CPUBurst: &burst}); err != nil {
			t.Errorf("%d ms: %v", quota, err)
		}
	}
	if err := s.Apply(cgroup.Limits{CPU: &cgroup.CPU{Quota: time.Millisecond, Period: 100 * time.Millisecond}}); err != nil {
		t.Errorf("a quota alone, below the burst: %v", err)
	}
}

func TestKernelBadLimitsAreRefused(t *testing.T) {
	s := slice(t)
	for name, bad := range map[string]cgroup.Limits{
		"weight 0":            {CPUWeight: ptr(int64(0))},
		"weight 10001":        {CPUWeight: ptr(int64(10001))},
		"a period of 1 s and": {CPU: &cgroup.CPU{Quota: time.Second, Period: 2 * time.Second}},
		"a quota of 1 µs":     {CPU: &cgroup.CPU{Quota: time.Microsecond, Period: 100 * time.Millisecond}},
		"no such device":      {IO: []cgroup.IODevice{{Major: 4095, Minor: 1, WriteBPS: 1 << 20}}},
	} {
		if err := s.Apply(bad); err == nil || errors.Is(err, cgroup.ErrUnsupported) || errors.Is(err, cgroup.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// On a cgroup without controllers every limit names what is missing.
func TestKernelUnsupportedIsTyped(t *testing.T) {
	p := cgrouptest.Kernel(t)
	bare := p.Slice("bare") // made by hand: nothing below it has controllers
	if err := os.Mkdir(bare.Path(), 0o755); err != nil {
		t.Fatal(err)
	}
	leaf := bare.Scope("leaf")
	if err := leaf.Create(); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]cgroup.Limits{
		"cpu.max.burst": {CPUBurst: ptr(time.Millisecond), CPU: &cgroup.CPU{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond}},
		"memory.max":    {MemoryMax: ptr(int64(1 << 26))}, "pids.max": {PIDsMax: ptr(int64(5))}, "io.weight": {IOWeight: ptr(int64(5))},
	} {
		err := leaf.Apply(l)
		var u *cgroup.UnsupportedError
		if !errors.As(err, &u) || !errors.Is(err, cgroup.ErrUnsupported) || !strings.Contains(u.Feature, name) || u.Needs == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := leaf.OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.MemoryStat(); !errors.Is(err, cgroup.ErrUnsupported) {
		t.Errorf("read memory.stat: %v", err)
	}
}

func TestKernelBornInItsScope(t *testing.T) {
	s := slice(t)
	c := scope(t, s, "a")
	cmd := sh(t, c, "exec sleep 600") // one process, however late it is looked at
	pids, err := c.PIDs()
	if err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("%v, %v, want %d", pids, err, cmd.Process.Pid)
	}
	if got := file1(t, "/proc/"+strconv.Itoa(cmd.Process.Pid), "cgroup"); !strings.HasSuffix(got, "/vms/test/a") {
		t.Error(got)
	}
	if names, err := s.Scopes(); err != nil || !slices.Equal(names, []string{"a"}) {
		t.Errorf("scopes %v, %v", names, err)
	}
	if err := c.Create(); err != nil {
		t.Errorf("made again: %v", err)
	}
}

// Thaw and freeze return when it is so, not when it was asked for.
func TestKernelFreezeWaits(t *testing.T) {
	s := slice(t)
	c := scope(t, s, "a")
	sh(t, c, "while :; do :; done & while :; do :; done")
	r, err := c.OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 8 {
		if err := c.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, frozen, err := r.Events(); err != nil || !frozen {
			t.Fatalf("after Freeze: frozen %v, %v", frozen, err)
		}
		// The last ticks are accounted late, on a busy machine much later. Two loops that
		// run never stand still for so long.
		until(t, "no CPU time is used while frozen", func() bool {
			before, err1 := r.CPU()
			time.Sleep(30 * time.Millisecond)
			after, err2 := r.CPU()
			return err1 == nil && err2 == nil && after.Usage == before.Usage
		})
		if err := c.Thaw(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, frozen, err := r.Events(); err != nil || frozen {
			t.Fatalf("after Thaw: frozen %v, %v", frozen, err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Freeze(cancelled); err != nil && file1(t, c.Path(), "cgroup.freeze") != "0" {
		t.Error("a freeze that was given up stays")
	}
}

// Every process of a cgroup gets a signal, and nobody outside of it.
func TestKernelSignalReachesTheTree(t *testing.T) {
	s := slice(t)
	c, other := scope(t, s, "tree"), scope(t, s, "other")
	outside := sh(t, other, "exec sleep 600")
	cmd := sh(t, c, "i=0; while [ $i -lt 70 ]; do sleep 600 & i=$((i+1)); done; wait")
	until(t, "a tree", func() bool { pids, _ := c.PIDs(); return len(pids) == 71 })
	if c.Empty() || other.Empty() {
		t.Error("a cgroup with processes is said to be empty")
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the shell: %v", err)
	}
	if err := c.AwaitEmpty(t.Context()); err != nil || !c.Empty() {
		t.Errorf("after SIGTERM to all: %v", err)
	}

	pids, err := other.PIDs()
	if err != nil || len(pids) != 1 {
		t.Errorf("outside: %v, %v", pids, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := other.AwaitEmpty(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a cgroup with a process gets empty: %v", err)
	}
	if err := other.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	_ = outside.Wait()
	if err := c.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Signal(syscall.SIGTERM); !errors.Is(err, cgroup.ErrGone) || !c.Empty() {
		t.Errorf("gone: %v", err)
	}
}

// A tree that ignores SIGTERM and keeps forking is gone when Kill returns, frozen
// or not.
func TestKernelKillTakesTheTree(t *testing.T) {
	s := slice(t)
	for _, frozen := range []bool{false, true} {
		c := scope(t, s, "tree")
		cmd := sh(t, c, "trap '' TERM HUP; (setsid sh -c 'while :; do sleep 0.01; done' &) ; while :; do sleep 0.01 & wait $!; done")
		until(t, "a tree", func() bool { pids, _ := c.PIDs(); return len(pids) >= 3 })
		if frozen {
			if err := c.Freeze(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if pids, err := c.PIDs(); err != nil || len(pids) != 0 {
			t.Errorf("frozen %v: %v live on, %v", frozen, pids, err)
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("frozen %v: %v", frozen, err)
		}
		if err := c.Remove(t.Context()); err != nil || c.Exists() {
			t.Errorf("remove: %v", err)
		}
	}
}

func TestKernelRemoveGoesDepthFirst(t *testing.T) {
	s := slice(t)
	for _, dir := range []string{"a/b/c/d", "a/e", "f"} {
		if err := os.MkdirAll(filepath.Join(s.Path(), dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context()); err != nil || s.Exists() {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	if err := s.Kill(t.Context()); !errors.Is(err, cgroup.ErrGone) {
		t.Errorf("kill of what is gone: %v", err)
	}
}

func TestKernelRemoveOfABusyScopeGivesUp(t *testing.T) {
	c := scope(t, slice(t), "busy")
	sh(t, c, "sleep 600")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.Remove(ctx); !errors.Is(err, unix.EBUSY) || !c.Exists() {
		t.Errorf("%v", err)
	}
}

// What is read from a removed cgroup is ErrGone, at once, and no descriptor stays
// open.
func TestKernelReaderSurvivesRemoval(t *testing.T) {
	before := descriptors(t)
	s := slice(t)
	c := scope(t, s, "a")
	r, err := c.OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	reads := map[string]func() error{
		"cpu.stat":      func() error { _, err := r.CPU(); return err },
		"memory.stat":   func() error { _, err := r.MemoryStat(); return err },
		"memory.events": func() error { _, err := r.MemoryEvents(); return err },
		"io.stat":       func() error { _, err := r.IO(); return err },
		"pids.current":  func() error { _, err := r.PIDs(); return err },
		"io.pressure":   func() error { _, err := r.Pressure("io"); return err },
		"events":        func() error { _, _, err := r.Events(); return err },
		"memory":        func() error { _, err := r.MemoryCurrent(); return err },
		"peak":          func() error { _, err := r.MemoryPeak(); return err },
	}
	for name, read := range reads {
		if err := read(); err != nil && (name != "peak" || !errors.Is(err, cgroup.ErrUnsupported)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, read := range reads {
		if err := read(); !errors.Is(err, cgroup.ErrGone) {
			t.Errorf("%s of a removed cgroup: %v", name, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors are open, %d before", now, before)
	}
}

func descriptors(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(entries)
}

func TestKernelUsageIsMeasured(t *testing.T) {
	s := slice(t)
	if err := s.Apply(cgroup.Limits{CPU: &cgroup.CPU{Quota: 20 * time.Millisecond, Period: 100 * time.Millisecond}}); err != nil {
		t.Fatal(err)
	}
	c := scope(t, s, "a")
	sh(t, c, "dd if=/dev/zero of=/var/lib/cgroup-test bs=1M count=4 oflag=direct 2>/dev/null; rm /var/lib/cgroup-test; while :; do :; done")
	r, err := s.OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	until(t, "4 MiB are written", func() bool { io, err := r.IO(); return err == nil && io.WrittenBytes >= 4<<20 && io.WriteOps > 0 })
	until(t, "the shell is alone", func() bool { pids, err := c.PIDs(); return err == nil && len(pids) == 1 })
	until(t, "the quota is felt", func() bool { s, err := r.CPU(); return err == nil && s.Throttled > 3 && s.ThrottledTime > 0 })
	// pids.current counts a process until it is reaped; cgroup.procs only until it exits.
	until(t, "one process is counted", func() bool { n, err := r.PIDs(); return err == nil && n == 1 })
	if p, err := r.Pressure("cpu"); err != nil || p.Some.Total == 0 {
		t.Errorf("cpu pressure %+v, %v", p, err)
	}
	if n, err := r.MemoryCurrent(); err != nil || n == 0 {
		t.Errorf("memory %d, %v", n, err)
	}
}

func TestKernelReclaim(t *testing.T) {
	s := slice(t)
	err := s.Reclaim(t.Context(), 1<<30)
	if !errors.Is(err, cgroup.ErrReclaim) {
		t.Errorf("more than there is: %v", err)
	}
	if err := s.Reclaim(t.Context(), 0); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestKernelOOMTakesTheGroup(t *testing.T) {
	s := slice(t)
	if err := s.Apply(cgroup.Limits{MemoryMax: ptr(int64(32 << 20)), SwapMax: ptr(int64(0))}); err != nil {
		t.Fatal(err)
	}
	c := scope(t, s, "hog")
	if err := c.Apply(cgroup.Limits{OOMGroup: ptr(true)}); err != nil {
		t.Fatal(err)
	}
	cmd := sh(t, c, "sleep 600 & head -c 200M /dev/zero | tail -c 199M >/dev/null; sleep 600")
	_ = cmd.Wait()
	r, err := c.OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := r.MemoryEvents()
	if err != nil || e.OOMGroupKill != 1 || e.OOMKill < 2 {
		t.Errorf("%+v, %v", e, err)
	}
	until(t, "the whole group is gone", func() bool { pids, err := c.PIDs(); return err == nil && len(pids) == 0 })
}

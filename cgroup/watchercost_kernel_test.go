package cgroup_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/cgroup"
	"cloudflash/cgroup/cgrouptest"
	"golang.org/x/sys/unix"
)

// What eight triggers cost, said and not judged.
func TestKernelWatcherCosts(t *testing.T) {
	const n = 8
	p := cgrouptest.Kernel(t)
	all := make([]*cgroup.Slice, n)
	for i := range all {
		all[i] = p.Slice("vm" + strconv.Itoa(i))
		if err := all[i].Create(); err != nil {
			t.Fatal(err)
		}
		if err := all[i].Apply(cgroup.Limits{CPU: &cgroup.CPU{Quota: time.Millisecond, Period: 100 * time.Millisecond}}); err != nil {
			t.Fatal(err)
		}
	}
	w, woken := watching(t)
	threads, _ := psimons(t)
	addAll := func() time.Duration {
		began := time.Now()
		for i, s := range all {
			add(t, w, "vm"+strconv.Itoa(i), s)
		}
		return time.Since(began)
	}
	t.Logf("Add: %v each", addAll()/n)
	t.Logf("Add again: %v each", addAll()/n)
	now, idle := psimons(t)
	time.Sleep(time.Second)
	_, after := psimons(t)
	t.Logf("%d threads; %v of CPU in a second while nothing runs", now-threads, after-idle)
	for _, s := range all {
		sh(t, scope(t, s, "busy"), "while :; do :; done")
	}
	toldOf := map[string]bool{}
	for deadline := time.After(time.Minute); len(toldOf) < n; {
		select {
		case id := <-woken:
			toldOf[id] = true
		case <-deadline:
			t.Fatalf("of %d only %v are told of", n, toldOf)
		}
	}
	for i := range all {
		w.Rearm("vm" + strconv.Itoa(i))
	}
	_, before := psimons(t)
	ours, wakes := cpuTime(t), 0
	for end := time.After(time.Second); ; {
		select {
		case id := <-woken:
			w.Rearm(id)
			wakes++
			continue
		case <-end:
		}
		break
	}
	ours = cpuTime(t) - ours
	_, after = psimons(t)
	t.Logf("%v of CPU in a second while all are short; %d wake-ups told and armed again at once take %v", after-before, wakes, ours)
	for _, s := range all {
		// Without CPU they would take their time to die.
		if err := s.Apply(cgroup.Limits{CPU: &cgroup.CPU{Quota: -1, Period: 100 * time.Millisecond}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for i := range n / 4 {
		w.Remove("vm" + strconv.Itoa(i))
	}
	t.Logf("Remove: %v each", time.Since(began)/(n/4))
	addAll()
	began = time.Now()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("Close: %v", time.Since(began))
	if now, _ := psimons(t); now > threads {
		t.Errorf("%d threads are left", now-threads)
	}
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// psimons counts the kernel's threads for triggers, and the CPU time they have had.
func psimons(tb testing.TB) (n int, used time.Duration) {
	tb.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || string(comm) != "psimon\n" {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(name), "schedstat"))
		if err != nil {
			continue
		}
		on, _, _ := strings.Cut(string(stat), " ")
		ns, _ := strconv.ParseInt(on, 10, 64)
		n, used = n+1, used+time.Duration(ns)
	}
	return n, used
}

// A killed process closes its triggers one by one: said, not judged.
func TestKernelWatcherOfAKilledProcess(t *testing.T) {
	const child, n = "CLOUDFLASH_TEST_SLICES", 15
	if dir := os.Getenv(child); dir != "" {
		holdTriggers(t, dir, n)
	}
	p := cgrouptest.Kernel(t)
	for i := range n {
		if err := p.Slice("vm" + strconv.Itoa(i)).Create(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKernelWatcherOfAKilledProcess$")
	cmd.Env = append(os.Environ(), child+"="+p.Dir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	began := time.Now()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	t.Logf("%v to the end of a process with %d triggers", time.Since(began).Round(time.Millisecond), n)
}

func holdTriggers(t *testing.T, dir string, n int) {
	p, err := cgroup.OpenParent(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := watching(t)
	for i := range n {
		add(t, w, strconv.Itoa(i), p.Slice("vm"+strconv.Itoa(i)))
	}
	_, _ = os.Stdout.WriteString(".")
	select {}
}

package cgroup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cloudflash/cgroup"
	"golang.org/x/sys/unix"
)

// watching runs a Watcher whose wake-ups come out of a channel.
func watching(tb testing.TB) (*cgroup.Watcher, <-chan string) {
	tb.Helper()
	w, err := cgroup.NewWatcher()
	if err != nil {
		tb.Fatal(err)
	}
	woken, done := make(chan string, 10_000), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- w.Run(ctx, func(id string) { woken <- id }) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, os.ErrClosed) {
			tb.Error(err)
		}
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w, woken
}

const both = cgroup.WatchCPU | cgroup.WatchMemory

func add(tb testing.TB, w *cgroup.Watcher, id string, s *cgroup.Slice) {
	tb.Helper()
	if err := w.Add(id, s, both); err != nil {
		tb.Fatal(err)
	}
}

func told(tb testing.TB, woken <-chan string, id string) {
	tb.Helper()
	select {
	case got := <-woken:
		if got != id {
			tb.Fatalf("%q is told of, want %q", got, id)
		}
	case <-time.After(30 * time.Second):
		tb.Fatalf("%q is not told of within 30 s", id)
	}
}

// quiet is more than two windows of a trigger.
const quiet = 1200 * time.Millisecond

func silent(tb testing.TB, woken <-chan string, what string) {
	tb.Helper()
	select {
	case id := <-woken:
		tb.Errorf("%s: %q is told of", what, id)
	case <-time.After(quiet):
	}
}

// settles arms again what is told of until nothing more comes: what is left of the
// last window may.
func settles(tb testing.TB, w *cgroup.Watcher, woken <-chan string) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		w.Rearm("vm")
		select {
		case <-woken:
		case <-time.After(quiet):
			return
		}
	}
	tb.Error("still told of after 30 s of nothing")
}

// hog takes more than the 16 MiB of memory.high that the tests set.
const hog = "head -c 24M /dev/zero | tail -c 23M >/dev/null; sleep 600"

// halve gives a slice half a core.
func halve(tb testing.TB, s *cgroup.Slice) {
	tb.Helper()
	if err := s.Apply(cgroup.Limits{CPU: &cgroup.CPU{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond}}); err != nil {
		tb.Fatal(err)
	}
}

func TestKernelWatcherTellsOfThrottling(t *testing.T) {
	w, woken := watching(t)
	s := slice(t)
	halve(t, s)
	add(t, w, "vm", s)
	add(t, w, "vm", s) // again
	silent(t, woken, "nothing runs")
	var took []time.Duration
	for range 2 {
		c := scope(t, s, "busy")
		cmd := sh(t, c, "while :; do :; done")
		r, err := s.OpenReader()
		if err != nil {
			t.Fatal(err)
		}
		before, _ := r.CPU()
		until(t, "it is throttled", func() bool { now, err := r.CPU(); return err == nil && now.Throttled > before.Throttled })
		began := time.Now()
		told(t, woken, "vm")
		took = append(took, time.Since(began).Round(time.Millisecond))
		silent(t, woken, "before Rearm")
		w.Rearm("vm")
		told(t, woken, "vm") // it goes on
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = r.Close()
		settles(t, w, woken)
	}
	t.Logf("from the first throttled period to the wake-up: %v", took)
}

// A slice that may use what it wants and has the CPU for it is never told of. On a
// busy machine it may lack the CPU, which the kernel says.
func TestKernelWatcherIsSilentWithoutNeed(t *testing.T) {
	w, woken := watching(t)
	s := slice(t)
	r, err := s.OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	add(t, w, "vm", s)
	before, err := r.Pressure("cpu")
	if err != nil {
		t.Fatal(err)
	}
	sh(t, scope(t, s, "light"), "while sleep 0.3; do :; done")

	deadline := time.Now().Add(30 * time.Second)
	for n := time.Duration(1); time.Now().Before(deadline); n++ {
		select {
		case <-woken:
		case <-time.After(quiet):
			return
		}
		now, err := r.Pressure("cpu")
		waited := now.Some.Total - before.Some.Total
		if err != nil || waited < n*50*time.Millisecond { // two windows may share 100 ms
			t.Fatalf("it is told of %d times after waiting for %v, %v", n, waited, err)
		}
		t.Logf("it has waited for %v", waited)
		w.Rearm("vm")
	}
}

func TestKernelWatcherTellsOfMemory(t *testing.T) {
	w, woken := watching(t)
	s := slice(t)
	if err := s.Apply(cgroup.Limits{MemoryHigh: ptr(int64(16 << 20)), SwapMax: ptr(int64(0))}); err != nil {
		t.Fatal(err)
	}
	pressure(t, s, "0") // a process that starts may wait for a CPU
	if err := w.Add("vm", s, both); !errors.Is(err, cgroup.ErrUnsupported) {
		t.Fatal(err)
	}
	began := time.Now()
	c := scope(t, s, "hog")
	sh(t, c, hog)
	told(t, woken, "vm")
	t.Logf("from the start of the process to the wake-up: %v", time.Since(began).Round(time.Millisecond))
	if e := events(t, s); e.High == 0 {
		t.Errorf("told before memory.high was met: %+v", e)
	}
	// What comes to pass before Rearm is told then.
	before := events(t, s).High
	sh(t, c, hog)
	until(t, "memory.high is met again", func() bool { return events(t, s).High > before })
	w.Rearm("vm")
	told(t, woken, "vm")
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	settles(t, w, woken)
}

func events(tb testing.TB, s *cgroup.Slice) cgroup.MemoryEvents {
	tb.Helper()
	r, err := s.OpenReader()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	e, err := r.MemoryEvents()
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// A removed slice is dropped without a word and with its descriptors; one made anew
// under its name is watched when it is added.
func TestKernelWatcherDropsTheRemoved(t *testing.T) {
	w, woken := watching(t)
	before := descriptors(t)
	s := slice(t)
	add(t, w, "vm", s)
	if n := descriptors(t) - before; n != 2 {
		t.Errorf("%d descriptors", n)
	}
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	silent(t, woken, "removed")
	if n := descriptors(t) - before; n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
	w.Rearm("vm")
	w.Remove("vm")
	if err := w.Add("vm", s, both); !errors.Is(err, cgroup.ErrGone) {
		t.Errorf("add what is gone: %v", err)
	}
	if err := s.Create(); err != nil {
		t.Fatal(err)
	}
	halve(t, s)
	add(t, w, "vm", s)
	cmd := sh(t, scope(t, s, "busy"), "while :; do :; done")
	told(t, woken, "vm")
	w.Remove("vm")
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it has a descriptor too
	if n := descriptors(t) - before; n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
	w.Rearm("vm")
	silent(t, woken, "no longer watched")
}

// With 0 in cgroup.pressure (Linux 6.1) there is no trigger: the trigger that was
// goes, memory.events stays watched, and Add finds what has come back.
func TestKernelWatcherOfHiddenPressure(t *testing.T) {
	w, woken := watching(t)
	s := slice(t)
	halve(t, s)
	if err := s.Apply(cgroup.Limits{MemoryHigh: ptr(int64(16 << 20)), SwapMax: ptr(int64(0))}); err != nil {
		t.Fatal(err)
	}
	add(t, w, "vm", s)
	pressure(t, s, "0")
	silent(t, woken, "hidden")
	var u *cgroup.UnsupportedError
	if err := w.Add("vm", s, both); !errors.As(err, &u) || !strings.Contains(u.Needs, "cgroup.pressure") {
		t.Errorf("hidden: %v", err)
	}
	sh(t, scope(t, s, "hog"), hog)
	told(t, woken, "vm")
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	pressure(t, s, "1")
	add(t, w, "vm", s)
	settles(t, w, woken)
	sh(t, scope(t, s, "busy"), "while :; do :; done")
	told(t, woken, "vm")
}

func pressure(tb testing.TB, s *cgroup.Slice, value string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(s.Path(), "cgroup.pressure"), []byte(value), 0); err != nil {
		tb.Fatal(err)
	}
}

// Without CAP_SYS_RESOURCE memory.events alone is watched.
func TestKernelWatcherWithoutPrivilege(t *testing.T) {
	w, woken := watching(t)
	s := slice(t)
	halve(t, s)
	if err := s.Apply(cgroup.Limits{MemoryHigh: ptr(int64(16 << 20)), SwapMax: ptr(int64(0))}); err != nil {
		t.Fatal(err)
	}
	withoutResource(t, func() {
		var u *cgroup.UnsupportedError
		if err := w.Add("vm", s, both); !errors.As(err, &u) || !strings.Contains(u.Needs, "CAP_SYS_RESOURCE") {
			t.Errorf("%v", err)
		}
	})
	c := scope(t, s, "busy")
	sh(t, c, "while :; do :; done")
	silent(t, woken, "throttled")
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	sh(t, c, hog)
	told(t, woken, "vm")
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, w, "vm", s) // now it may
	settles(t, w, woken)
	sh(t, c, "while :; do :; done")
	told(t, woken, "vm")
}

// withoutResource calls f without CAP_SYS_RESOURCE, which a thread can give up.
func withoutResource(tb testing.TB, f func()) {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&h, &had[0]); err != nil {
		tb.Fatal(err)
	}
	less := had
	less[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(&h, &less[0]); err != nil {
		tb.Fatal(err)
	}
	f()
	if err := unix.Capset(&h, &had[0]); err != nil {
		tb.Fatal(err)
	}
}

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newWatcher(tb testing.TB) *Watcher {
	tb.Helper()
	w, err := NewWatcher()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w
}

// stand puts a watch in whose memory.events is a captured one and whose trigger is
// an eventfd. Epoll takes no plain file: its events are those that the test says.
func stand(tb testing.TB, w *Watcher, id string) *watch {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "memory.events"), fixture(tb, "6.12", "memory.events"), 0o600); err != nil {
		tb.Fatal(err)
	}
	v := &watch{id: id, path: dir, want: WatchMemory, fds: [kinds]int{-1, -1}}
	var err error
	if v.fds[onPressure], err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		tb.Fatal(err)
	}
	if _, err := w.put(v); err != nil {
		tb.Fatal(err)
	}
	if v.fds[onEvents], err = openEvents(dir); err != nil {
		tb.Fatal(err)
	}
	v.armed[onEvents] = true
	return v
}

func event(v *watch, kind int, mask uint32) *unix.EpollEvent {
	return &unix.EpollEvent{Events: mask, Fd: v.key, Pad: int32(kind)}
}

func TestWatcherTellsOnceUntilRearmed(t *testing.T) {
	w := newWatcher(t)
	v := stand(t, w, "a")
	if id, told := w.take(event(v, onPressure, unix.EPOLLPRI)); !told || id != "a" {
		t.Errorf("%q, %v", id, told)
	}
	if _, told := w.take(event(v, onEvents, unix.EPOLLPRI|unix.EPOLLERR)); told {
		t.Error("told twice")
	}
	if v.armed != [kinds]bool{} {
		t.Errorf("armed %v", v.armed)
	}
	unix.Close(v.fds[onEvents])
	v.fds[onEvents] = -1 // epoll would refuse it
	w.Rearm("a")
	w.Rearm("nobody")
	if !v.armed[onPressure] {
		t.Error("not armed again")
	}
	if _, told := w.take(event(v, onPressure, unix.EPOLLPRI)); !told {
		t.Error("not told again")
	}
}

// A modified memory.events is an error to epoll, and none to the Watcher.
func TestWatcherTellsOfModifiedEvents(t *testing.T) {
	w := newWatcher(t)
	v := stand(t, w, "a")
	if _, told := w.take(event(v, onEvents, unix.EPOLLPRI|unix.EPOLLERR)); !told || w.byID["a"] != v {
		t.Error("not told")
	}
}

func TestWatcherDropsWhatIsGone(t *testing.T) {
	w := newWatcher(t)
	hidden, gone := stand(t, w, "hidden"), stand(t, w, "gone")
	if _, told := w.take(event(hidden, onPressure, unix.EPOLLPRI|unix.EPOLLERR)); told || w.byID["hidden"] != hidden || hidden.fds[onPressure] >= 0 || hidden.fds[onEvents] < 0 {
		t.Errorf("hidden: told %v, %v", told, hidden.fds)
	}
	if err := os.RemoveAll(gone.path); err != nil {
		t.Fatal(err)
	}
	late := event(gone, onEvents, unix.EPOLLPRI)
	if _, told := w.take(event(gone, onPressure, unix.EPOLLERR)); told || w.byID["gone"] != nil || gone.fds != [kinds]int{-1, -1} {
		t.Errorf("gone: told %v, %v", told, gone.fds)
	}
	if _, told := w.take(late); told {
		t.Error("an event of what is forgotten is told")
	}
}

func TestWatcherReplaces(t *testing.T) {
	w := newWatcher(t)
	v := stand(t, w, "a")
	if !w.whole("a", v.path, WatchMemory) || w.whole("b", v.path, WatchMemory) || w.whole("a", t.TempDir(), WatchMemory) || w.whole("a", v.path, WatchCPU) {
		t.Error("whole")
	}
	w.take(event(v, onPressure, unix.EPOLLPRI))
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	next := &watch{id: "a", path: v.path, fds: [kinds]int{fd, -1}}
	old, err := w.put(next)
	if err != nil || old != v || !next.told || len(w.byKey) != 1 {
		t.Errorf("%v, %v, told %v", old == v, err, next.told)
	}
	old.close()
	if _, told := w.take(event(v, onPressure, unix.EPOLLPRI)); told {
		t.Error("the old one is told of")
	}
	w.Remove("a")
	w.Remove("a")
	if len(w.byID)+len(w.byKey) != 0 || next.fds[onPressure] >= 0 {
		t.Error("something stays")
	}
}

func TestWatcherAddErrors(t *testing.T) {
	w := newWatcher(t)
	if err := w.Add("a", &Slice{group{filepath.Join(t.TempDir(), "none")}}, WatchCPU|WatchMemory); !errors.Is(err, ErrGone) {
		t.Errorf("gone: %v", err)
	}
	bare := t.TempDir()
	if err := os.WriteFile(filepath.Join(bare, "cgroup.procs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var u *UnsupportedError
	if err := w.Add("a", &Slice{group{bare}}, WatchCPU|WatchMemory); !errors.As(err, &u) || !errors.Is(err, ErrUnsupported) || len(w.byID) != 0 {
		t.Errorf("nothing to watch: %v", err)
	}
	if err := os.WriteFile(filepath.Join(bare, "memory.events"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Add("a", &Slice{group{bare}}, WatchCPU|WatchMemory); !errors.Is(err, unix.EPERM) || len(w.byID) != 0 {
		t.Errorf("no file of a kernel: %v", err)
	}
}

func TestTriggerErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		err, want error
		needs     string
	}{
		"no capability":             {unix.EINVAL, ErrUnsupported, needsPrivilege},
		"no capability, before 6.5": {unix.EPERM, ErrUnsupported, needsPrivilege},
		"PSI is off":                {unix.EOPNOTSUPP, ErrUnsupported, needsShown},
		"hidden":                    {unix.ENOENT, ErrUnsupported, needsShown},
		"removed":                   {unix.ENODEV, ErrGone, ""},
		"no memory":                 {unix.ENOMEM, unix.ENOMEM, ""},
	} {
		err := triggerError(dir, fmt.Errorf("write: %w", c.err))
		var u *UnsupportedError
		if !errors.Is(err, c.want) || errors.As(err, &u) && u.Needs != c.needs {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWatcherRunEnds(t *testing.T) {
	w := newWatcher(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx, func(string) {}) }()
		for !func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.running }() {
			time.Sleep(time.Millisecond)
		}
		if err := w.Run(ctx, nil); err == nil {
			t.Error("two run at once")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	done := make(chan error)
	go func() { done <- w.Run(t.Context(), func(string) {}) }()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if w.epoll != -1 || w.bell != -1 {
		t.Error("something is open")
	}
	if err := w.Run(t.Context(), nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("run after: %v", err)
	}
	if err := w.Add("a", &Slice{group{t.TempDir()}}, WatchCPU|WatchMemory); err == nil {
		t.Error("added after")
	}
}

// Everything at once, for the race detector. A pipe that nobody reads is an error
// to epoll, as a trigger that has gone.
func TestWatcherFromManyGoroutines(t *testing.T) {
	w := newWatcher(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx, func(id string) { w.Rearm(id); w.Remove(id) }) }()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 100 {
				var p [2]int
				if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
					t.Error(err)
					return
				}
				unix.Close(p[0]) // EPOLLERR at once
				old, err := w.put(&watch{id: strconv.Itoa(i % 4), fds: [kinds]int{p[1], -1}})
				if err != nil {
					t.Error(err)
				}
				old.close()
				w.Rearm(strconv.Itoa(i % 4))
				w.whole(strconv.Itoa((i+1)%4), "", WatchCPU)
				w.Remove(strconv.Itoa((i + 2) % 4))
			}
		})
	}
	wait.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

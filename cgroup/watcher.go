package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Watcher tells when a slice is short of CPU or has met a memory limit, without
// polling: a PSI trigger on cpu.pressure and the file-modified events of
// memory.events, one epoll for all.
//
// It costs a descriptor for each file and, while nothing happens, no time. A slice
// that has been told of is silent until Rearm, so that a thousand that are short all
// the time cost what the caller spends on each. A trigger costs more, a thread of the
// kernel (see openTrigger) and, when a process is killed that holds it, some 40 ms
// until that is gone: one for all slices (Parent.All) has to do where there are many.
//
// Its methods may be called from any goroutine, Run from one at a time.
type Watcher struct {
	epoll int
	bell  int // an eventfd that ends the wait

	mu      sync.Mutex // guards what follows; never held while files are opened or closed
	byID    map[string]*watch
	byKey   map[int32]*watch // as epoll knows them: a late event of a closed file finds nothing
	lastKey int32
	running bool
	closed  bool
}

const bellKey = 0

// NewWatcher makes a Watcher of nothing.
func NewWatcher() (*Watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	w := &Watcher{epoll: epoll, bell: bell, byID: map[string]*watch{}, byKey: map[int32]*watch{}}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: bellKey}); err != nil {
		w.release()
		return nil, fmt.Errorf("watch the eventfd: %w", err)
	}
	return w, nil
}

// Add begins to watch a slice under an id. One that is watched already stays, or
// is opened again when it has been made anew or could not be watched in full. An
// UnsupportedError says what cannot be watched here; the rest is watched. ErrGone
// says that there is no such slice.
func (w *Watcher) Add(id string, s *Slice, what Watch) error {
	if w.whole(id, s.path, what) {
		return nil
	}
	v, err := openWatch(id, s.path, what)
	if v == nil {
		return err
	}
	old, failed := w.put(v)
	if failed != nil {
		v.close()
		return failed
	}
	old.close()
	return err
}

func (w *Watcher) whole(id, path string, what Watch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byID[id].whole(path, what)
}

// put takes the place of what was watched under the id before, told of or not.
func (w *Watcher) put(v *watch) (old *watch, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, fmt.Errorf("watch %s: %w", v.path, os.ErrClosed)
	}
	w.lastKey++
	v.key = w.lastKey
	if err := v.arm(w.epoll, unix.EPOLL_CTL_ADD); err != nil {
		return nil, err
	}
	old = w.byID[v.id]
	if old != nil {
		v.told = old.told
		delete(w.byKey, old.key)
	}
	w.byID[v.id], w.byKey[v.key] = v, v
	return old, nil
}

// Remove ends the watching of a slice. It takes some 40 ms: closing a trigger waits
// for an RCU grace period, as removing the cgroup does otherwise.
func (w *Watcher) Remove(id string) {
	w.mu.Lock()
	v := w.byID[id]
	if v != nil {
		w.forget(v)
	}
	w.mu.Unlock()
	v.close()
}

// forget leaves the files open. The caller holds w.mu.
func (w *Watcher) forget(v *watch) {
	delete(w.byKey, v.key)
	if w.byID[v.id] == v {
		delete(w.byID, v.id)
	}
}

// Rearm lets the next event of a slice be told, which was silent since its last.
// What has come to pass in between is told at once, but for CPU that it is no
// longer short of.
func (w *Watcher) Rearm(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.byID[id]
	if v == nil || w.closed {
		return
	}
	v.told = false
	_ = v.arm(w.epoll, unix.EPOLL_CTL_MOD) // what is armed in part is tried again next time
}

// Run calls wake, from this goroutine, with the id of each slice that something
// has happened to. It returns nil when ctx ends, and os.ErrClosed after Close.
func (w *Watcher) Run(ctx context.Context, wake func(id string)) error {
	if err := w.begin(); err != nil {
		return err
	}
	defer w.end()
	defer context.AfterFunc(ctx, w.ring)()
	ready := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(w.epoll, ready, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for slices: %w", err)
		}
		for i := range max(n, 0) {
			if ctx.Err() != nil {
				return nil
			}
			if id, told := w.take(&ready[i]); told {
				wake(id)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if w.isClosed() {
			return fmt.Errorf("wait for slices: %w", os.ErrClosed)
		}
	}
}

// take notes an event and reports whether it is to be told.
func (w *Watcher) take(e *unix.EpollEvent) (id string, told bool) {
	w.mu.Lock()
	v := w.byKey[e.Fd]
	if v == nil {
		if e.Fd == bellKey {
			_, _ = unix.Read(w.bell, make([]byte, 8))
		}
		w.mu.Unlock()
		return "", false
	}
	told, dead := v.note(int(e.Pad), e.Events)
	if v.fds == [kinds]int{-1, -1} {
		w.forget(v)
	}
	w.mu.Unlock()
	dead.close()
	return v.id, told
}

func (w *Watcher) begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("wait for slices: %w", os.ErrClosed)
	}
	if w.running {
		return errors.New("wait for slices: somebody does already")
	}
	w.running = true
	return nil
}

func (w *Watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = false
	if w.closed {
		w.release()
	}
}

func (w *Watcher) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// ring wakes Run.
func (w *Watcher) ring() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bell >= 0 {
		_, _ = unix.Write(w.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// release closes what is not of a slice. The caller holds w.mu.
func (w *Watcher) release() {
	_, _ = unix.Close(w.epoll), unix.Close(w.bell)
	w.epoll, w.bell = -1, -1
}

// closers is how many files are closed at a time. Who waits for an RCU grace
// period waits for the same as the others: a thousand one by one, as the kernel
// does for a killed process, take some 40 s.
const closers = 32

// Close ends Run and the watching of all slices. It may be called again.
func (w *Watcher) Close() error {
	w.mu.Lock()
	all := w.byID
	w.byID, w.byKey = map[string]*watch{}, map[int32]*watch{}
	if !w.closed && !w.running {
		w.release()
	}
	w.closed = true
	w.mu.Unlock()
	w.ring()
	var wait sync.WaitGroup
	turn := make(chan struct{}, closers)
	for _, v := range all {
		turn <- struct{}{}
		wait.Go(func() { v.close(); <-turn })
	}
	wait.Wait()
	return nil
}

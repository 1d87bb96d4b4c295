package cgroup

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// cpuTrigger is when a slice counts as short of CPU: some task of it has waited
// for 100 ms, in all, of the last 500, the shortest window there is (Linux 5.2).
// The kernel tells it once a window at most. The byte at the end: it overwrites
// the last one with NUL.
const cpuTrigger = "some 100000 500000\n"

const (
	needsPrivilege = "CAP_SYS_RESOURCE (for a window of less than 2 s)"
	needsShown     = needsPressure + ", and 1 in cgroup.pressure"
)

// A Watch says what of a slice is watched.
type Watch int

// What there is to watch.
const (
	WatchCPU    Watch = 1 << onPressure
	WatchMemory Watch = 1 << onEvents
)

// The files of a watch.
const (
	onPressure = iota // cpu.pressure, with a trigger
	onEvents          // memory.events
	kinds
)

var watchFiles = [kinds]string{"cpu.pressure", "memory.events"}

// watch is one slice of a Watcher, which guards all but its names.
type watch struct {
	id, path string
	want     Watch
	key      int32
	fds      [kinds]int  // -1: cannot be watched
	armed    [kinds]bool // by us; the kernel disarms with each event
	told     bool        // and not armed again since
}

// openWatch opens what of a slice can be watched; the error says what cannot. A
// nil watch is of nothing.
func openWatch(id, path string, want Watch) (*watch, error) {
	v := &watch{id: id, path: path, want: want, fds: [kinds]int{-1, -1}}
	var failed [kinds]error
	for kind, open := range [kinds]func(string) (int, error){openTrigger, openEvents} {
		if want&(1<<kind) == 0 {
			continue
		}
		var err error
		v.fds[kind], err = open(path)
		failed[kind] = err
		if err != nil && !errors.Is(err, ErrUnsupported) {
			v.close()
			return nil, err
		}
	}
	if v.fds == [kinds]int{-1, -1} {
		v = nil
	}
	return v, errors.Join(failed[:]...)
}

// openTrigger makes a trigger that lives until it is closed. A window of less than
// 2 s costs the kernel a thread for each cgroup, psimon, which sleeps while no
// task waits, and looks at all CPUs every 50 ms (a tenth of the window) while some
// does and for one window after. Before Linux 6.5 the file opens for writing with
// CAP_SYS_RESOURCE alone; since then a window of n times 2 s needs neither.
func openTrigger(path string) (int, error) {
	fd, err := openRetry(path+"/cpu.pressure", unix.O_RDWR)
	if err != nil {
		return -1, triggerError(path, fmt.Errorf("open cpu.pressure of %s: %w", path, err))
	}
	for {
		_, err = unix.Write(fd, []byte(cpuTrigger))
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, triggerError(path, fmt.Errorf("write %q to cpu.pressure of %s: %w", cpuTrigger, path, err))
	}
	return fd, nil
}

func triggerError(path string, err error) error {
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return &UnsupportedError{Feature: "a trigger on cpu.pressure", Needs: needsPrivilege}
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT) && (group{path}).Exists():
		return &UnsupportedError{Feature: "a trigger on cpu.pressure", Needs: needsShown}
	}
	return goneOr(err)
}

// openEvents opens memory.events and reads it: a file that has not been read yet
// counts as modified.
func openEvents(path string) (int, error) {
	fd, err := openRetry(path+"/memory.events", unix.O_RDONLY)
	if err == unix.ENOENT && (group{path}).Exists() {
		return -1, &UnsupportedError{Feature: "memory.events", Needs: readerFiles[fileMemoryEvents].needs}
	}
	if err == nil {
		if err = readAway(fd); err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		return -1, goneOr(fmt.Errorf("open memory.events of %s: %w", path, err))
	}
	return fd, nil
}

// readAway reads a file for the kernel to note that it has been.
func readAway(fd int) error {
	var b [512]byte
	for {
		if _, err := unix.Pread(fd, b[:], 0); err != unix.EINTR {
			return err
		}
	}
}

// alive reports whether a watched file is the one that is there. It does not read it,
// which would swallow an event.
func (v *watch) alive(kind int) bool {
	var here, there unix.Stat_t
	return v.fds[kind] >= 0 && unix.Fstat(v.fds[kind], &here) == nil &&
		unix.Lstat(v.path+"/"+watchFiles[kind], &there) == nil && here.Ino == there.Ino && here.Dev == there.Dev
}

// whole reports whether all that is wanted is watched, of the slice that is there.
func (v *watch) whole(path string, want Watch) bool {
	if v == nil || v.path != path || v.want != want {
		return false
	}
	for kind := range kinds {
		if want&(1<<kind) != 0 && !v.alive(kind) {
			return false
		}
	}
	return true
}

// arm arms what is not.
func (v *watch) arm(epoll, op int) error {
	for kind, fd := range v.fds {
		if fd < 0 || v.armed[kind] {
			continue
		}
		e := unix.EpollEvent{Events: unix.EPOLLPRI | unix.EPOLLONESHOT, Fd: v.key, Pad: int32(kind)}
		if err := unix.EpollCtl(epoll, op, fd, &e); err != nil {
			return fmt.Errorf("watch %s: %w", v.path, err)
		}
		v.armed[kind] = true
	}
	return nil
}

// note takes what the kernel says of a file. told is whether the caller of Run is
// to know; dead holds the files that nothing more will come of.
//
// A modified memory.events is EPOLLERR|EPOLLPRI, and so is one of a removed cgroup
// to which nobody wakes (Linux 6.12); a trigger that has gone is EPOLLERR.
func (v *watch) note(kind int, mask uint32) (told bool, dead *watch) {
	v.armed[kind] = false
	if kind == onPressure && mask&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		// Removed, or hidden by cgroup.pressure, Linux 6.1.
		return false, v.lose(!v.alive(onEvents))
	}
	if v.told {
		return false, nil // unread: arming it again tells
	}
	if kind == onEvents && readAway(v.fds[onEvents]) != nil {
		return false, v.lose(true)
	}
	v.told = true
	return true, nil
}

// lose takes the trigger away, or all.
func (v *watch) lose(all bool) (dead *watch) {
	dead = &watch{fds: v.fds}
	if all {
		v.fds = [kinds]int{-1, -1}
		return dead
	}
	dead.fds[onEvents] = -1
	v.fds[onPressure] = -1
	return dead
}

// close closes the files. A nil watch has none.
func (v *watch) close() {
	if v == nil {
		return
	}
	for kind, fd := range v.fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		v.fds[kind] = -1
	}
}

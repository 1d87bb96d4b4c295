package pagemap

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Process is the directory of one process below /proc. It stays that of the
// process when its id is given to another: reads then fail with ErrGone.
type Process struct{ dir int }

// ErrGone says that the process has ended.
var ErrGone = errors.New("the process has ended")

// OpenProcess opens a process by its id. The caller closes it.
func (fs FS) OpenProcess(pid int) (*Process, error) {
	fd, err := unix.Open(fs.path("proc/"+strconv.Itoa(pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Process{fd}, nil
}

// Close closes the directory.
func (p *Process) Close() error { return unix.Close(p.dir) }

// open opens one of the files that the kernel makes of the process; none of them
// is a link that the process controls.
func (p *Process) open(name string) (int, error) {
	for {
		fd, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, gone(name, err)
		}
	}
}

func gone(name string, err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return ErrGone
	}
	if err != nil {
		return fmt.Errorf("read %s of a process: %w", name, err)
	}
	return nil
}

func (p *Process) text(name string) ([]byte, error) {
	fd, err := p.open(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b, err := text{name, fd}.read(make([]byte, 16<<10))
	return b, gone(name, err)
}

// Cgroup is the path of its cgroup in the v2 hierarchy, as seen by this process.
func (p *Process) Cgroup() (string, error) {
	b, err := p.text("cgroup")
	if err != nil {
		return "", err
	}
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		if path, ok := bytes.CutPrefix(l, []byte("0::")); ok {
			return string(path), nil
		}
	}
	return "", fmt.Errorf("process has no cgroup v2")
}

// Name is what the process calls itself, at most 15 bytes of anything.
func (p *Process) Name() (string, error) {
	b, err := p.text("comm")
	return string(bytes.TrimSuffix(b, []byte("\n"))), err
}

// Mapping is a line of /proc/PID/maps and what its pages are. Amounts are pages.
type Mapping struct {
	Start, End  uint64 // addresses
	Permissions string
	Name        string // of a file, [heap] and so on: text that the process may choose
	Pages       uint64
	Present     uint64
	Swapped     uint64
	Exclusive   uint64 // of Present, mapped nowhere else
	Runs        uint64 // of adjacent page frames
	LargestRun  uint64
	InHugeRuns  uint64 // of Present, in runs at least as long as a huge page
}

// maxWalk is how many pages of one process are looked at: 16 GiB, some 0.1 s.
const maxWalk = 4 << 20

// Mappings returns the mappings in address order. truncated says that the process
// has so much mapped that the pages of its last mappings were not looked at.
func (p *Process) Mappings(pageSize, order int) (all []Mapping, truncated bool, err error) {
	b, err := p.text("maps")
	if err != nil {
		return nil, false, err
	}
	if all, err = parseMaps(b, pageSize); err != nil {
		return nil, false, err
	}
	fd, err := p.open("pagemap")
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(fd)
	buf := make([]uint64, WindowPages/4)
	left := uint64(maxWalk)
	for i := range all {
		m := &all[i]
		if len(m.Permissions) > 2 && m.Permissions[:3] == "---" {
			continue // reserved addresses: nothing can be there
		}
		if m.Pages > left {
			truncated = true
			continue
		}
		left -= m.Pages
		if err := m.walk(fd, buf, uint64(pageSize), order); err != nil {
			return nil, false, gone("pagemap", err)
		}
	}
	return all, truncated, nil
}

// Bits of /proc/PID/pagemap.
const (
	entryFrame     = 1<<55 - 1
	entryExclusive = 1 << 56
	entrySwapped   = 1 << 62
	entryPresent   = 1 << 63
)

// walk looks at the pages of one mapping.
func (m *Mapping) walk(fd int, buf []uint64, pageSize uint64, order int) error {
	var w frameRuns
	first := m.Start / pageSize
	for done := uint64(0); done < m.Pages; {
		part := buf[:min(uint64(len(buf)), m.Pages-done)]
		n, err := words(fd, first+done, part)
		if err != nil {
			return err
		}
		if n == 0 {
			break // [vsyscall] lies beyond the end
		}
		for _, e := range part[:n] {
			m.take(e, &w, order)
		}
		done += uint64(n)
	}
	m.endRun(&w, order)
	return nil
}

type frameRuns struct{ next, length uint64 }

func (m *Mapping) take(e uint64, w *frameRuns, order int) {
	switch {
	case e&entryPresent != 0:
		m.Present++
		if e&entryExclusive != 0 {
			m.Exclusive++
		}
		if frame := e & entryFrame; frame != w.next || w.length == 0 {
			m.endRun(w, order)
			w.next = frame
		}
		w.next++
		w.length++
		return
	case e&entrySwapped != 0:
		m.Swapped++
	}
	m.endRun(w, order)
}

func (m *Mapping) endRun(w *frameRuns, order int) {
	if w.length == 0 {
		return
	}
	m.Runs++
	m.LargestRun = max(m.LargestRun, w.length)
	if w.length >= 1<<order {
		m.InHugeRuns += w.length
	}
	w.length = 0
}

// parseMaps parses /proc/PID/maps.
func parseMaps(b []byte, pageSize int) ([]Mapping, error) {
	var all []Mapping
	for n := 1; len(b) > 0; n++ {
		var l []byte
		l, b = line(b)
		if len(l) == 0 {
			continue
		}
		addresses, rest := word(l)
		first, end, ok := addressRange(addresses)
		if !ok || end < first || end>>62 != 0 && !bytes.HasSuffix(l, []byte("[vsyscall]")) {
			return nil, fmt.Errorf("parse maps line %d: no address range in %.60q", n, l)
		}
		permissions, rest := word(rest)
		m := Mapping{Start: first, End: end, Permissions: string(permissions), Pages: (end - first) / uint64(pageSize)}
		for range 3 { // offset, device, inode
			_, rest = word(rest)
		}
		m.Name = string(bytes.TrimRight(rest, " "))
		all = append(all, m)
	}
	return all, nil
}

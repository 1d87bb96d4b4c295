package pagemap

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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

// small reads a file of a few words into buf, as much of it as fits.
func (p *Process) small(name string, buf []byte) ([]byte, error) {
	fd, err := p.open(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := pread(fd, buf, 0)
	return buf[:max(n, 0)], gone(name, err)
}

// maxCgroupBytes has room for a dozen v1 hierarchies with the longest paths.
const maxCgroupBytes = 64 << 10

// Cgroup is the path of its cgroup in the v2 hierarchy, as seen by this process.
func (p *Process) Cgroup() (string, error) {
	fd, err := p.open("cgroup")
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return readCgroup(&stream{name: "cgroup", fd: fd, left: maxCgroupBytes})
}

func readCgroup(r io.Reader) (string, error) {
	in := newLines(r)
	for in.next() {
		if path, ok := bytes.CutPrefix(in.line, []byte("0::")); ok && !in.cut {
			return string(path), nil
		}
	}
	return "", cmp.Or(in.err, errNoCgroup)
}

var errNoCgroup = errors.New("process has no cgroup v2")

// Name is what the process calls itself, at most 63 bytes of anything.
func (p *Process) Name() (string, error) {
	b, err := p.small("comm", make([]byte, 64))
	return string(bytes.TrimSuffix(b, []byte("\n"))), err
}

// Resident is the number of pages of its resident set.
func (p *Process) Resident() (int64, error) {
	b, err := p.small("statm", make([]byte, 256)) // seven numbers
	if err != nil {
		return 0, err
	}
	return parseStatm(b)
}

func parseStatm(b []byte) (int64, error) {
	_, rest := word(b)
	pages, _, ok := number(rest)
	if !ok {
		return 0, fmt.Errorf("parse statm: no resident set in %.60q", b)
	}
	return int64(pages), nil
}

// maxWalk is how many pages of one process are looked at: 16 GiB, some 0.1 s.
const maxWalk = 4 << 20

// Mappings returns the `most` mappings, at least one, with the most pages in
// memory, in address order. What it takes does not depend on the process: it reads
// no more than 16 MiB of text and looks at no more than 4 Mi pages. truncated says
// that there was more, or that there are more mappings. It ends with ctx.
func (p *Process) Mappings(ctx context.Context, pageSize, order, most int) (all []Mapping, truncated bool, err error) {
	maps, err := p.open("maps")
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(maps)
	fd, err := p.open("pagemap")
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(fd)
	w := walker{fd: fd, buf: make([]uint64, WindowPages/4), pageSize: uint64(pageSize), order: order, left: maxWalk}
	in := &stream{name: "maps", fd: maps, left: maxMapsBytes}
	all, truncated, err = readMaps(ctx, in, pageSize, most, func(m *Mapping) error { return w.look(ctx, m) })
	return all, truncated || w.skipped, err
}

// Bits of /proc/PID/pagemap.
const (
	entryFrame     = 1<<55 - 1
	entryExclusive = 1 << 56
	entrySwapped   = 1 << 62
	entryPresent   = 1 << 63
)

// walker looks at the pages of mappings, as long as there are some left to look at.
type walker struct {
	fd       int
	buf      []uint64
	pageSize uint64
	order    int
	left     uint64
	skipped  bool // a mapping was too large for what was left
}

// look looks at the pages of one mapping.
func (w *walker) look(ctx context.Context, m *Mapping) error {
	if m.Pages > w.left {
		w.skipped = true
		return nil
	}
	w.left -= m.Pages
	var runs frameRuns
	first := m.Start / w.pageSize
	for done := uint64(0); done < m.Pages; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := w.buf[:min(uint64(len(w.buf)), m.Pages-done)]
		n, err := words(w.fd, first+done, part)
		if err != nil {
			return gone("pagemap", err)
		}
		if n == 0 {
			break // [vsyscall] lies beyond the end
		}
		for _, e := range part[:n] {
			m.take(e, &runs, w.order)
		}
		done += uint64(n)
	}
	m.endRun(&runs, w.order)
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

package cgroup

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Reader reads what one cgroup uses. It keeps its files open and parses in
// place: a read costs one pread and allocates nothing. It is not for use by
// several goroutines at once.
type Reader struct {
	path string
	fds  [len(readerFiles)]int // 0: not opened yet, -1: this kernel has no such file, -2: closed
	buf  []byte
}

type readerFile int

const (
	fileCPU readerFile = iota
	fileMemoryCurrent
	fileMemoryPeak
	fileSwapCurrent
	fileMemoryStat
	fileMemoryEvents
	fileIO
	filePIDs
	fileCPUPressure
	fileMemoryPressure
	fileIOPressure
	fileEvents
)

var readerFiles = [...]struct{ name, needs string }{
	fileCPU:            {"cpu.stat", "Linux 4.15"},
	fileMemoryCurrent:  {"memory.current", "the memory controller"},
	fileMemoryPeak:     {"memory.peak", needsPeak},
	fileSwapCurrent:    {"memory.swap.current", "the memory controller and CONFIG_SWAP"},
	fileMemoryStat:     {"memory.stat", "the memory controller"},
	fileMemoryEvents:   {"memory.events", "the memory controller"},
	fileIO:             {"io.stat", "the io controller"},
	filePIDs:           {"pids.current", "the pids controller"},
	fileCPUPressure:    {"cpu.pressure", needsPressure},
	fileMemoryPressure: {"memory.pressure", needsPressure},
	fileIOPressure:     {"io.pressure", needsPressure},
	fileEvents:         {"cgroup.events", "Linux 4.15"},
}

// OpenReader makes a Reader. Its files are opened when they are first read.
func (g group) OpenReader() (*Reader, error) {
	if !g.Exists() {
		return nil, ErrGone
	}
	return &Reader{path: g.path, buf: make([]byte, 4096)}, nil
}

// OpenReader makes a Reader of any cgroup, by its path.
func OpenReader(dir string) (*Reader, error) { return group{dir}.OpenReader() }

// Close closes the kept files.
func (r *Reader) Close() error {
	var errs []error
	for i, fd := range r.fds {
		if fd > 0 {
			errs = append(errs, unix.Close(fd))
		}
		r.fds[i] = -2
	}
	return errors.Join(errs...)
}

// read returns the text of a file, valid until the next read. The buffer grows to
// hold the longest.
func (r *Reader) read(f readerFile) ([]byte, error) {
	if r.fds[f] == 0 {
		if err := r.open(f); err != nil {
			return nil, err
		}
	}
	if r.fds[f] == -2 {
		return nil, fmt.Errorf("read %s of %s: %w", readerFiles[f].name, r.path, os.ErrClosed)
	}
	if r.fds[f] < 0 {
		return nil, &UnsupportedError{Feature: readerFiles[f].name, Needs: readerFiles[f].needs}
	}
	for {
		n, err := unix.Pread(r.fds[f], r.buf, 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, goneOr(fmt.Errorf("read %s of %s: %w", readerFiles[f].name, r.path, err))
		case n < len(r.buf):
			return r.buf[:n], nil
		default:
			r.buf = make([]byte, 2*len(r.buf))
		}
	}
}

func (r *Reader) open(f readerFile) error {
	fd, err := openRetry(r.path+"/"+readerFiles[f].name, unix.O_RDONLY)
	if err == unix.ENOENT {
		if _, err := os.Lstat(r.path); err != nil {
			return goneOr(err)
		}
		r.fds[f] = -1
		return nil
	}
	if err != nil {
		return goneOr(fmt.Errorf("open %s of %s: %w", readerFiles[f].name, r.path, err))
	}
	r.fds[f] = fd
	return nil
}

func parseInto[T any](r *Reader, f readerFile, parse func([]byte) (T, error)) (T, error) {
	var zero T
	b, err := r.read(f)
	if err != nil {
		return zero, err
	}
	v, err := parse(b)
	if err != nil {
		return zero, fmt.Errorf("parse %s of %s: %w", readerFiles[f].name, r.path, err)
	}
	return v, nil
}

// CPU reads cpu.stat.
func (r *Reader) CPU() (CPUStat, error) { return parseInto(r, fileCPU, parseCPUStat) }

// MemoryCurrent reads memory.current: bytes in use, page cache included.
func (r *Reader) MemoryCurrent() (int64, error) { return parseInto(r, fileMemoryCurrent, parseNumber) }

// MemoryPeak reads memory.peak: the most bytes ever in use (Linux 5.19).
func (r *Reader) MemoryPeak() (int64, error) { return parseInto(r, fileMemoryPeak, parseNumber) }

// SwapCurrent reads memory.swap.current: bytes swapped out.
func (r *Reader) SwapCurrent() (int64, error) { return parseInto(r, fileSwapCurrent, parseNumber) }

// MemoryStat reads memory.stat.
func (r *Reader) MemoryStat() (MemoryStat, error) {
	return parseInto(r, fileMemoryStat, parseMemoryStat)
}

// MemoryEvents reads memory.events.
func (r *Reader) MemoryEvents() (MemoryEvents, error) {
	return parseInto(r, fileMemoryEvents, parseMemoryEvents)
}

// IO reads io.stat, summed over devices.
func (r *Reader) IO() (IOStat, error) { return parseInto(r, fileIO, parseIOStat) }

// PIDs reads pids.current: processes and threads, those below included.
func (r *Reader) PIDs() (int64, error) { return parseInto(r, filePIDs, parseNumber) }

// Pressure reads the PSI of cpu, memory or io.
func (r *Reader) Pressure(resource string) (Pressure, error) {
	switch resource {
	case "cpu":
		return parseInto(r, fileCPUPressure, parsePressure)
	case "memory":
		return parseInto(r, fileMemoryPressure, parsePressure)
	case "io":
		return parseInto(r, fileIOPressure, parsePressure)
	}
	return Pressure{}, fmt.Errorf("pressure of %q: must be cpu, memory or io", resource)
}

// Events reads cgroup.events: whether a process lives in the cgroup or below, and
// whether all of them are frozen.
func (r *Reader) Events() (populated, frozen bool, err error) {
	e, err := parseInto(r, fileEvents, parseEvents)
	return e.populated, e.frozen, err
}

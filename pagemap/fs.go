package pagemap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FS is where proc and sys are found: "/", or a directory in tests.
type FS string

func (fs FS) path(name string) string { return filepath.Join(string(fs), name) }

// ErrUnsupported says that this kernel, or whoever runs this process, has no
// page-level files.
var ErrUnsupported = errors.New("not supported by this kernel")

// open opens without following links, again when a signal interrupts it. It is a
// raw descriptor: an os.File would be offered to the poller.
func (fs FS) open(name string) (int, error) {
	for {
		fd, err := unix.Open(fs.path(name), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOENT):
			return -1, fmt.Errorf("open %s: %w", fs.path(name), errors.Join(ErrUnsupported, err))
		case err != nil:
			return -1, fmt.Errorf("open %s: %w", fs.path(name), err)
		default:
			return fd, nil
		}
	}
}

// pread reads once at offset, again when a signal interrupts it.
func pread(fd int, b []byte, offset int64) (int, error) {
	for {
		n, err := unix.Pread(fd, b, offset)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// text is a kept file of /proc that is read as a whole: one whose length is the
// machine's doing, not a process's.
type text struct {
	name string
	fd   int
}

func (fs FS) openText(name string) (text, error) {
	fd, err := fs.open(name)
	return text{name, fd}, err
}

// read returns the whole text in buf, which it may replace by a longer one. A
// seq file gives at most a page at a time, so it is read until nothing comes.
func (t text) read(buf []byte) ([]byte, error) {
	buf = buf[:cap(buf)]
	total := 0
	for {
		if total == len(buf) {
			buf = append(buf, make([]byte, max(len(buf), 4096))...)
		}
		n, err := pread(t.fd, buf[total:], int64(total))
		if err != nil {
			return buf, fmt.Errorf("read %s: %w", t.name, err)
		}
		if n == 0 {
			return buf[:total], nil
		}
		total += n
	}
}

// HugeOrder is the order of a huge page: that of the page table level above the
// lowest, where the kernel tells, else of 2 MiB.
func (fs FS) HugeOrder(pageSize int) int {
	size := uint64(2 << 20)
	if b, err := os.ReadFile(fs.path("sys/kernel/mm/transparent_hugepage/hpage_pmd_size")); err == nil {
		if v, rest, ok := number(trim(b)); ok && len(rest) == 0 {
			size = v
		}
	}
	order := 0
	for uint64(pageSize)<<order < size && order < maxBlockOrder {
		order++
	}
	return order
}

// maxBlockOrder keeps the counts of a block in 16 bits: arm64 with pages of
// 64 KiB has huge pages of order 13.
const maxBlockOrder = 14

package meter

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// file is one of /proc or /sys that stays open and is read from its start.
type file struct {
	path string
	fd   int // 0: not open
	buf  []byte
}

// read returns the text, valid until the next read. Of one longer than the
// buffer may grow, the rest is left out.
func (f *file) read() ([]byte, error) {
	if f.fd == 0 {
		fd, err := unix.Open(f.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", f.path, err)
		}
		f.fd = fd
	}
	if f.buf == nil {
		f.buf = make([]byte, 4096)
	}
	for {
		n, err := unix.Pread(f.fd, f.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			f.close()
			return nil, fmt.Errorf("read %s: %w", f.path, err)
		case n < len(f.buf) || n >= maxFile:
			return f.buf[:n], nil
		default:
			f.buf = make([]byte, 2*len(f.buf))
		}
	}
}

// maxFile is more than any file here needs to be read of.
const maxFile = 64 << 10

func (f *file) close() {
	if f.fd > 0 {
		_ = unix.Close(f.fd)
	}
	f.fd = 0
}

// word cuts the first word off a text.
func word(b []byte) (first, rest []byte) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for i, c := range b {
		if c == ' ' || c == '\t' || c == '\n' {
			return b[:i], b[i:]
		}
	}
	return b, nil
}

// line cuts the first line off a text.
func line(b []byte) (first, rest []byte) {
	first, rest, _ = bytes.Cut(b, []byte("\n"))
	return first, rest
}

// number reads digits; ok is false when there is anything else, or too much.
func number(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// numbers reads the words of a line into all, and returns how many there were.
func numbers(b []byte, all []uint64) (n int) {
	for n < len(all) {
		var w []byte
		w, b = word(b)
		v, ok := number(w)
		if !ok {
			break
		}
		all[n] = v
		n++
	}
	return n
}

// after returns the word behind a key such as "MemTotal:" or "total=".
func after(b []byte, key string) (uint64, error) {
	i := bytes.Index(b, []byte(key))
	if i < 0 {
		return 0, fmt.Errorf("no %s", key)
	}
	w, _ := word(b[i+len(key):])
	n, ok := number(w)
	if !ok {
		return 0, fmt.Errorf("%s is %s", key, strconv.Quote(string(w)))
	}
	return n, nil
}

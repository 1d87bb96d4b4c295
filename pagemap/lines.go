package pagemap

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// errMore says that a file is longer than what is read of it.
var errMore = errors.New("more than is read")

// stream reads a file of /proc from its beginning on, and at most `left` bytes.
type stream struct {
	name string
	fd   int
	at   int64
	left int64
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, errMore
	}
	n, err := pread(s.fd, b[:min(int64(len(b)), s.left)], s.at)
	if err != nil {
		return 0, gone(s.name, err)
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	s.at += int64(n)
	s.left -= int64(n)
	return n, nil
}

const (
	lineBuffer = 8 << 10 // holds any cgroup path, which PATH_MAX bounds
	lineHead   = 512     // kept of a longer line
)

// lines reads a text line by line in memory that does not grow.
type lines struct {
	r    *bufio.Reader
	head []byte
	line []byte // valid until the next one is read
	cut  bool   // only the beginning of the line is there
	more bool   // the text was not read to its end
	err  error  // why reading failed
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, lineBuffer)} }

// next reads a line. A last line that may be incomplete since no more is read is
// left out.
func (l *lines) next() bool {
	b, err := l.r.ReadSlice('\n')
	l.cut = errors.Is(err, bufio.ErrBufferFull)
	if l.cut {
		l.head = append(l.head[:0], b[:lineHead]...)
		b = l.head
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.r.ReadSlice('\n')
		}
	}
	switch {
	case errors.Is(err, errMore):
		l.more = true
		return false
	case err != nil && !errors.Is(err, io.EOF):
		l.err = err
		return false
	}
	l.line = bytes.TrimSuffix(b, []byte("\n"))
	return err == nil || len(b) > 0
}

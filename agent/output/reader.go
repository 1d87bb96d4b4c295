package output

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// chunk is how much is read at one time.
const chunk = 64 << 10

// A Reader reads an output that may still grow, and leaves out what has been
// punched out of it. It is not for several goroutines at once.
type Reader struct {
	f    *os.File
	at   int64
	lost int64
	buf  [chunk]byte
}

// NewReader reads a file from its beginning, and closes it in the end.
func NewReader(f *os.File) *Reader { return &Reader{f: f} }

// Close closes the file.
func (r *Reader) Close() error { return r.f.Close() }

// Offset is where in the output the next byte is.
func (r *Reader) Offset() int64 { return r.at }

// Lost is how many bytes CopyTo has left out, because they were punched out before it came to
// them.
func (r *Reader) Lost() int64 { return r.lost }

// SeekTo goes to an offset, or to the first byte behind it that is still there.
func (r *Reader) SeekTo(offset int64) error {
	r.at = max(offset, 0)
	return r.skipHole()
}

// SeekTail goes to where the last n lines begin, no further back than there is
// anything, nor than tailMost. A last line without newline counts.
func (r *Reader) SeekTail(ctx context.Context, n int) error {
	at, err := r.tail(ctx, n)
	r.at = at
	return err
}

// tailMost is how far back SeekTail looks. The VM decides how long the file is said to be, and
// more than this is no end of anything.
const tailMost = 256 << 20

// skipHole moves on over what has been punched out. The kernel keeps holes in
// whole blocks and zeroes the rest of a block: zeros behind a hole go too.
func (r *Reader) skipHole() error {
	st, err := r.f.Stat()
	if err != nil {
		return err
	}
	at, err := unix.Seek(int(r.f.Fd()), r.at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but hole up to what was the end, if that is behind us
		r.at = max(r.at, st.Size())
		return nil
	case errors.Is(err, unix.EINVAL): // a file system without holes
		return nil
	case err != nil:
		return os.NewSyscallError("lseek", err)
	case at == r.at:
		return nil
	}

	r.at = at
	n, err := r.f.ReadAt(r.buf[:4096], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	r.at += int64(n - len(bytes.TrimLeft(r.buf[:n], "\x00")))
	return nil
}

// CopyTo writes everything from here to what is the end of the file now.
func (r *Reader) CopyTo(ctx context.Context, w io.Writer) error {
	for ctx.Err() == nil {
		before := r.at
		if err := r.skipHole(); err != nil {
			return err
		}
		r.lost += r.at - before
		n, err := r.f.ReadAt(r.buf[:], r.at)
		if n > 0 {
			if _, err := w.Write(r.buf[:n]); err != nil {
				return err
			}
			r.at += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// tail finds where the last n lines begin.
func (r *Reader) tail(ctx context.Context, n int) (int64, error) {
	st, err := r.f.Stat()
	if err != nil {
		return 0, err
	}
	r.at = max(st.Size()-tailMost, 0)
	if err := r.skipHole(); err != nil {
		return 0, err
	}
	first, end := r.at, st.Size()
	if n == 0 || end <= first {
		return max(end, first), nil
	}

	left := n
	for at := end; at > first; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		size := min(at-first, chunk)
		at -= size
		if _, err := r.f.ReadAt(r.buf[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if r.buf[i] != '\n' || at+i == end-1 { // the newline at the very end ends the last line
				continue
			}
			if left--; left == 0 {
				return at + i + 1, nil
			}
		}
	}
	return first, nil
}

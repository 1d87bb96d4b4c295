package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"cloudflash/agent"
	"cloudflash/api/problem"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"golang.org/x/sys/unix"
)

type outputInput struct {
	Target
	Stream string `query:"stream" enum:"stdout,stderr" default:"stdout"`
	Tail   int    `query:"tail" minimum:"-1" maximum:"1000000" default:"-1" doc:"Only the last N lines; -1 for all"`
	Offset int64  `query:"offset" minimum:"-1" default:"-1" doc:"Begin at this byte; not together with tail"`
	Follow bool   `query:"follow" doc:"Go on until the cloudlet has ended"`
}

// followEvery is how often a followed output is looked at; growth of a file
// tells nobody.
const followEvery = 100 * time.Millisecond

// outputChunk is how much output is read at one time.
const outputChunk = 64 << 10

// getOutput sends what a cloudlet wrote, byte for byte. Of a long output the
// oldest part is a hole in the file and is left out; X-Output-Offset says where
// the answer begins.
func (s *server) readOutput(ctx context.Context, in *outputInput) (*huma.StreamResponse, error) {
	if in.Tail >= 0 && in.Offset >= 0 {
		return nil, refuseFields("invalid", []problem.Field{{Pointer: "?offset", Detail: "and tail exclude each other"}})
	}
	c, err := s.agent.Cloudlet(in.Ref)
	if err != nil {
		return nil, err
	}
	f, err := s.openOutput(ctx, c.ID, in)
	if err != nil {
		return nil, err
	}
	o := &output{f: f}
	if err := o.seek(in); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer f.Close()
		s.sendOutput(hc, c.ID, o, in.Follow)
	}}, nil
}

func (s *server) sendOutput(hc huma.Context, id string, o *output, follow bool) {
	ctx, w := hc.Context(), humagin.Unwrap(hc).Writer
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Output-Offset", strconv.FormatInt(o.at, 10))
	o.out = newStreamWriter(w)
	if o.out.control.Flush() != nil || isHead(ctx) {
		return
	}
	err := o.copy(ctx)
	if follow {
		err = s.follow(ctx, id, o)
	}
	if err != nil && ctx.Err() == nil {
		s.opts.Log.Debug("send output", "cloudlet", id, "err", err)
		panic(http.ErrAbortHandler) // the client must not take it for the end
	}
}

// openOutput opens the file. A follower of a cloudlet that has not started
// waits for its start.
func (s *server) openOutput(ctx context.Context, id string, in *outputInput) (*os.File, error) {
	for {
		changed := s.agent.Updates()
		c, err := s.agent.Cloudlet(id)
		if err != nil {
			return nil, err
		}
		f, err := s.agent.OpenOutput(id, in.Stream)
		early := errors.Is(err, agent.ErrConflict) || errors.Is(err, agent.ErrNotFound)
		if !early || !in.Follow || c.State.Final() {
			return f, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// follow sends what is written until the cloudlet has ended or is forgotten.
func (s *server) follow(ctx context.Context, id string, o *output) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		c, err := s.agent.Cloudlet(id) // before the copy: what it wrote last is sent
		ended := err != nil || c.State.Final()
		if err := o.copy(ctx); err != nil || ended {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// output is a growing file whose beginning is punched out as it grows.
type output struct {
	f   *os.File
	out *streamWriter
	at  int64
	buf [outputChunk]byte
}

// seek moves to where the answer begins.
func (o *output) seek(in *outputInput) error {
	if in.Tail >= 0 {
		at, err := o.tail(in.Tail)
		o.at = at
		return err
	}
	o.at = max(in.Offset, 0)
	return o.skipHole()
}

// skipHole moves on over what has been punched out. The kernel keeps holes in
// whole blocks and zeroes the rest of a block: zeros behind a hole go too.
func (o *output) skipHole() error {
	at, err := unix.Seek(int(o.f.Fd()), o.at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but hole from here on, or the end
		return nil
	case errors.Is(err, unix.EINVAL): // a file system without holes
		return nil
	case err != nil:
		return os.NewSyscallError("lseek", err)
	case at == o.at:
		return nil
	}
	o.at = at
	n, err := o.f.ReadAt(o.buf[:4096], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	o.at += int64(n - len(bytes.TrimLeft(o.buf[:n], "\x00")))
	return nil
}

// copy sends everything from o.at to the end of the file.
func (o *output) copy(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := o.skipHole(); err != nil {
			return err
		}
		n, err := o.f.ReadAt(o.buf[:], o.at)
		if n > 0 {
			if err := o.out.write(o.buf[:n]); err != nil {
				return err
			}
			o.at += int64(n)
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

// tail finds where the last n lines begin, no further back than the data goes.
// A last line without newline counts.
func (o *output) tail(n int) (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	if err := o.skipHole(); err != nil {
		return 0, err
	}
	first, end := o.at, st.Size()
	if n == 0 || end <= first {
		return max(end, first), nil
	}
	left := n
	for at := end; at > first; {
		size := min(at-first, outputChunk)
		at -= size
		if _, err := o.f.ReadAt(o.buf[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if o.buf[i] != '\n' || at+i == end-1 { // the newline at the very end ends the last line
				continue
			}
			if left--; left == 0 {
				return at + i + 1, nil
			}
		}
	}
	return first, nil
}

package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"cloudflash/agent"
	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sys/unix"
)

type outputInput struct {
	refInput
	Stream string `query:"stream" enum:"stdout,stderr" default:"stdout"`
	Tail   int    `query:"tail" minimum:"-1" maximum:"100000" default:"-1" doc:"Begin at the last so many lines; -1 for all"`
	Offset int64  `query:"offset" minimum:"-1" default:"-1" doc:"Begin at this byte instead"`
	Follow bool   `query:"follow" doc:"Go on until the cloudlet has ended"`
}

// readOutput streams a file that only grows. Of a long output the oldest part has
// been given back to the disk; reading begins at the first byte that is still there.
func (s *server) readOutput(ctx context.Context, in *outputInput) (*huma.StreamResponse, error) {
	c, err := s.agent.Cloudlet(in.Ref)
	if err != nil {
		return nil, s.fail(err)
	}
	f, err := s.agent.OpenOutput(c.ID, in.Stream)
	for in.Follow && errors.Is(err, agent.ErrConflict) { // queued: wait until it starts
		changed := s.agent.Updates()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, s.fail(ctx.Err())
		}
		if c, cerr := s.agent.Cloudlet(c.ID); cerr == nil && c.State.Final() && c.StartedAt == nil {
			break
		}
		f, err = s.agent.OpenOutput(c.ID, in.Stream)
	}
	if err != nil {
		return nil, s.fail(err)
	}
	if err := seek(f, in.Offset, in.Tail); err != nil {
		return nil, s.fail(errors.Join(err, f.Close()))
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer f.Close()
		hc.SetHeader("Content-Type", "text/plain; charset=utf-8")
		hc.SetHeader("Cache-Control", "no-store")
		hc.SetStatus(http.StatusOK)
		s.copyOutput(hc.Context(), hc.BodyWriter(), f, c.ID, in.Follow)
	}}, nil
}

// followEvery is how often a followed output is looked at.
const followEvery = 100 * time.Millisecond

func (s *server) copyOutput(ctx context.Context, w io.Writer, f *os.File, id string, follow bool) {
	flush := func() {}
	if fl, ok := w.(http.Flusher); ok {
		flush = fl.Flush
	}
	flush() // headers at once
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		c, err := s.agent.Cloudlet(id) // before reading: what came until its end is in the file
		n, copyErr := io.Copy(w, f)
		if n > 0 {
			flush()
		}
		if !follow || err != nil || copyErr != nil || c.State.Final() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// seek finds where reading begins.
func seek(f *os.File, offset int64, tail int) error {
	start, err := unix.Seek(int(f.Fd()), max(offset, 0), unix.SEEK_DATA)
	if err == unix.ENXIO { // nothing after it
		start, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return err
	}
	if tail >= 0 && offset < 0 {
		if start, err = lastLines(f, start, tail); err != nil {
			return err
		}
	}
	_, err = f.Seek(start, io.SeekStart)
	return err
}

// lastLines finds the byte where the last n lines begin, reading backwards and
// not before start.
func lastLines(f *os.File, start int64, n int) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	end := st.Size()
	for pos := end; pos > start; {
		size := min(int64(len(buf)), pos-start)
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		chunk := buf[:size]
		for {
			i := bytes.LastIndexByte(chunk, '\n')
			if i < 0 {
				break
			}
			if pos+int64(i) != end-1 { // the last line's own end does not count
				if n--; n <= 0 {
					return pos + int64(i) + 1, nil
				}
			} else if n == 0 {
				return end, nil
			}
			chunk = chunk[:i]
		}
	}
	if n == 0 {
		return end, nil
	}
	return start, nil
}

package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/output"
	"cloudflash/api/problem"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

type outputInput struct {
	Target
	Stream string `query:"stream" enum:"stdout,stderr" default:"stdout"`
	Tail   int    `query:"tail" minimum:"-1" maximum:"1000000" default:"-1" doc:"Only the last N lines; -1 for all"`
	Offset int64  `query:"offset" minimum:"-1" default:"-1" doc:"Begin at this byte; not together with tail"`
	Follow bool   `query:"follow" doc:"Go on until the cloudlet has ended"`
}

const outputGap = "X-Output-Gap"

// followEvery is how often a followed output is looked at; growth of a file
// tells nobody.
const followEvery = 100 * time.Millisecond

// getOutput sends what a cloudlet wrote, byte for byte. Of a long output the
// oldest part is a hole in the file and is left out; X-Output-Offset says where
// the answer begins, and the trailer X-Output-Gap how many bytes were left out since, where
// the client was too slow.
func (s *server) readOutput(ctx context.Context, in *outputInput) (*huma.StreamResponse, error) {
	if in.Tail >= 0 && in.Offset >= 0 {
		return nil, refuseFields("invalid", []problem.Field{{Pointer: "?offset", Detail: "and tail exclude each other"}})
	}
	c, err := s.parts.Cloudlets.Cloudlet(in.Ref)
	if err != nil {
		return nil, err
	}
	r, err := s.openOutput(ctx, c.ID, in)
	if err != nil {
		return nil, err
	}
	seek := func() error { return r.SeekTo(in.Offset) }
	if in.Tail >= 0 {
		seek = func() error { return r.SeekTail(ctx, in.Tail) }
	}
	if err := seek(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer r.Close()
		s.sendOutput(hc, c.ID, r, in.Follow)
	}}, nil
}

func (s *server) sendOutput(hc huma.Context, id string, r *output.Reader, follow bool) {
	ctx, w := hc.Context(), humagin.Unwrap(hc).Writer
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Output-Offset", strconv.FormatInt(r.Offset(), 10))
	h.Set("Trailer", outputGap)
	out := newStreamWriter(w)
	if out.control.Flush() != nil || isHead(ctx) {
		return
	}

	var err error
	if follow {
		err = s.follow(ctx, id, r, out)
	} else {
		err = r.CopyTo(ctx, out)
	}
	if lost := r.Lost(); lost > 0 {
		h.Set(outputGap, strconv.FormatInt(lost, 10))
	}
	if err != nil && ctx.Err() == nil {
		s.opts.Log.Debug("send output", "cloudlet", id, "err", err)
		panic(http.ErrAbortHandler) // the client must not take it for the end
	}
}

// openOutput opens the file. A follower of a cloudlet that has not started
// waits for its start.
func (s *server) openOutput(ctx context.Context, id string, in *outputInput) (*output.Reader, error) {
	for {
		changed := s.parts.Cloudlets.WatchCloudlet(id)
		c, err := s.parts.Cloudlets.Cloudlet(id)
		if err != nil {
			return nil, err
		}
		r, err := s.parts.Cloudlets.OpenOutput(id, in.Stream)
		early := errors.Is(err, fault.ErrConflict) || errors.Is(err, fault.ErrNotFound)
		if !early || !in.Follow || c.State.Final() {
			return r, err
		}
		select {
		case <-changed:
		case <-time.After(followEvery): // it has a file before it is stored that it runs
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// follow sends what is written until the cloudlet has ended or is forgotten.
func (s *server) follow(ctx context.Context, id string, r *output.Reader, out *streamWriter) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		c, err := s.parts.Cloudlets.Cloudlet(id) // before the copy: what it wrote last is sent
		ended := err != nil || c.State.Final()
		if err := r.CopyTo(ctx, out); err != nil || ended {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

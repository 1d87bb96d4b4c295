package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/api/problem"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

type eventsInput struct {
	Since       uint64 `query:"since" doc:"Only events after this seq"`
	Limit       int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	Accept      string `header:"Accept"`
	LastEventID string `header:"Last-Event-ID" doc:"Of server-sent events: as since"`
}

// eventList is a page of events; the next begins after last_seq.
type eventList struct {
	Items   []agent.Event `json:"items"`
	LastSeq uint64        `json:"last_seq" doc:"Seq of the last item: since of the next page"`
}

func (s *server) listEvents(_ context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	since := in.Since
	if in.LastEventID != "" {
		n, err := strconv.ParseUint(in.LastEventID, 10, 64)
		if err != nil {
			return nil, refuseFields("invalid", []problem.Field{{Pointer: "Last-Event-ID", Detail: "must be the seq of an event"}})
		}
		since = n
	}
	events, err := s.agent.Events(since, in.Limit)
	if err != nil {
		return nil, err
	}
	if strings.Contains(in.Accept, "text/event-stream") {
		return &huma.StreamResponse{Body: func(hc huma.Context) { s.followEvents(hc, since) }}, nil
	}
	out := eventList{Items: append([]agent.Event{}, events...), LastSeq: since}
	if n := len(events); n > 0 {
		out.LastSeq = events[n-1].Seq
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", "application/json")
		hc.SetStatus(http.StatusOK)
		_ = s.marshal(hc.BodyWriter(), out)
	}}, nil
}

// keepAlive is how often a quiet stream says that it is there.
const keepAlive = 15 * time.Second

// followEvents sends events as they happen until the client goes. A client so
// slow that events were forgotten meanwhile is told so and goes on with what is
// left.
func (s *server) followEvents(hc huma.Context, since uint64) {
	ctx, w := hc.Context(), humagin.Unwrap(hc).Writer
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	out := newStreamWriter(w)
	if out.write([]byte(": hello\n\n")) != nil || isHead(ctx) {
		return
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		changed := s.agent.Updates() // before looking: no event goes unseen
		events, err := s.agent.Events(since, 1000)
		switch {
		case errors.Is(err, agent.ErrExpired):
			since = 0
			if err = out.write([]byte("event: gap\ndata: {}\n\n")); err == nil {
				continue
			}
		case len(events) > 0:
			since = events[len(events)-1].Seq
			err = out.events(events)
		}
		if err != nil {
			return
		}
		if len(events) == 1000 {
			continue // there is more
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
			if out.write([]byte(": still here\n\n")) != nil {
				return
			}
		}
	}
}

// writeTimeout is how long a client of a stream may not take what is written.
const writeTimeout = 30 * time.Second

// streamWriter writes to a client that must keep up.
type streamWriter struct {
	w       io.Writer
	control *http.ResponseController
}

func newStreamWriter(w http.ResponseWriter) *streamWriter {
	return &streamWriter{w: w, control: http.NewResponseController(w)}
}

// write sends b at once.
func (s *streamWriter) write(b []byte) error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has one
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.control.Flush()
}

func (s *streamWriter) events(batch []agent.Event) error {
	var b []byte
	for _, e := range batch {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b = fmt.Appendf(b, "id: %d\nevent: event\ndata: %s\n\n", e.Seq, data)
	}
	return s.write(b)
}

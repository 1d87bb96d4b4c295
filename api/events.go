package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent"
	"github.com/danielgtaylor/huma/v2"
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
	if n, err := strconv.ParseUint(in.LastEventID, 10, 64); err == nil {
		since = n
	}
	events, err := s.agent.Events(since, in.Limit)
	if err != nil {
		return nil, s.fail(err)
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
		_ = json.NewEncoder(hc.BodyWriter()).Encode(out) // the client is gone: nobody to tell
	}}, nil
}

// keepAlive is how often a quiet stream says that it is there.
const keepAlive = 15 * time.Second

func (s *server) followEvents(hc huma.Context, since uint64) {
	hc.SetHeader("Content-Type", "text/event-stream")
	hc.SetHeader("Cache-Control", "no-store")
	hc.SetStatus(http.StatusOK)
	w := hc.BodyWriter()
	flusher, _ := w.(http.Flusher)
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		changed := s.agent.Updates()
		events, err := s.agent.Events(since, 1000)
		if errors.Is(err, agent.ErrExpired) { // too slow: go on with what is left
			since = 0
			continue
		}
		if err != nil {
			return
		}
		for _, e := range events {
			data, err := json.Marshal(e)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "id: %d\nevent: event\ndata: %s\n\n", e.Seq, data); err != nil {
				return
			}
			since = e.Seq
		}
		if flusher != nil {
			flusher.Flush()
		}
		select {
		case <-hc.Context().Done():
			return
		case <-changed:
		case <-tick.C:
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return
			}
		}
	}
}

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/api/problem"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

// Seqs is the query of everything that goes on and on: what is asked for is told
// by number. It is exported for huma, as Paging is.
type Seqs struct {
	Since       uint64 `query:"since" doc:"Only what comes after this seq"`
	Limit       int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	Accept      string `header:"Accept"`
	LastEventID string `header:"Last-Event-ID" doc:"Of server-sent events: as since"`
}

// from is after which seq to begin.
func (q Seqs) from() (uint64, error) {
	if q.LastEventID == "" {
		return q.Since, nil
	}
	n, err := strconv.ParseUint(q.LastEventID, 10, 64)
	if err != nil {
		return 0, refuseFields("invalid", []problem.Field{{Pointer: "Last-Event-ID", Detail: "must be the seq of an event"}})
	}
	return n, nil
}

// feedPage is a page of a feed; the next begins after last_seq.
type feedPage[T any] struct {
	Items   []T    `json:"items" nullable:"false"`
	LastSeq uint64 `json:"last_seq" doc:"How far this page goes: since of the next"`
}

// feed is what happened, one T after the other.
type feed[T any] struct {
	name string // of one, in server-sent events
	seq  func(T) uint64
	// read returns the oldest after since, and after which seq the next are. More
	// tells that they may be there already.
	read func(since uint64, limit int) (all []T, next uint64, more bool, err error)
}

// plainFeed is one whose every T is wanted.
func plainFeed[T any](name string, seq func(T) uint64, read func(since uint64, limit int) ([]T, error)) feed[T] {
	return feed[T]{name, seq, func(since uint64, limit int) ([]T, uint64, bool, error) {
		all, err := read(since, limit)
		if n := len(all); n > 0 {
			since = seq(all[n-1])
		}
		return all, since, len(all) == limit, err
	}}
}

// only leaves out what is not wanted. What it passes over takes no room on a page.
func (f feed[T]) only(wanted func(T) bool) feed[T] {
	read := f.read
	f.read = func(since uint64, limit int) ([]T, uint64, bool, error) {
		var kept []T
		for {
			all, next, more, err := read(since, 1000)
			if err != nil {
				return nil, 0, false, err
			}
			for _, v := range all {
				if !wanted(v) {
					continue
				}
				if kept = append(kept, v); len(kept) == limit {
					return kept, f.seq(v), true, nil
				}
			}
			if since = next; !more {
				return kept, since, false, nil
			}
		}
	}
	return f
}

// answerFeed sends a page, or follows the feed for who wants server-sent events.
func answerFeed[T any](s *server, f feed[T], q Seqs) (*huma.StreamResponse, error) {
	since, err := q.from()
	if err != nil {
		return nil, err
	}
	all, next, _, err := f.read(since, q.Limit)
	if err != nil {
		return nil, err
	}
	if strings.Contains(q.Accept, "text/event-stream") {
		return &huma.StreamResponse{Body: func(hc huma.Context) { follow(s, hc, f, since) }}, nil
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", "application/json")
		hc.SetStatus(http.StatusOK)
		_ = s.marshal(hc.BodyWriter(), feedPage[T]{append([]T{}, all...), next})
	}}, nil
}

// keepAlive is how often a quiet stream says that it is there.
const keepAlive = 15 * time.Second

// follow sends what happens as it happens until the client goes. A client so
// slow that some was forgotten meanwhile is told so and goes on with what is
// left.
func follow[T any](s *server, hc huma.Context, f feed[T], since uint64) {
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
		changed := s.parts.Host.Updates() // before looking: nothing goes unseen
		all, next, more, err := f.read(since, 1000)
		switch {
		case errors.Is(err, fault.ErrExpired):
			since = 0
			if err = out.write([]byte("event: gap\ndata: {}\n\n")); err == nil {
				continue
			}
		case err == nil && len(all) > 0:
			err = sendFeed(out, f, all)
		}
		if err != nil {
			return
		}
		if since = next; more {
			continue
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

func sendFeed[T any](out *streamWriter, f feed[T], all []T) error {
	var b []byte
	for _, v := range all {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		b = fmt.Appendf(b, "id: %d\nevent: %s\ndata: %s\n\n", f.seq(v), f.name, data)
	}
	return out.write(b)
}

// documentFeed describes the answers, which huma only passes on.
func documentFeed[T any](s *server, path string) {
	s.documentContent(path, map[string]*huma.MediaType{
		"application/json":  {Schema: s.schemaOf(reflect.TypeFor[feedPage[T]]())},
		"text/event-stream": {Schema: textSchema},
	})
}

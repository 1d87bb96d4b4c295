package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"cloudflash/api/problem"

	"github.com/coder/websocket"
)

const (
	writeTimeout = 10 * time.Second // a client that takes longer for one frame is cut off
	pingEvery    = 30 * time.Second
	maxRequest   = 4 << 10
)

// request is what a client sends.
type request struct {
	Op     string `json:"op"` // sub or unsub
	Topics []struct {
		Name string `json:"name"`
	} `json:"topics"`
}

// WebSocket serves one client. It subscribes by
// {"op":"sub","topics":[{"name":"vms"}]}.
func (h *Hub) WebSocket(w http.ResponseWriter, r *http.Request) {
	if p := problem.Handshake(r); p != nil {
		p.Hint = "without WebSockets: /api/v1/stream/sse"
		problem.Write(w, r, p)
		return
	}
	c := newClient()
	if !h.join(c) {
		full(w, r)
		return
	}
	defer h.leave(c)
	// Package access has compared Origin and Host already; a proxy may have
	// changed what the library would compare.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxRequest)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		h.listen(ctx, conn, c)
	}()
	h.send(ctx, c, func(m message) error {
		writing, stop := context.WithTimeout(ctx, writeTimeout)
		defer stop()
		return conn.Write(writing, websocket.MessageText, m.text)
	}, func() error {
		pinging, stop := context.WithTimeout(ctx, writeTimeout)
		defer stop()
		return conn.Ping(pinging)
	})
	_ = conn.Close(websocket.StatusGoingAway, "")
	cancel()
	<-done
}

func full(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, r, problem.New(http.StatusServiceUnavailable, "too_many_clients", "too many live clients, or the agent is stopping", "close a dashboard, or try again"))
}

// listen obeys what the client asks for until it hangs up or talks nonsense.
func (h *Hub) listen(ctx context.Context, conn *websocket.Conn, c *client) {
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return
		}
		var req request
		if err := json.Unmarshal(b, &req); err != nil {
			_ = conn.Close(websocket.StatusInvalidFramePayloadData, "not JSON")
			return
		}
		for _, t := range req.Topics {
			switch {
			case req.Op == "unsub":
				c.unsubscribe(t.Name)
			case req.Op != "sub" || !h.subscribe(c, t.Name):
				_ = conn.Close(websocket.StatusPolicyViolation, "ops are sub and unsub, topics "+strings.Join(topics, ", "))
				return
			}
		}
	}
}

// send writes what waits until ctx ends, a write fails or the hub closes.
func (h *Hub) send(ctx context.Context, c *client, write func(message) error, ping func() error) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.gone:
			return
		case <-c.ready:
			for _, m := range c.take() {
				if write(m) != nil {
					return
				}
			}
		case <-tick.C:
			if ping() != nil {
				return
			}
		}
	}
}

// Events serves the same frames as server-sent events. Topics are chosen by
// ?topics=host,vms; all when there is none.
func (h *Hub) Events(w http.ResponseWriter, r *http.Request) {
	wanted := topics
	if q := r.URL.Query().Get("topics"); q != "" {
		wanted = strings.Split(q, ",")
	}
	c := newClient()
	if !h.join(c) {
		full(w, r)
		return
	}
	defer h.leave(c)
	for _, t := range wanted {
		if !h.subscribe(c, t) {
			problem.Write(w, r, problem.New(http.StatusUnprocessableEntity, "unknown_topic", "topics must be of "+strings.Join(topics, ", "), ""))
			return
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	write := func(text string, args ...any) error {
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer has deadlines
		if _, err := fmt.Fprintf(w, text, args...); err != nil {
			return err
		}
		return rc.Flush()
	}
	h.send(r.Context(), c, func(m message) error { return write("event: %s\ndata: %s\n\n", m.topic, m.text) },
		func() error { return write(": still here\n\n") })
}

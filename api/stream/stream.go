// Package stream pushes live topics to many clients: one picture per topic and
// moment is encoded once and handed to all. A client that cannot keep up skips
// pictures, never gets a wrong one, and never slows another.
package stream

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cloudflash/agent"
)

// Source is what is streamed.
type Source interface {
	Snapshot() *agent.Snapshot
	Updates() <-chan struct{}
	journal
}

// journal is what is told one by one.
type journal interface {
	Events(since uint64, limit int) ([]agent.Event, error)
	Decisions(since uint64, limit int) ([]agent.Decision, error)
}

// Topics that can be subscribed to.
var topics = []string{"host", "vms", "cloudlets", "events", "decisions"}

const (
	maxClients = 256
	// gap is the least time between two frames of a topic: changes within it
	// become one frame.
	gap = 250 * time.Millisecond
	// firstEvents is how many past events or decisions a new subscriber gets.
	firstEvents = 50
)

// frame is one message to a client.
type frame struct {
	Seq        uint64    `json:"seq"`
	T          int64     `json:"t"` // milliseconds since 1970
	Topic      string    `json:"topic"`
	Kind       string    `json:"kind"` // snapshot: all of it; append: what is new, or a decision whose effect is known now
	ServerTime time.Time `json:"server_time"`
	Data       any       `json:"data"`
}

// message is an encoded frame.
type message struct {
	topic string
	text  []byte
}

// Hub sends frames to its clients while Run runs.
type Hub struct {
	source Source
	log    *slog.Logger

	events    tail[agent.Event] // of Run alone
	decisions tail[agent.Decision]
	joined    chan struct{} // a client has come

	mu      sync.Mutex
	clients map[*client]struct{}
	latest  map[string]message // of each topic
	seq     uint64
	closed  bool
}

// New makes a hub. Nothing is sent before Run.
func New(source Source, log *slog.Logger) *Hub {
	h := &Hub{source: source, log: log, clients: map[*client]struct{}{}, latest: map[string]message{}, joined: make(chan struct{}, 1)}
	h.events = tail[agent.Event]{read: source.Events, seq: func(e agent.Event) uint64 { return e.Seq }}
	h.decisions = tail[agent.Decision]{read: source.Decisions, seq: func(d agent.Decision) uint64 { return d.Seq }, open: awaitsEffect}
	return h
}

// Run makes frames whenever something has changed and somebody is there, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	defer h.closeAll()
	first := true // of those that are there now, nobody has got anything yet
	for {
		changed := h.source.Updates()
		if !h.watched() {
			first = true
		} else if h.publish(time.Now(), first) {
			first = false
		}

		select { // at most one round in every gap
		case <-ctx.Done():
			return nil
		case <-time.After(gap):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-h.joined:
		}
	}
}

// watched reports whether there is a client. The pictures that the last one has seen are
// dropped: they grow old.
func (h *Hub) watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.clients) == 0 {
		clear(h.latest)
		return false
	}
	return true
}

// publish encodes every topic once and hands it to whoever subscribes to it. First is set
// where everybody is a newcomer. It returns false while the agent is not ready.
func (h *Hub) publish(now time.Time, first bool) bool {
	snap := h.source.Snapshot()
	if snap == nil {
		return false
	}

	events, decisions := h.events.next(now), h.decisions.next(now)
	for first && len(events) > 0 {
		events = h.events.next(now)
	}
	for first && len(decisions) > 0 {
		decisions = h.decisions.next(now)
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	h.set("host", "snapshot", now, snap.Host, true)
	h.set("vms", "snapshot", now, snap.VMs, true)
	h.set("cloudlets", "snapshot", now, snap.Cloudlets, true)
	if len(events) > 0 {
		h.set("events", "append", now, events, true)
	}
	if len(decisions) > 0 {
		h.set("decisions", "append", now, decisions, true)
	}
	// What a newcomer gets is the history, not the last addition to it.
	h.set("events", "snapshot", now, h.events.recent, first)
	h.set("decisions", "snapshot", now, h.decisions.recent, first)
	return true
}

// set encodes a frame, keeps it for newcomers and sends it when told to. The
// caller holds h.mu.
func (h *Hub) set(topic, kind string, now time.Time, data any, send bool) {
	h.seq++
	text, err := json.Marshal(frame{Seq: h.seq, T: now.UnixMilli(), Topic: topic, Kind: kind, ServerTime: now.UTC(), Data: data})
	if err != nil {
		h.log.Error("encode frame", "topic", topic, "err", err)
		return
	}
	m := message{topic, text}
	if kind == "snapshot" {
		h.latest[topic] = m
	}
	if !send {
		return
	}
	for c := range h.clients {
		c.offer(m, kind == "append")
	}
}

// client is one connection and what waits to be sent on it.
type client struct {
	mu     sync.Mutex
	topics map[string]bool
	next   map[string][]message // by topic: one picture, or the additions since the last send
	ready  chan struct{}        // something waits
	gone   chan struct{}        // the hub is closing
}

func newClient() *client {
	return &client{topics: map[string]bool{}, next: map[string][]message{}, ready: make(chan struct{}, 1), gone: make(chan struct{})}
}

// maxAppended bounds what waits for a client that does not read.
const maxAppended = 100

// offer replaces the picture that waits; additions queue up to a bound.
func (c *client) offer(m message, add bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.topics[m.topic] {
		return
	}
	if add {
		c.next[m.topic] = append(c.next[m.topic], m)
		if n := len(c.next[m.topic]); n > maxAppended {
			c.next[m.topic] = c.next[m.topic][n-maxAppended:]
		}
	} else {
		c.next[m.topic] = []message{m}
	}
	c.wake()
}

func (c *client) wake() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// take empties what waits.
func (c *client) take() []message {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []message
	for _, t := range topics {
		all = append(all, c.next[t]...)
		delete(c.next, t)
	}
	return all
}

// join adds a client, unless there are too many.
func (h *Hub) join(c *client) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.clients) >= maxClients {
		return false
	}
	h.clients[c] = struct{}{}
	select {
	case h.joined <- struct{}{}:
	default:
	}
	return true
}

func (h *Hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
}

// subscribe adds a topic; its newest picture is sent at once. It reports whether
// there is such a topic.
func (h *Hub) subscribe(c *client, topic string) bool {
	if !slices.Contains(topics, topic) {
		return false
	}
	h.mu.Lock()
	m, ok := h.latest[topic]
	c.mu.Lock()
	c.topics[topic] = true
	if ok {
		c.next[topic] = []message{m}
		c.wake()
	}
	c.mu.Unlock()
	h.mu.Unlock()
	return true
}

func (c *client) unsubscribe(topic string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.topics, topic)
	delete(c.next, topic)
}

func (h *Hub) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.clients {
		close(c.gone)
	}
	clear(h.clients)
}

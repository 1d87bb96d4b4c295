package stream

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloudflash/agent"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is an agent that changes when told to.
type source struct {
	mu        sync.Mutex
	snap      agent.Snapshot
	events    []agent.Event
	decisions []agent.Decision
	updates   chan struct{}
	asked     int // for a snapshot
}

func newSource() *source {
	return &source{updates: make(chan struct{}), snap: agent.Snapshot{VMs: []agent.VM{}, Cloudlets: []agent.Cloudlet{}}}
}

func (s *source) Snapshot() *agent.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	snap := s.snap
	return &snap
}

func (s *source) Updates() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

func (s *source) Events(since uint64, _ int) ([]agent.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []agent.Event
	for _, e := range s.events {
		if e.Seq > since {
			out = append(out, e)
		}
	}
	return out, nil
}

func (s *source) Decisions(since uint64, _ int) ([]agent.Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []agent.Decision
	for _, d := range s.decisions {
		if d.Seq > since {
			out = append(out, d)
		}
	}
	return out, nil
}

func (s *source) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.updates)
	s.updates = make(chan struct{})
}

// serve runs a hub behind a server and returns its address.
func serve(t *testing.T, s *source) string {
	t.Helper()
	h := New(s, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", h.WebSocket)
	mux.HandleFunc("/sse", h.Events)
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return srv.URL
}

func dial(t *testing.T, url, hello string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), url+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(1 << 20)
	if err := c.Write(t.Context(), websocket.MessageText, []byte(hello)); err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, c *websocket.Conn) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, b, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSubscriberGetsThePictureAndItsChanges(t *testing.T) {
	s := newSource()
	c := dial(t, serve(t, s), `{"op":"sub","topics":[{"name":"vms"}]}`)
	if f := read(t, c); f["topic"] != "vms" || f["kind"] != "snapshot" || len(f["data"].([]any)) != 0 {
		t.Errorf("first frame %v", f)
	}
	s.change(func() { s.snap.VMs = []agent.VM{{Name: "web"}} })
	f := read(t, c)
	for len(f["data"].([]any)) == 0 { // made before the change
		f = read(t, c)
	}
	if name := f["data"].([]any)[0].(map[string]any)["name"]; name != "web" {
		t.Errorf("name %v", name)
	}
}

func TestEventsComeOnceAndInOrder(t *testing.T) {
	s := newSource()
	s.events = []agent.Event{{Seq: 1}, {Seq: 2}}
	c := dial(t, serve(t, s), `{"op":"sub","topics":[{"name":"events"}]}`)
	next := 1.0
	for i := 3; next <= 10; i++ {
		for _, e := range read(t, c)["data"].([]any) {
			if seq := e.(map[string]any)["seq"].(float64); seq != next {
				t.Fatalf("event %v, want %v", seq, next)
			}
			next++
		}
		s.change(func() { s.events = append(s.events, agent.Event{Seq: uint64(i)}) })
	}
}

// A decision is told at once, and again with what it did, a second later.
func TestDecisionsAreToldAgainWithTheirEffect(t *testing.T) {
	s := newSource()
	decide := func(seq uint64, r agent.DecisionResult) agent.Decision {
		return agent.Decision{Seq: seq, At: time.Now(), Result: r, VMName: "web"}
	}
	s.decisions = []agent.Decision{decide(1, agent.DecisionDeferred), decide(2, agent.DecisionApplied)}
	c := dial(t, serve(t, s), `{"op":"sub","topics":[{"name":"decisions"}]}`)
	told := func() string {
		var b strings.Builder
		f := read(t, c)
		for _, v := range f["data"].([]any) {
			d := v.(map[string]any)
			fmt.Fprint(&b, d["seq"], " ")
			if e, ok := d["effect"].(map[string]any); ok {
				fmt.Fprint(&b, e["text"], " ")
			}
		}
		return f["kind"].(string) + ": " + b.String()
	}
	first := told()
	for first != "snapshot: 1 2 " && first != "append: 1 2 " { // made before there were any
		first = told()
	}
	s.change(func() { s.decisions = append(s.decisions, decide(3, agent.DecisionApplied)) })
	if got := told(); got != "append: 3 " {
		t.Errorf("a new one is told as %q", got)
	}
	s.change(func() { s.decisions[1].Effect = &agent.Effect{Text: "calm"} })
	if got := told(); got != "append: 2 calm " {
		t.Errorf("an effect is told as %q", got)
	}
	s.change(func() { s.decisions[2].Effect = &agent.Effect{Text: "worse"} })
	if got := told(); got != "append: 3 worse " {
		t.Errorf("the other effect is told as %q", got)
	}
}

func TestNewcomersGetTheLastDecisions(t *testing.T) {
	s := newSource()
	for i := range 3 * firstEvents {
		s.decisions = append(s.decisions, agent.Decision{Seq: uint64(i + 1)})
	}
	h := New(s, slog.New(slog.DiscardHandler))
	h.publish(time.Now(), true)
	if r := h.decisions.recent; len(r) != firstEvents || r[0].Seq != 2*firstEvents+1 {
		t.Errorf("%d, from %d", len(r), r[0].Seq)
	}
}

// An agent that nobody looks at is not asked for pictures; who comes gets one at once, with
// the last of what has happened meanwhile.
func TestNobodyIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := New(s, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		happens := func(n int) {
			for range n {
				s.change(func() { s.events = append(s.events, agent.Event{Seq: uint64(len(s.events) + 1)}) })
				time.Sleep(gap)
			}
		}

		for round := range 2 {
			before := s.asked
			happens(firstEvents + 5)
			if s.asked != before {
				t.Errorf("round %d: a picture was made %d times for nobody", round, s.asked-before)
			}
			c := newClient()
			h.join(c)
			h.subscribe(c, "events")
			time.Sleep(gap)
			synctest.Wait()
			var f struct {
				Kind string
				Data []agent.Event
			}
			got := c.take()
			if len(got) != 1 || json.Unmarshal(got[0].text, &f) != nil || f.Kind != "snapshot" ||
				len(f.Data) != firstEvents || f.Data[firstEvents-1].Seq != uint64(len(s.events)) {
				t.Errorf("round %d: %d frames, %s with %d events", round, len(got), f.Kind, len(f.Data))
			}
			h.leave(c)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestNonsenseIsCutOff(t *testing.T) {
	url := serve(t, newSource())
	for _, hello := range []string{"{", `{"op":"sub","topics":[{"name":"secrets"}]}`, `{"op":"explode","topics":[{"name":"vms"}]}`, strings.Repeat("x", 5000)} {
		c := dial(t, url, hello)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, _, err := c.Read(ctx); websocket.CloseStatus(err) < websocket.StatusProtocolError {
			t.Errorf("%.20q: %v", hello, err)
		}
		cancel()
	}
}

func TestServerSentEvents(t *testing.T) {
	url := serve(t, newSource())
	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/sse?topics=host,vms", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	seen := map[string]bool{}
	for len(seen) < 2 && lines.Scan() {
		if topic, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			seen[topic] = true
		}
	}
	if !seen["host"] || !seen["vms"] {
		t.Errorf("saw %v", seen)
	}
	if resp, err := http.Get(url + "/sse?topics=nothing"); err != nil || resp.StatusCode != 422 {
		t.Errorf("%v %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestManyClientsAndTheLimit(t *testing.T) {
	url := serve(t, newSource())
	for i := range maxClients {
		dial(t, url, fmt.Sprintf(`{"op":"sub","topics":[{"name":"%s"}]}`, topics[i%len(topics)]))
	}
	if _, resp, err := websocket.Dial(t.Context(), url+"/ws", nil); err == nil || resp.StatusCode != 503 {
		t.Errorf("one too many: %v %v", resp, err)
	}
}

func TestSlowClientSkipsPictures(t *testing.T) {
	c := newClient()
	c.topics["vms"], c.topics["events"] = true, true
	for i := range 1000 {
		c.offer(message{"vms", []byte{byte(i)}}, false)
		c.offer(message{"events", nil}, true)
	}
	waiting := c.take()
	if len(waiting) != 1+maxAppended {
		t.Errorf("%d messages wait", len(waiting))
	}
	if waiting[0].topic != "vms" || waiting[0].text[0] != byte(999%256) {
		t.Errorf("the picture is not the newest: %v", waiting[0])
	}
}

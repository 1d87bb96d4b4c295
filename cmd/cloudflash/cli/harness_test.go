package cli

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/scaling"
	"cloudflash/api"
	"cloudflash/api/access"
	"cloudflash/api/apitest"
)

// rig is the real API over a fake agent, on a Unix socket and on TCP.
type rig struct {
	t     testing.TB
	agent *apitest.Agent
	unix  string // for --host
	tcp   string

	mu    sync.Mutex
	asked []request
	conns int
	hubs  []*httptest.Server
	came  chan struct{} // closed at the next request
}

// request is what the command line sent.
type request struct {
	Line string // method and path with query, as on the wire
	Body string
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, agent: apitest.New(t), came: make(chan struct{})}
	guard := access.New(r.agent.Tokens, nil, false)
	parts := api.Parts{
		VMs:       r.agent,
		Cloudlets: r.agent,
		Host:      r.agent,
		History:   r.agent,
		Memory:    r.agent.Memory,
		Advice:    r.agent,
		Scaling:   r.agent,
		Tokens:    r.agent.Tokens,
	}
	handler := api.New(parts, api.Options{Log: slog.New(slog.DiscardHandler), Version: "1.2.3", Login: guard, Guard: guard.Wrap})
	dir, err := os.MkdirTemp("", "cf") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, err := access.ListenUnix(filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	r.unix = "unix://" + filepath.Join(dir, "api.sock")
	r.serve(socket, handler)
	tcp := r.serve(nil, handler)
	r.tcp = tcp.URL
	return r
}

func (r *rig) serve(l net.Listener, h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		q.Body = io.NopCloser(bytes.NewReader(body))
		r.mu.Lock()
		r.asked = append(r.asked, request{q.Method + " " + q.URL.RequestURI(), string(body)})
		close(r.came)
		r.came = make(chan struct{})
		r.mu.Unlock()
		h.ServeHTTP(w, q)
	}))
	if l != nil {
		_ = srv.Listener.Close()
		srv.Listener = l
	}
	srv.Config.ConnContext = access.ConnContext
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			r.mu.Lock()
			r.conns++
			r.mu.Unlock()
		}
	}
	srv.Start()
	r.hubs = append(r.hubs, srv)
	r.t.Cleanup(func() {
		srv.CloseClientConnections() // followers do not hang up by themselves
		srv.Close()
	})
	return srv
}

func (r *rig) requests() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// result is what a command printed and its exit code.
type result struct {
	Out, Err string
	Code     int
}

// run runs one command over the Unix socket.
func (r *rig) run(args ...string) result {
	r.t.Helper()
	return r.start(context.Background(), nil, args...).wait()
}

// over runs one command against host, with a token when there is one.
func (r *rig) over(host, token string, args ...string) result {
	r.t.Helper()
	return r.start(context.Background(), map[string]string{"CLOUDFLASH_HOST": host, "CLOUDFLASH_TOKEN": token}, args...).wait()
}

// running is a command that may not have ended.
type running struct {
	t        testing.TB
	out, err *buffer
	code     chan int
}

func (r *rig) start(ctx context.Context, env map[string]string, args ...string) *running {
	r.t.Helper()
	if env == nil {
		env = map[string]string{"CLOUDFLASH_HOST": r.unix}
	}
	c := &running{t: r.t, out: newBuffer(), err: newBuffer(), code: make(chan int, 1)}
	p := process(args, env)
	p.Out, p.Err = c.out, c.err
	go func() { c.code <- Main(ctx, p) }()
	return c
}

func (c *running) wait() result {
	code := <-c.code
	return result{c.out.String(), c.err.String(), code}
}

// process is a command line with an environment of its own.
func process(args []string, env map[string]string) Process {
	return Process{Args: args, Env: func(k string) string { return env[k] }, In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Version: "dev",
		Serve: func(_ context.Context, args []string, _ func(string) string, out io.Writer) error {
			_, err := io.WriteString(out, "serve "+strings.Join(args, " ")+"\n")
			return err
		}}
}

// buffer is a bytes.Buffer for several goroutines that can be waited on.
type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func newBuffer() *buffer { return &buffer{changed: make(chan struct{})} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// await blocks until text has been written.
func (b *buffer) await(t testing.TB, text string) {
	t.Helper()
	for {
		b.mu.Lock()
		changed, has := b.changed, strings.Contains(b.b.String(), text)
		b.mu.Unlock()
		if has {
			return
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("never printed %q, only %q", text, b.String())
		}
	}
}

func ptr[T any](v T) *T { return &v }

// withVMs fills a rig with two VMs, one of which has a name that no agent gives.
func withVMs(t testing.TB) *rig {
	r := newRig(t)
	r.agent.Has.VMs = []agent.VM{
		{ID: "v0", Name: "db", State: agent.VMRunning, Image: "host",
			Network: agent.Network{Mode: "nat", IPv4: "10.88.0.2"}, CreatedAt: apitest.Ago(2*time.Hour + 10*time.Minute), Cloudlets: 1, InitPID: 42,
			Spec:   agent.Spec{CPUs: 2, MemoryBytes: 1 << 30, IO: agent.IO{ReadBPS: 7, WriteBPS: 8}},
			Limits: agent.Limits{CPUs: ptr(2.0), MemoryBytes: ptr(int64(1 << 30)), PIDs: ptr(int64(256)), IO: &agent.IO{ReadBPS: 5 << 20, WriteIOPS: 100}},
			Usage:  agent.Usage{CPUs: 0.5, MemoryBytes: 100 << 20, PIDs: 3}},
		{ID: "v1", Name: "web", State: agent.VMFailed, Reason: "init ended", Image: "host",
			CreatedAt: apitest.Ago(72 * time.Hour), IdleSince: ptr(apitest.Ago(0))},
	}
	return r
}

// awaitRequest blocks until the command line has asked for line.
func (r *rig) awaitRequest(line string) {
	r.t.Helper()
	for {
		r.mu.Lock()
		came := r.came
		if slices.ContainsFunc(r.asked, func(q request) bool { return q.Line == line }) {
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		select {
		case <-came:
		case <-time.After(10 * time.Second):
			r.t.Fatalf("never asked for %s, only %v", line, r.requests())
		}
	}
}

// cut breaks all connections, as an agent that dies does.
func (r *rig) cut() {
	for _, srv := range r.hubs {
		srv.CloseClientConnections()
	}
}

// tcpHandler serves h alone and returns what --host takes.
func (r *rig) tcpHandler(h http.HandlerFunc) string { return r.serve(nil, h).URL }

// someScaling is a VM that needs more than it may have, and one that is to go.
func someScaling() apitest.Scaling {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.Local)
	grown := agent.Decision{Seq: 1, At: at, VM: "v0", VMName: "db", Resource: "cpus", Action: "grow",
		Signal: "throttled", Result: agent.DecisionApplied,
		From: 0.5, To: 2, Use: 0.5, Value: 0.9, Limit: 0.1, Reason: "throttled in 90 % of periods", KernelSeconds: 0.043, Effect: &agent.Effect{Text: "calm"}}
	short := agent.Decision{Seq: 2, At: at.Add(time.Second), VM: "v0", VMName: "db", Resource: "memory_bytes",
		Action: "grow", Signal: "memory.events", Result: agent.DecisionDeferred,
		From: 1 << 30, To: 1 << 30, HighFrom: 900 << 20, HighTo: 960 << 20, Reason: "at its limit", Why: "the host is full"}
	last := grown
	last.At = apitest.Ago(2 * time.Hour)
	return apitest.Scaling{Decisions: []agent.Decision{grown, short},
		Status: []scaling.VMScaling{
			{VM: "v0", VMName: "db", Mode: "auto", Spent: 2, PerHour: 60, Activity: "1 cloudlet runs", Resources: []scaling.Scaled{
				{Resource: "cpus", Mode: "auto", State: "at_max", Spec: 2, Limit: 2, Use: 1.96, Min: 0.5, Max: 2, Up: .8,
					Down: .2, LastDecision: &last},
				{Resource: "memory_bytes", Mode: "auto", State: "steady", Spec: 1 << 30, Limit: 1 << 30, High: 900 << 20,
					Use: 100 << 20, Min: 256 << 20, Max: 4 << 30, Up: .9, Down: .2, HoldSeconds: 3600},
				{Resource: "rbps", Mode: "off", State: "off"}}},
			{VM: "v1", VMName: "web", Mode: "off", PerHour: 60, IdleSince: new(apitest.Ago(3 * time.Hour)),
				Resources: []scaling.Scaled{{Resource: "cpus", Mode: "off", State: "off", Limit: 1}}},
		}}
}

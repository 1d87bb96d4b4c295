package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
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
)

// fakeAgent keeps everything in memory. It fails with err when that is set.
type fakeAgent struct {
	dir string

	mu         sync.Mutex
	err        error
	vms        []agent.VM
	cloudlets  []agent.Cloudlet
	events     []agent.Event
	oldest     uint64 // events up to here are gone
	operations []agent.Operation
	tokens     []agent.Token
	checks     []agent.Check
	scaling    scaling
	updates    chan struct{}
	ready      chan struct{}
	created    agent.VMCreate
	changed    agent.VMChange
	submitted  agent.CloudletSubmit
	grace      time.Duration
	hungUp     bool // Exec was ended by its caller
	host       func() agent.Host
	taken      *agent.AppliedAdvice
	named      []string              // resources of the last TakeAdvice
	look       func(context.Context) // is told of every MemoryMappings
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newFake(t testing.TB) *fakeAgent {
	f := &fakeAgent{dir: t.TempDir(), updates: make(chan struct{}), ready: make(chan struct{}),
		checks: []agent.Check{{Name: "store", OK: true, Detail: "fine"}}}
	close(f.ready)
	for i, name := range []string{"db", "web"} {
		f.vms = append(f.vms, agent.VM{ID: fmt.Sprint("v", i), Name: name, State: agent.VMRunning, CreatedAt: epoch,
			Spec: agent.Spec{CPUs: 1, MemoryBytes: 1 << 30, IO: agent.IO{ReadBPS: 7, WriteBPS: 8}}})
	}
	f.cloudlets = []agent.Cloudlet{
		{ID: "c2", Name: "new", State: agent.CloudletQueued, CreatedAt: epoch.Add(2 * time.Second)},
		{ID: "c1", Name: "run", VM: "v0", VMName: "db", State: agent.CloudletRunning, CreatedAt: epoch.Add(time.Second)},
		{ID: "c0", Name: "old", VM: "v1", VMName: "web", State: agent.CloudletSucceeded, CreatedAt: epoch},
	}
	f.operations = []agent.Operation{{ID: "o0", Kind: "vm.delete", Target: "v9", State: agent.OperationRunning, CreatedAt: epoch}}
	f.tokens = []agent.Token{{ID: "t0", Name: "ci", Role: "viewer", Kind: "token", CreatedAt: epoch}}
	for i := range 5 {
		f.events = append(f.events, agent.Event{Seq: uint64(i + 1), At: epoch, Level: "info", Kind: "vm.created", VM: "v0", Message: fmt.Sprint("event ", i+1)})
	}
	return f
}

// change runs fn under the lock and tells the waiters.
func (f *fakeAgent) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	close(f.updates)
	f.updates = make(chan struct{})
}

func missing(what, ref string) error {
	return &agent.Error{Kind: agent.ErrNotFound, Code: what + "_not_found", Detail: what + " " + ref + " not found"}
}

func (f *fakeAgent) CreateVM(_ context.Context, req agent.VMCreate) (agent.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.created = req
	return agent.VM{ID: "v7", Name: req.Name, State: agent.VMRunning, Spec: req.Spec}, f.err
}

func (f *fakeAgent) VMs() []agent.VM {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.vms)
}

func (f *fakeAgent) VM(ref string) (agent.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.vms {
		if v.ID == ref || v.Name == ref {
			return v, nil
		}
	}
	return agent.VM{}, missing("vm", ref)
}

func (f *fakeAgent) ChangeVM(_ context.Context, ref string, ch agent.VMChange) (agent.VM, error) {
	v, err := f.VM(ref)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed = ch
	return v, errors.Join(err, f.err)
}

func (f *fakeAgent) FreezeVM(_ context.Context, ref string) (agent.VM, error) {
	v, err := f.VM(ref)
	v.State = agent.VMFrozen
	return v, err
}

func (f *fakeAgent) ThawVM(_ context.Context, ref string) (agent.VM, error) { return f.VM(ref) }

func (f *fakeAgent) DeleteVM(_ context.Context, ref string, grace time.Duration) (agent.Operation, error) {
	_, err := f.VM(ref)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grace = grace
	return f.operations[0], err
}

// Exec echoes its input in capitals, the arguments to stderr, and exits with 3.
func (f *fakeAgent) Exec(ctx context.Context, ref string, req agent.ExecRequest) (agent.ExecResult, error) {
	if _, err := f.VM(ref); err != nil {
		return agent.ExecResult{}, err
	}
	fmt.Fprint(req.Stderr, req.Argv)
	if req.Terminal {
		fmt.Fprint(req.Stdout, <-req.Sizes)
	}
	var b []byte
	if req.Argv[0] == "stuck" { // and reads nothing
		<-ctx.Done()
	} else {
		b, _ = io.ReadAll(req.Stdin)
	}
	if ctx.Err() != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hungUp = true
		return agent.ExecResult{}, ctx.Err()
	}
	fmt.Fprint(req.Stdout, strings.ToUpper(string(b)))
	code := 3
	return agent.ExecResult{ExitCode: &code}, nil
}

func (f *fakeAgent) SubmitCloudlet(_ context.Context, req agent.CloudletSubmit) (agent.Cloudlet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.submitted = req
	return agent.Cloudlet{ID: "c7", Name: req.Name, State: agent.CloudletQueued, Argv: req.Argv}, f.err
}

func (f *fakeAgent) Cloudlets() []agent.Cloudlet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.cloudlets)
}

func (f *fakeAgent) Cloudlet(ref string) (agent.Cloudlet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.cloudlets {
		if c.ID == ref || c.Name == ref {
			return c, nil
		}
	}
	return agent.Cloudlet{}, missing("cloudlet", ref)
}

func (f *fakeAgent) CancelCloudlet(_ context.Context, ref string) (agent.Cloudlet, error) {
	c, err := f.Cloudlet(ref)
	if err == nil && c.State.Final() {
		err = &agent.Error{Kind: agent.ErrConflict, Code: "already_finished", Detail: "cloudlet has ended"}
	}
	return c, err
}

func (f *fakeAgent) OpenOutput(ref, stream string) (*os.File, error) {
	c, err := f.Cloudlet(ref)
	if err != nil {
		return nil, err
	}
	if c.VM == "" {
		return nil, &agent.Error{Kind: agent.ErrConflict, Code: "not_started", Detail: "no output yet"}
	}
	file, err := os.Open(f.path(c.ID, stream))
	if os.IsNotExist(err) {
		return nil, &agent.Error{Kind: agent.ErrNotFound, Code: "no_output", Detail: "no " + stream}
	}
	return file, err
}

func (f *fakeAgent) path(id, stream string) string { return filepath.Join(f.dir, id+"."+stream) }

// says appends to the output of a cloudlet.
func (f *fakeAgent) says(t testing.TB, id, text string) {
	t.Helper()
	file, err := os.OpenFile(f.path(id, "stdout"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = file.WriteString(text)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fakeAgent) setState(id, vm string, s agent.CloudletState) {
	f.change(func() {
		for i := range f.cloudlets {
			if f.cloudlets[i].ID == id {
				f.cloudlets[i].State, f.cloudlets[i].VM = s, vm
			}
		}
	})
}

func (f *fakeAgent) Host() agent.Host {
	if f.host != nil {
		return f.host()
	}
	return agent.Host{Name: "box", CPUs: 4}
}

func (f *fakeAgent) HostChecks(ctx context.Context) []agent.Check { return f.Health(ctx) }
func (f *fakeAgent) Health(context.Context) []agent.Check         { return slices.Clone(f.checks) }
func (f *fakeAgent) Ready() <-chan struct{}                       { return f.ready }

// VMHistory is three points in steps of a second, the second a gap.
func (f *fakeAgent) VMHistory(ref string, span time.Duration, fields []string) (agent.History, error) {
	if _, err := f.VM(ref); err != nil {
		return agent.History{}, err
	}
	return history(span, fields, agent.VMHistoryFields())
}

func (f *fakeAgent) HostHistory(span time.Duration, fields []string) (agent.History, error) {
	return history(span, fields, agent.HostHistoryFields())
}

func history(span time.Duration, fields, known []string) (agent.History, error) {
	if fields == nil {
		fields = known
	}
	h := agent.History{Step: span / 300, Times: []int64{100, 101, 102}}
	for _, name := range fields {
		if !slices.Contains(known, name) {
			return h, &agent.Error{Kind: agent.ErrInvalid, Code: "invalid_history", Detail: "fields " + name + " is not one of " + strings.Join(known, ", "), Fields: []agent.Field{{Pointer: "?fields", Detail: "unknown"}}}
		}
		h.Series = append(h.Series, agent.HistorySeries{Name: name, Avg: []float64{1, math.NaN(), 0.25}, Min: []float64{0.5, math.NaN(), 0}, Max: []float64{2, math.NaN(), 1e12}})
	}
	return h, nil
}

func (f *fakeAgent) Events(since uint64, limit int) ([]agent.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if since > 0 && since < f.oldest {
		return nil, &agent.Error{Kind: agent.ErrExpired, Code: "history_gone", Detail: "events are gone"}
	}
	var out []agent.Event
	for _, e := range f.events {
		if e.Seq > since && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, nil
}

func (f *fakeAgent) Operations() []agent.Operation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.operations)
}

func (f *fakeAgent) Operation(id string) (agent.Operation, error) {
	for _, op := range f.Operations() {
		if op.ID == id {
			return op, nil
		}
	}
	return agent.Operation{}, missing("operation", id)
}

func (f *fakeAgent) Updates() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.updates
}

func (f *fakeAgent) Tokens() []agent.Token { return slices.Clone(f.tokens) }

func (f *fakeAgent) CreateToken(name, role string) (agent.Token, string, error) {
	if role != "admin" && role != "viewer" {
		return agent.Token{}, "", &agent.Error{Kind: agent.ErrInvalid, Code: "invalid_token", Detail: "role must be admin or viewer"}
	}
	return agent.Token{ID: "t7", Name: name, Role: role, Kind: "token", CreatedAt: epoch}, "s3cret", nil
}

func (f *fakeAgent) RevokeToken(ref string) error {
	if ref != "t0" {
		return missing("token", ref)
	}
	return nil
}

// fakeLogin knows the one code "good".
type fakeLogin struct{ forgotten string }

func (l *fakeLogin) NewCode(role string) (string, time.Time) { return "code-" + role, epoch }

func (l *fakeLogin) Redeem(code string) (*http.Cookie, error) {
	if code != "good" {
		return nil, &agent.Error{Kind: agent.ErrAuth, Code: "bad_code", Detail: "the code is unknown, used or expired"}
	}
	return &http.Cookie{Name: "cloudflash_session", Value: "sess", HttpOnly: true}, nil
}

func (l *fakeLogin) Forget(secret string) error {
	l.forgotten = secret
	return nil
}

// said is a handler that answers with its name.
func said(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name+" "+r.URL.Path) })
}

// options are those of a complete server.
func options() Options {
	return Options{Log: slog.New(slog.DiscardHandler), Version: "1.2.3", Login: &fakeLogin{},
		Stream: said("stream"), SSE: said("sse"), Metrics: said("metrics"), Web: said("web")}
}

// ask sends one request; a body makes it JSON.
func ask(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// parse decodes an answer's JSON object.
func parse(t testing.TB, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("answer %d is no JSON object: %v: %.200s", w.Code, err, w.Body)
	}
	return m
}

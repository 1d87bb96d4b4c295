package api

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/scaling"
	"cloudflash/api/apitest"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// partsOf is the API of a fake.
func partsOf(f *apitest.Agent) Parts {
	return Parts{
		VMs:       f,
		Cloudlets: f,
		Host:      f,
		History:   f,
		Memory:    f.Memory,
		Advice:    f,
		Scaling:   f,
		Tokens:    f.Tokens,
	}
}

// newFake is an agent with two VMs, three cloudlets, an operation, a token and five events.
func newFake(t testing.TB) *apitest.Agent {
	f := apitest.New(t)
	f.Began = epoch
	f.Has.Checks = []agent.Check{{Name: "store", OK: true, Detail: "fine"}}
	for i, name := range []string{"db", "web"} {
		f.Has.VMs = append(f.Has.VMs, agent.VM{
			ID:        fmt.Sprint("v", i),
			Name:      name,
			State:     agent.VMRunning,
			CreatedAt: epoch,
			Spec:      agent.Spec{CPUs: 1, MemoryBytes: 1 << 30, IO: agent.IO{ReadBPS: 7, WriteBPS: 8}},
		})
	}
	f.Has.Cloudlets = []agent.Cloudlet{
		{ID: "c2", Name: "new", State: agent.CloudletQueued, CreatedAt: epoch.Add(2 * time.Second)},
		{
			ID:        "c1",
			Name:      "run",
			VM:        "v0",
			VMName:    "db",
			State:     agent.CloudletRunning,
			CreatedAt: epoch.Add(time.Second),
		},
		{ID: "c0", Name: "old", VM: "v1", VMName: "web", State: agent.CloudletSucceeded, CreatedAt: epoch},
	}
	f.Has.Operations = []agent.Operation{{
		ID:        "o0",
		Kind:      "vm.delete",
		Target:    "v9",
		State:     agent.OperationRunning,
		CreatedAt: epoch,
	}}
	f.Has.Tokens = []agent.Token{{ID: "t0", Name: "ci", Role: "viewer", Kind: "token", CreatedAt: epoch}}
	for i := range 5 {
		f.Has.Events = append(f.Has.Events, agent.Event{
			Seq:     uint64(i + 1),
			At:      epoch,
			Level:   "info",
			Kind:    "vm.created",
			VM:      "v0",
			Message: fmt.Sprint("event ", i+1),
		})
	}
	f.Has.Scaling.Status = []scaling.VMScaling{
		{VM: "v0", VMName: "db", Mode: "auto"},
		{VM: "v1", VMName: "web", Mode: "off"},
	}
	return f
}

// setState changes the state and the VM of a cloudlet.
func setState(f *apitest.Agent, id, vm string, s agent.CloudletState) {
	f.Alter(id, func(c *agent.Cloudlet) { c.State, c.VM = s, vm })
}

// decides adds n decisions, about the VMs by turns.
func decides(f *apitest.Agent, n int, vms ...string) {
	f.Change(func() {
		for range n {
			seq := uint64(len(f.Has.Scaling.Decisions) + 1)
			vm := vms[int(seq)%len(vms)]
			f.Has.Scaling.Decisions = append(f.Has.Scaling.Decisions, agent.Decision{
				Seq:      seq,
				At:       epoch,
				VM:       vm,
				VMName:   map[string]string{"v0": "db", "v1": "web", "v8": "gone"}[vm],
				Resource: "cpus",
				Action:   "grow",
				Result:   agent.DecisionApplied,
				From:     1,
				To:       2,
			})
		}
	})
}

// fakeLogin knows the one code "good".
type fakeLogin struct{ forgotten string }

func (l *fakeLogin) NewCode(role string) (string, time.Time) { return "code-" + role, epoch }

func (l *fakeLogin) Redeem(code string) (*http.Cookie, error) {
	if code != "good" {
		return nil, &fault.Error{Kind: fault.ErrAuth, Code: "bad_code", Detail: "the code is unknown, used or expired"}
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

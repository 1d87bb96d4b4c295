package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cloudflash/agent"
	"cloudflash/api/apitest"
	"cloudflash/api/problem"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"
)

func TestPages(t *testing.T) {
	f := newFake(t)
	f.Has.Cloudlets = nil
	for i := range 7 { // two at each instant, and one
		f.Has.Cloudlets = append(f.Has.Cloudlets, agent.Cloudlet{ID: fmt.Sprint("c", i), CreatedAt: epoch.Add(time.Duration(i/2) * time.Second)})
	}
	h := New(partsOf(f), options())
	var got []string
	token := ""
	for range 10 {
		var page struct {
			Items []agent.Cloudlet `json:"items"`
			Total int              `json:"total"`
			Next  string           `json:"next_page_token"`
		}
		if err := json.Unmarshal(ask(h, "GET", "/api/v1/cloudlets?limit=3&page_token="+token, "").Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Items {
			got = append(got, c.ID)
		}
		if token = page.Next; token == "" {
			break
		}
		// One comes before what was read, and one that was read goes.
		f.Change(func() {
			f.Has.Cloudlets = append(f.Has.Cloudlets, agent.Cloudlet{ID: "x", CreatedAt: epoch.Add(time.Hour)})
			f.Has.Cloudlets = keepAllBut(f.Has.Cloudlets, got[0])
		})
	}
	if diff := cmp.Diff([]string{"c6", "c4", "c5", "c2", "c3", "c0", "c1"}, got); diff != "" {
		t.Errorf("newest first, each once (-want +got)\n%s", diff)
	}
}

func keepAllBut(all []agent.Cloudlet, id string) []agent.Cloudlet {
	return filter(all, func(c agent.Cloudlet) bool { return c.ID != id })
}

func TestPageLimit(t *testing.T) {
	f := newFake(t)
	f.Has.VMs = nil
	for i := range 150 {
		f.Has.VMs = append(f.Has.VMs, agent.VM{ID: fmt.Sprint(i), Name: fmt.Sprintf("n%03d", i)})
	}
	for query, want := range map[string]int{"": 100, "?limit=1": 1, "?limit=1000": 150} {
		w := ask(New(partsOf(f), options()), "GET", "/api/v1/vms"+query, "")
		if items, _ := parse(t, w)["items"].([]any); len(items) != want {
			t.Errorf("%q: %d items, want %d", query, len(items), want)
		}
	}
}

func TestEventPages(t *testing.T) {
	w := ask(New(partsOf(newFake(t)), options()), "GET", "/api/v1/events?since=1&limit=2", "")
	m := parse(t, w)
	if items, _ := m["items"].([]any); len(items) != 2 || m["last_seq"] != 3.0 {
		t.Errorf("%s", w.Body)
	}
	w = ask(New(partsOf(newFake(t)), options()), "GET", "/api/v1/events?since=5", "")
	if !strings.Contains(w.Body.String(), `"items":[]`) || parse(t, w)["last_seq"] != 5.0 {
		t.Errorf("nothing new: %s", w.Body)
	}
}

func TestHealthIsDegraded(t *testing.T) {
	f := newFake(t)
	f.Has.Checks = append(f.Has.Checks, agent.Check{Name: "sampler", Detail: "old"})
	w := ask(New(partsOf(f), options()), "GET", "/health", "")
	if w.Code != 503 || parse(t, w)["status"] != "degraded" {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestUntilRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.ReadyWhen = make(chan struct{})
		h := New(partsOf(f), options())
		w := ask(h, "GET", "/api/v1/vms", "")
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || w.Header().Get("Content-Type") != problem.ContentType {
			t.Errorf("never ready: status %d, %v: %s", w.Code, w.Header(), w.Body)
		}
		if w := ask(h, "GET", "/readyz", ""); w.Code != 503 {
			t.Errorf("readyz: status %d", w.Code)
		}
		if w := ask(h, "GET", "/livez", ""); w.Code != 200 {
			t.Errorf("livez: status %d", w.Code)
		}
		time.AfterFunc(time.Second, func() { close(f.ReadyWhen) })
		if w := ask(h, "GET", "/api/v1/vms", ""); w.Code != 200 {
			t.Errorf("ready after a second: status %d", w.Code)
		}
	})
}

func TestRequestID(t *testing.T) {
	h := New(partsOf(newFake(t)), options())
	for given, kept := range map[string]bool{"abc-1.2_Z": true, "": false, "a b": false, "<script>": false, strings.Repeat("x", 65): false} {
		got := ask(h, "GET", "/livez", "", "X-Request-Id", given).Header().Get("X-Request-Id")
		if (got == given) != kept || got == "" {
			t.Errorf("%q: answered %q", given, got)
		}
	}
}

func TestGuardRefusesAndTells(t *testing.T) {
	type whoKey struct{}
	var counted []string
	opts := options()
	opts.Guard = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				problem.Write(w, r, problem.New(http.StatusUnauthorized, "login_required", "log in first", ""))
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, "me")))
		})
	}
	opts.Observe = func(method, route string, status int, _ time.Duration) {
		counted = append(counted, fmt.Sprint(method, " ", route, " ", status))
	}
	f := newFake(t)
	h := New(partsOf(f), opts)
	w := ask(h, "POST", "/api/v1/vms", `{"name":"x"}`)
	checkProblem(t, "/api/v1/vms", w.Header().Get("X-Request-Id"), w.Header().Get("Content-Type"), parse(t, w))
	if w.Code != 401 || f.Got.Create.Name != "" {
		t.Errorf("status %d, created %+v", w.Code, f.Got.Create)
	}
	if w := ask(h, "POST", "/api/v1/vms", `{"name":"x"}`, "Authorization", "Bearer x"); w.Code != 201 || f.Got.Create.Name != "x" {
		t.Errorf("status %d, created %+v", w.Code, f.Got.Create)
	}
	ask(h, "GET", "/nowhere/else", "", "Authorization", "Bearer x")
	want := []string{"POST /api/v1/vms 401", "POST /api/v1/vms 201", "GET other 200"}
	if diff := cmp.Diff(want, counted); diff != "" {
		t.Errorf("counted (-want +got)\n%s", diff)
	}
}

// slowAgent takes its time to create a VM.
type slowAgent struct {
	*apitest.Agent
	seen error
}

func (s *slowAgent) CreateVM(ctx context.Context, _ agent.VMCreate) (agent.VM, error) {
	select {
	case <-ctx.Done():
	case <-time.After(300 * time.Millisecond):
	}
	s.seen = ctx.Err()
	return agent.VM{ID: "slow"}, nil
}

// TestReadDeadlineIsLifted: a deadline for the body that stays on the
// connection would end the context of a request that works longer than it.
func TestReadDeadlineIsLifted(t *testing.T) {
	a := &slowAgent{Agent: newFake(t)}
	parts := partsOf(a.Agent)
	parts.VMs = a
	srv := httptest.NewUnstartedServer(New(parts, options()))
	srv.Config.ReadTimeout = 100 * time.Millisecond
	srv.Start()
	defer srv.Close()
	resp, err := http.Post(srv.URL+"/api/v1/vms", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 201 || a.seen != nil {
		t.Errorf("status %d, context ended with %v", resp.StatusCode, a.seen)
	}
}

// TestUnfinishedRequestsAreCut: whoever announces a body and does not send it gets an answer or is cut, by every route
// and also where nobody wants the body.
func TestUnfinishedRequestsAreCut(t *testing.T) {
	opts := options()
	opts.Guard = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				problem.Write(w, r, problem.New(http.StatusUnauthorized, "unauthorized", "log in", ""))
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	s := newServer(partsOf(newFake(t)), opts)
	srv := httptest.NewUnstartedServer(s.gin)
	srv.Config.ReadTimeout = 300 * time.Millisecond
	srv.Start()
	defer srv.Close()

	forms := map[string]string{
		"no body at all": "Content-Length: 50\r\n\r\n",
		"half a body":    "Content-Length: 50\r\n\r\n{\"name\":",
		"no chunk":       "Transfer-Encoding: chunked\r\n\r\n",
		"half a chunk":   "Transfer-Encoding: chunked\r\n\r\n50\r\n{\"name\":",
		"an expectation": "Content-Length: 50\r\nExpect: 100-continue\r\n\r\n",
	}
	routes := append(s.gin.Routes(),
		gin.RouteInfo{Method: "GET", Path: "/nowhere"},
		gin.RouteInfo{Method: "TRACE", Path: "/api/v1/vms"})
	var asked sync.WaitGroup
	for _, route := range routes {
		path := strings.NewReplacer(":ref", "web", ":id", "op1").Replace(route.Path)
		for form, rest := range forms {
			for _, token := range []string{"", "Authorization: Bearer x\r\n"} {
				asked.Go(func() {
					head := route.Method + " " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + token
					c, err := net.Dial("tcp", srv.Listener.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(patience))
					if _, err := io.WriteString(c, head+rest); err != nil {
						t.Error(err)
					}
					if answer, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%s %s, %s, with %q: %.100q, %v", route.Method, path, form, token, answer, err)
					}
				})
			}
		}
	}
	asked.Wait()
}

// TestBodiesThatNobodyWantsAreTaken: the answer comes, and no reset, where the body follows its headers.
func TestBodiesThatNobodyWantsAreTaken(t *testing.T) {
	srv := httptest.NewServer(New(partsOf(newFake(t)), options()))
	defer srv.Close()
	for _, line := range []string{"POST /nowhere", "GET /api/v1/vms", "POST /api/v1/vms/web/actions/freeze", "PUT /api/v1/vms"} {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		body := strings.Repeat("x", 100<<10)
		head := fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", line, len(body))
		if _, err := io.WriteString(c, head); err != nil {
			t.Error(err)
		}
		time.Sleep(20 * time.Millisecond) // as a client that writes the two apart
		if _, err := io.WriteString(c, body); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
			t.Errorf("%s: %.100q, %v", line, answer, err)
		}
	}
}

func TestSwitchedOffPartsAre404(t *testing.T) {
	opts := options()
	opts.Stream, opts.SSE, opts.Metrics, opts.Web = nil, nil, nil, nil
	h := New(partsOf(newFake(t)), opts)
	for _, target := range []string{"/api/v1/stream", "/metrics", "/"} {
		w := ask(h, "GET", target, "")
		if w.Code != 404 || w.Header().Get("Content-Type") != problem.ContentType {
			t.Errorf("%s: status %d: %s", target, w.Code, w.Body)
		}
	}
}

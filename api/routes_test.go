package api

import (
	"encoding/json"
	"strings"
	"testing"

	"cloudflash/agent"
	"cloudflash/agent/cloudlet"

	"github.com/google/go-cmp/cmp"
)

func TestEveryRoute(t *testing.T) {
	tests := map[string]struct {
		method, target, body string
		status               int
		want                 string // in the body
		location             string
	}{
		"list VMs":          {"GET", "/api/v1/vms", "", 200, `"total":2,"next_page_token":""`, ""},
		"VMs by state":      {"GET", "/api/v1/vms?state=frozen", "", 200, `{"items":[],"total":0`, ""},
		"create VM":         {"POST", "/api/v1/vms", `{"name":"x","cpus":1.5}`, 201, `"cpus":1.5`, "/api/v1/vms/v7"},
		"show VM by name":   {"GET", "/api/v1/vms/web", "", 200, `"id":"v1"`, ""},
		"show VM by id":     {"GET", "/api/v1/vms/v0", "", 200, `"name":"db"`, ""},
		"change VM":         {"PATCH", "/api/v1/vms/web", `{"pids":64}`, 200, `"id":"v1"`, ""},
		"delete VM":         {"DELETE", "/api/v1/vms/web?grace=1s", "", 202, `"kind":"vm.delete"`, "/api/v1/operations/o0"},
		"freeze":            {"POST", "/api/v1/vms/web/actions/freeze", "", 200, `"state":"frozen"`, ""},
		"thaw":              {"POST", "/api/v1/vms/web/actions/thaw", "", 200, `"state":"running"`, ""},
		"VM metrics":        {"GET", "/api/v1/vms/web/metrics", "", 200, `"points":3,"t":[100,101,102],"series":{"anon_bytes":{"avg":[1,null,0.25],"min":[0.5,null,0],"max":[2,null,1000000000000]}`, ""},
		"host metrics":      {"GET", "/api/v1/host/metrics?range=24h&fields=cpu_ratio,vms", "", 200, `{"from":100,"to":390,"step_seconds":288,"points":3,`, ""},
		"list cloudlets":    {"GET", "/api/v1/cloudlets", "", 200, `"total":3`, ""},
		"cloudlets by VM":   {"GET", "/api/v1/cloudlets?vm=db", "", 200, `"total":1`, ""},
		"cloudlets by both": {"GET", "/api/v1/cloudlets?vm=db&state=queued", "", 200, `"total":0`, ""},
		"submit":            {"POST", "/api/v1/cloudlets", `{"argv":["true"]}`, 201, `"argv":["true"]`, "/api/v1/cloudlets/c7"},
		"show cloudlet":     {"GET", "/api/v1/cloudlets/old?wait=5s", "", 200, `"state":"succeeded"`, ""},
		"cancel":            {"DELETE", "/api/v1/cloudlets/run", "", 202, `"id":"c1"`, ""},
		"events":            {"GET", "/api/v1/events?since=3", "", 200, `"message":"event 4"`, ""},
		"host":              {"GET", "/api/v1/host", "", 200, `"name":"box"`, ""},
		"checks":            {"GET", "/api/v1/host/checks", "", 200, `"items":[{"name":"store"`, ""},
		"policy":            {"GET", "/api/v1/autoscale/policy", "", 200, `"version":"1","own":{}`, ""},
		"policy of a VM":    {"GET", "/api/v1/autoscale/policy?vm=web", "", 200, `"vm_name":"web"`, ""},
		"set policy":        {"PUT", "/api/v1/autoscale/policy", `{"rules":{"all":{"up":0.7}}}`, 200, `"own":{"rules":{"all":{"up":0.7}}}`, ""},
		"autoscale status":  {"GET", "/api/v1/autoscale/status?vm=web", "", 200, `"vms":[{"vm":"v1"`, ""},
		"decisions":         {"GET", "/api/v1/autoscale/events", "", 200, `{"items":[],"last_seq":0}`, ""},
		"operations":        {"GET", "/api/v1/operations", "", 200, `"total":1`, ""},
		"operation":         {"GET", "/api/v1/operations/o0?wait=10ms", "", 200, `"state":"running"`, ""},
		"tokens":            {"GET", "/api/v1/tokens", "", 200, `"name":"ci"`, ""},
		"create token":      {"POST", "/api/v1/tokens", `{"name":"n","role":"admin"}`, 201, `"secret":"s3cret"`, ""},
		"revoke token":      {"DELETE", "/api/v1/tokens/t0", "", 204, "", ""},
		"login code":        {"POST", "/api/v1/login/codes", `{"role":"viewer"}`, 201, `"code":"code-viewer"`, ""},
		"login":             {"POST", "/api/v1/login", `{"code":"good"}`, 204, "", ""},
		"logout":            {"POST", "/api/v1/logout", "", 204, "", ""},
		"session":           {"GET", "/api/v1/session", "", 200, `"role":"viewer"`, ""},
		"stream":            {"GET", "/api/v1/stream", "", 200, "stream ", ""},
		"SSE":               {"GET", "/api/v1/stream/sse?topics=host", "", 200, "sse ", ""},
		"health":            {"GET", "/health", "", 200, `"status":"ok"`, ""},
		"livez":             {"GET", "/livez", "", 200, `"status":"ok"`, ""},
		"readyz":            {"GET", "/readyz", "", 200, `"status":"ok"`, ""},
		"metrics":           {"GET", "/metrics", "", 200, "metrics ", ""},
		"openapi":           {"GET", "/openapi.json", "", 200, `"openapi":"3.1.0"`, ""},
		"dashboard":         {"GET", "/", "", 200, "web /", ""},
		"dashboard file":    {"GET", "/app.js", "", 200, "web /app.js", ""},
		"old VMs":           {"GET", "/api/vms?limit=3", "", 308, "", "/api/v1/vms?limit=3"},
		"old POST":          {"POST", "/api/cloudlets", `{}`, 308, "", "/api/v1/cloudlets"},
		"old metrics":       {"GET", "/api/metrics", "", 308, "", "/metrics"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := ask(New(partsOf(newFake(t)), options()), tt.method, tt.target, tt.body)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("status %d, want %d with %q: %s", w.Code, tt.status, tt.want, w.Body)
			}
			if tt.location != "" && w.Header().Get("Location") != tt.location {
				t.Errorf("Location %q, want %q", w.Header().Get("Location"), tt.location)
			}
			if w.Header().Get("X-Request-Id") == "" {
				t.Error("no X-Request-Id")
			}
			if strings.Contains(w.Body.String(), "$schema") && !strings.HasPrefix(tt.target, "/openapi") {
				t.Errorf("$schema in the body: %s", w.Body)
			}
		})
	}
}

func TestHeadAnswersAsGet(t *testing.T) {
	for _, target := range []string{"/api/v1/vms", "/api/v1/events", "/health", "/openapi.json", "/"} {
		if w := ask(New(partsOf(newFake(t)), options()), "HEAD", target, ""); w.Code != 200 {
			t.Errorf("HEAD %s: status %d %s", target, w.Code, w.Body)
		}
	}
}

func TestRequestReachesTheAgent(t *testing.T) {
	f := newFake(t)
	h := New(partsOf(f), options())
	ask(h, "POST", "/api/v1/vms", `{"name":"x","image":"/img","labels":{"Team":"a"},"cpus":0.5,"memory_bytes":9007199254740993,
		"storage_bytes":3,"bandwidth_bps":4,"gpus":1,"io":{"rbps":5,"wiops":6},"pids":7,"keep":true}`)
	want := agent.VMCreate{Name: "x", Keep: true, Image: "/img", Labels: map[string]string{"Team": "a"}, Spec: agent.Spec{CPUs: 0.5,
		MemoryBytes: 9007199254740993, StorageBytes: 3, BandwidthBPS: 4, GPUs: 1, IO: agent.IO{ReadBPS: 5, WriteIOPS: 6}, PIDs: 7}}
	if diff := cmp.Diff(want, f.Got.Create); diff != "" {
		t.Errorf("create (-want +got)\n%s", diff)
	}
	ask(h, "PATCH", "/api/v1/vms/web", `{"memory_bytes":2,"io":{"rbps":0}}`, "Content-Type", "application/merge-patch+json")
	memory := int64(2)
	if diff := cmp.Diff(agent.VMChange{MemoryBytes: &memory, IO: &agent.IO{WriteBPS: 8}}, f.Got.Change); diff != "" {
		t.Errorf("change: what a merge patch leaves out stays (-want +got)\n%s", diff)
	}
	for text, keep := range map[string]bool{`{"keep":true}`: true, `{"keep":false}`: false} {
		if w := ask(h, "PATCH", "/api/v1/vms/web", text); w.Code != 200 || !cmp.Equal(agent.VMChange{Keep: &keep}, f.Got.Change) {
			t.Errorf("%s: status %d, change %+v", text, w.Code, f.Got.Change)
		}
	}
	ask(h, "POST", "/api/v1/cloudlets", `{"name":"n","vm":"web","argv":["a","b"],"env":{"K":"v"},"workdir":"/w","sla":3,
		"deadline_seconds":1.5,"on_deadline":"continue","duration_seconds":9,"request":{"cpus":2,"memory_bytes":3,"storage_bytes":4,"bandwidth_bps":5,"gpus":6}}`)
	submit := cloudlet.Submit{Name: "n", VM: "web", Argv: []string{"a", "b"}, Env: map[string]string{"K": "v"}, WorkDir: "/w", SLA: 3,
		DeadlineSeconds: 1.5, OnDeadline: "continue", DurationSeconds: 9,
		Request: agent.Request{CPUs: 2, MemoryBytes: 3, StorageBytes: 4, BandwidthBPS: 5, GPUs: 6}}
	if diff := cmp.Diff(submit, f.Got.Submit); diff != "" {
		t.Errorf("submit (-want +got)\n%s", diff)
	}
	ask(h, "DELETE", "/api/v1/vms/web?grace=1m", "")
	if f.Got.Grace.Seconds() != 60 {
		t.Errorf("grace %v", f.Got.Grace)
	}
}

func TestLoginSetsAndLogoutTakesTheCookie(t *testing.T) {
	login := &fakeLogin{}
	opts := options()
	opts.Login = login
	h := New(partsOf(newFake(t)), opts)
	if got := ask(h, "POST", "/api/v1/login", `{"code":"good"}`).Header().Get("Set-Cookie"); got != "cloudflash_session=sess; HttpOnly" {
		t.Errorf("login: Set-Cookie %q", got)
	}
	w := ask(h, "POST", "/api/v1/logout", "", "Cookie", "cloudflash_session=sess")
	if got := w.Header().Get("Set-Cookie"); login.forgotten != "sess" || !strings.Contains(got, "Max-Age=0") {
		t.Errorf("logout: forgot %q, Set-Cookie %q", login.forgotten, got)
	}
}

// TestOpenAPIAndRouterAgree checks both ways: each route of the router is
// documented, and each documented one is there.
func TestOpenAPIAndRouterAgree(t *testing.T) {
	srv := newServer(partsOf(newFake(t)), options())
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(ask(srv.gin, "GET", "/openapi.json", "").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for path, methods := range doc.Paths {
		for method := range methods {
			documented[strings.ToUpper(method)+" "+path] = true
		}
	}
	routed := map[string]bool{}
	for _, r := range srv.gin.Routes() {
		parts := strings.Split(r.Path, "/")
		for i, p := range parts {
			if name, ok := strings.CutPrefix(p, ":"); ok {
				parts[i] = "{" + name + "}"
			}
		}
		routed[r.Method+" "+strings.Join(parts, "/")] = true
	}
	if diff := cmp.Diff(routed, documented); diff != "" || len(routed) < 25 {
		t.Errorf("%d routes (-routed +documented)\n%s", len(routed), diff)
	}
}

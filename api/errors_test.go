package api

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/api/problem"
)

func TestEveryError(t *testing.T) {
	big := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	tests := map[string]struct {
		method, target, body string
		status               int
		code                 string // of the problem, any when empty
		detail               string // in the problem's detail
		pointer              string // of some field
	}{
		"no route":              {"GET", "/api/v1/nope", "", 404, "", "/api/v1/nope", ""},
		"no route under /api":   {"GET", "/api/zzz", "", 404, "", "", ""},
		"bare /api":             {"GET", "/api", "", 404, "", "", ""},
		"trailing slash":        {"GET", "/api/v1/vms/", "", 404, "", "", ""},
		"encoded slash":         {"GET", "/api/v1/vms/a%2Fb", "", 404, "", "", ""},
		"wrong method":          {"PUT", "/api/v1/vms", `{}`, 405, "method_not_allowed", "PUT", ""},
		"no such VM":            {"GET", "/api/v1/vms/zz", "", 404, "vm_not_found", "zz", ""},
		"change no such VM":     {"PATCH", "/api/v1/vms/zz", `{"io":{"rbps":1}}`, 404, "vm_not_found", "zz", ""},
		"delete no such VM":     {"DELETE", "/api/v1/vms/zz", "", 404, "vm_not_found", "", ""},
		"freeze no such VM":     {"POST", "/api/v1/vms/zz/actions/freeze", "", 404, "vm_not_found", "", ""},
		"no such cloudlet":      {"GET", "/api/v1/cloudlets/zz", "", 404, "cloudlet_not_found", "", ""},
		"wait for none":         {"GET", "/api/v1/cloudlets/zz?wait=1m", "", 404, "cloudlet_not_found", "", ""},
		"cancel ended":          {"DELETE", "/api/v1/cloudlets/old", "", 409, "already_finished", "", ""},
		"output not started":    {"GET", "/api/v1/cloudlets/new/output", "", 409, "not_started", "", ""},
		"output gone":           {"GET", "/api/v1/cloudlets/old/output", "", 404, "no_output", "", ""},
		"output of none":        {"GET", "/api/v1/cloudlets/zz/output?follow=true", "", 404, "cloudlet_not_found", "", ""},
		"output stream":         {"GET", "/api/v1/cloudlets/old/output?stream=stdin", "", 422, "", "stream", "?stream"},
		"output tail":           {"GET", "/api/v1/cloudlets/old/output?tail=x", "", 422, "", "tail", "?tail"},
		"output tail, offset":   {"GET", "/api/v1/cloudlets/run/output?tail=1&offset=1", "", 422, "", "tail", "?offset"},
		"metrics of no VM":      {"GET", "/api/v1/vms/zz/metrics", "", 404, "vm_not_found", "zz", ""},
		"metrics range":         {"GET", "/api/v1/vms/web/metrics?range=25h", "", 422, "invalid_range", "1s to 24h", "?range"},
		"metrics range 0":       {"GET", "/api/v1/host/metrics?range=0s", "", 422, "invalid_range", "1s to 24h", "?range"},
		"metrics range no time": {"GET", "/api/v1/host/metrics?range=soon", "", 422, "invalid_range", "range", "?range"},
		"metrics field":         {"GET", "/api/v1/vms/web/metrics?fields=cpus,cpu", "", 422, "invalid_history", "cpu is not one of cpus", "?fields"},
		"metrics field empty":   {"GET", "/api/v1/host/metrics?fields=vms,", "", 422, "invalid_history", "not one of", "?fields"},
		"no such operation":     {"GET", "/api/v1/operations/zz?wait=1s", "", 404, "operation_not_found", "", ""},
		"no such token":         {"DELETE", "/api/v1/tokens/zz", "", 404, "token_not_found", "", ""},
		"token role":            {"POST", "/api/v1/tokens", `{"name":"n","role":"root"}`, 422, "", "role", ""},
		"token without name":    {"POST", "/api/v1/tokens", `{"role":"admin"}`, 422, "", "name", ""},
		"bad code":              {"POST", "/api/v1/login", `{"code":"bad"}`, 401, "bad_code", "", ""},
		"login without code":    {"POST", "/api/v1/login", `{}`, 422, "", "code", ""},
		"code role":             {"POST", "/api/v1/login/codes", `{"role":"root"}`, 422, "", "role", "/role"},
		"events gone":           {"GET", "/api/v1/events?since=1", "", 410, "history_gone", "", ""},
		"events limit":          {"GET", "/api/v1/events?limit=0", "", 422, "", "limit", "?limit"},
		"list limit":            {"GET", "/api/v1/vms?limit=1001", "", 422, "", "limit", "?limit"},
		"list limit no number":  {"GET", "/api/v1/vms?limit=abc", "", 422, "", "limit", "?limit"},
		"list page token":       {"GET", "/api/v1/cloudlets?page_token=%21", "", 422, "", "page_token", "?page_token"},
		"list state":            {"GET", "/api/v1/vms?state=dead", "", 422, "", "state", "?state"},
		"unknown parameter":     {"GET", "/api/v1/vms?stat=running", "", 422, "", "stat", "?stat"},
		"wait no duration":      {"GET", "/api/v1/cloudlets/run?wait=abc", "", 422, "", "wait", "?wait"},
		"submit wait no time":   {"POST", "/api/v1/cloudlets?wait=soon", `{"argv":["true"]}`, 422, "", "wait", "?wait"},
		"wait negative":         {"GET", "/api/v1/cloudlets/run?wait=-1s", "", 422, "", "wait", "?wait"},
		"grace too long":        {"DELETE", "/api/v1/vms/web?grace=2h", "", 422, "", "grace", "?grace"},
		"no body":               {"POST", "/api/v1/vms", "", 400, "", "body", ""},
		"blank body":            {"POST", "/api/v1/vms", " \n", 400, "", "body", ""},
		"bad JSON":              {"POST", "/api/v1/vms", `{"name":"a",}`, 400, "", "byte 13", ""},
		"bytes":                 {"POST", "/api/v1/cloudlets", "{\"argv\":[\"caf\xe9\"]}", 400, "malformed", "UTF-8 at byte 14", ""},
		"an escaped letter":     {"POST", "/api/v1/cloudlets", `{"argv":["\é"]}`, 400, "malformed", "not JSON", ""},
		"an escaped backslash":  {"POST", "/api/v1/cloudlets", `{"argv":["\\ud83d"],"x":1}`, 422, "invalid_body", "known", ""},
		"half a pair":           {"POST", "/api/v1/cloudlets", `{"argv":["\ud83d"]}`, 400, "malformed", "surrogate pair", ""},
		"the wrong half":        {"POST", "/api/v1/cloudlets", `{"argv":["\ude00\ud83d"]}`, 400, "malformed", "surrogate pair", ""},
		"cut JSON":              {"POST", "/api/v1/vms", `{"name":"a"`, 400, "", "byte 11", ""},
		"two JSONs":             {"POST", "/api/v1/vms", `{} {}`, 400, "", "byte", ""},
		"list for object":       {"POST", "/api/v1/vms", `[]`, 422, "", "object", ""},
		"null for object":       {"POST", "/api/v1/vms", `null`, 422, "", "object", ""},
		"deep":                  {"POST", "/api/v1/vms", `{"labels":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`, 400, "", "depth", ""},
		"rather deep":           {"POST", "/api/v1/vms", `{"labels":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + `}`, 400, "", "deeper", ""},
		"too large":             {"POST", "/api/v1/vms", big, 413, "", "1048576", ""},
		"unknown field":         {"POST", "/api/v1/vms", `{"nmae":"a"}`, 422, "", "nmae", "/nmae"},
		"unknown nested":        {"PATCH", "/api/v1/vms/web", `{"io":{"bps":1}}`, 422, "", "bps", "/io/bps"},
		"wrong case":            {"POST", "/api/v1/vms", `{"CPUS":1}`, 422, "", "CPUS", "/CPUS"},
		"wrong case nested":     {"POST", "/api/v1/cloudlets", `{"request":{"Cpus":1}}`, 422, "", "Cpus", "/request/Cpus"},
		"name given twice":      {"POST", "/api/v1/vms", `{"cpus":1,"cpus":2}`, 422, "", "twice", "/cpus"},
		"change what is fixed":  {"PATCH", "/api/v1/vms/web", `{"name":"b"}`, 422, "", "name", "/name"},
		"null":                  {"PATCH", "/api/v1/vms/web", `{"memory_bytes":null}`, 422, "", "null", "/memory_bytes"},
		"null in list":          {"POST", "/api/v1/cloudlets", `{"argv":["a",null]}`, 422, "", "null", "/argv/1"},
		"human size":            {"POST", "/api/v1/vms", `{"memory_bytes":"512MiB"}`, 422, "", "memory_bytes", "/memory_bytes"},
		"fraction of a byte":    {"POST", "/api/v1/vms", `{"memory_bytes":1.5}`, 422, "", "memory_bytes", "/memory_bytes"},
		"exponent":              {"POST", "/api/v1/vms", `{"memory_bytes":1e9}`, 422, "", "memory_bytes", "/memory_bytes"},
		"beyond int64":          {"POST", "/api/v1/vms", `{"memory_bytes":9223372036854775808}`, 422, "", "memory_bytes", "/memory_bytes"},
		"number beyond float64": {"POST", "/api/v1/vms", `{"cpus":1e999}`, 422, "", "cpus", "/cpus"},
		"wrong type nested":     {"POST", "/api/v1/vms", `{"io":{"rbps":"fast"}}`, 422, "", "rbps", "/io/rbps"},
		"zero cpus":             {"POST", "/api/v1/vms", `{"cpus":0}`, 422, "out_of_range", "cpus", "/cpus"},
		"zero memory":           {"POST", "/api/v1/vms", `{"memory_bytes":0}`, 422, "out_of_range", "memory_bytes", "/memory_bytes"},
		"zero sla":              {"POST", "/api/v1/cloudlets", `{"sla":0}`, 422, "out_of_range", "sla", "/sla"},
		"zero duration":         {"POST", "/api/v1/cloudlets", `{"duration_seconds":0}`, 422, "out_of_range", "duration_seconds", "/duration_seconds"},
		"policy of no VM":       {"GET", "/api/v1/autoscale/policy?vm=zz", "", 404, "vm_not_found", "zz", ""},
		"set policy of no VM":   {"PUT", "/api/v1/autoscale/policy?vm=zz", `{}`, 404, "vm_not_found", "zz", ""},
		"policy without a body": {"PUT", "/api/v1/autoscale/policy", "", 400, "", "body", ""},
		"POST to the policy":    {"POST", "/api/v1/autoscale/policy", `{}`, 405, "method_not_allowed", "POST", ""},
		"policy, crossed":       {"PUT", "/api/v1/autoscale/policy", `{"rules":{"cpus":{"up":0.2,"down":0.8}}}`, 422, "invalid_policy", "down", "/rules/cpus/down"},
		"policy, unknown field": {"PUT", "/api/v1/autoscale/policy", `{"rules":{"cpus":{"upp":1}}}`, 422, "invalid_body", "upp", "/rules/cpus/upp"},
		"policy, unknown part":  {"PUT", "/api/v1/autoscale/policy", `{"rule":{}}`, 422, "invalid_body", "rule", "/rule"},
		"policy, twice":         {"PUT", "/api/v1/autoscale/policy", `{"rules":{"cpus":{},"cpus":{}}}`, 422, "invalid_body", "twice", "/rules/cpus"},
		"policy, null":          {"PUT", "/api/v1/autoscale/policy", `{"rules":{"cpus":{"up":null}}}`, 422, "invalid_body", "null", "/rules/cpus/up"},
		"policy, wrong type":    {"PUT", "/api/v1/autoscale/policy", `{"rules":{"all":{"mode":"off"},"cpus":{"down":0.1,"up":"80%"}}}`, 422, "wrong_type", "rules/cpus/up must be a number", "/rules/cpus/up"},
		"policy, no rule":       {"PUT", "/api/v1/autoscale/policy", `{"rules":{"a/b":[]}}`, 422, "wrong_type", "an object", "/rules/a~1b"},
		"policy in a VM":        {"PATCH", "/api/v1/vms/web", `{"autoscale":{"rules":{"cpus":{"max":"4"}}}}`, 422, "wrong_type", "max", "/autoscale/rules/cpus/max"},
		"status of no VM":       {"GET", "/api/v1/autoscale/status?vm=zz", "", 404, "vm_not_found", "zz", ""},
		"decisions of no VM":    {"GET", "/api/v1/autoscale/events?vm=zz", "", 404, "vm_not_found", "zz", ""},
		"decisions gone":        {"GET", "/api/v1/autoscale/events?since=1", "", 410, "history_gone", "", ""},
		"decisions limit":       {"GET", "/api/v1/autoscale/events?limit=0", "", 422, "", "limit", "?limit"},
		"POST to the dashboard": {"POST", "/index.html", `{}`, 405, "method_not_allowed", "POST", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.Has.Oldest, f.Has.Scaling.Forgotten = 3, 3
			w := ask(New(partsOf(f), options()), tt.method, tt.target, tt.body)
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %.300s", w.Code, tt.status, w.Body)
			}
			checkProblem(t, tt.target, w.Header().Get("X-Request-Id"), w.Header().Get("Content-Type"), parse(t, w))
			p := parse(t, w)
			if d, _ := p["detail"].(string); !strings.Contains(d, tt.detail) || len(d) > 1000 {
				t.Errorf("detail %q, want %q in it", d, tt.detail)
			}
			if tt.code != "" && p["code"] != tt.code {
				t.Errorf("code %v, want %s", p["code"], tt.code)
			}
			if tt.pointer != "" && !hasPointer(p, tt.pointer) {
				t.Errorf("errors %v, want pointer %s", p["errors"], tt.pointer)
			}
			if tt.status == 405 && w.Header().Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
}

func hasPointer(p map[string]any, pointer string) bool {
	fields, _ := p["errors"].([]any)
	for _, f := range fields {
		if m, ok := f.(map[string]any); ok && m["pointer"] == pointer && m["detail"] != "" {
			return true
		}
	}
	return false
}

func checkProblem(t *testing.T, target, requestID, contentType string, p map[string]any) {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	path = strings.ReplaceAll(path, "%2F", "/")
	if contentType != problem.ContentType {
		t.Errorf("Content-Type %q", contentType)
	}
	for _, key := range []string{"type", "title", "status", "detail", "code"} {
		if p[key] == nil || p[key] == "" {
			t.Errorf("no %s in %v", key, p)
		}
	}
	if p["instance"] != path || requestID == "" || p["request_id"] != requestID {
		t.Errorf("instance %v, request_id %v, want %s, %s", p["instance"], p["request_id"], path, requestID)
	}
}

func TestRefusalsOfTheAgent(t *testing.T) {
	tests := map[string]struct {
		kind   error
		status int
	}{
		"invalid":  {fault.ErrInvalid, 422},
		"exists":   {fault.ErrExists, 409},
		"conflict": {fault.ErrConflict, 409},
		"capacity": {fault.ErrCapacity, 507},
		"expired":  {fault.ErrExpired, 410},
		"stale":    {fault.ErrPrecondition, 412},
		"auth":     {fault.ErrAuth, 401},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.Err = &fault.Error{Kind: tt.kind, Code: "some_code", Detail: "because", Hint: "do this",
				Fields: []fault.Field{{Pointer: "/cpus", Detail: "too many", Min: 0.1, Max: 32.0}}}
			for _, r := range [][2]string{{"POST", "/api/v1/vms"}, {"PATCH", "/api/v1/vms/web"}, {"POST", "/api/v1/cloudlets"}, {"PUT", "/api/v1/autoscale/policy"}} {
				w := ask(New(partsOf(f), options()), r[0], r[1], `{}`)
				p := parse(t, w)
				checkProblem(t, r[1], w.Header().Get("X-Request-Id"), w.Header().Get("Content-Type"), p)
				if w.Code != tt.status || p["code"] != "some_code" || p["hint"] != "do this" || !strings.Contains(w.Body.String(), `"min":0.1,"max":32`) {
					t.Errorf("%v: status %d, want %d: %s", r, w.Code, tt.status, w.Body)
				}
			}
		})
	}
}

func TestContentTypeMustBeJSON(t *testing.T) {
	tests := map[string]struct {
		method, contentType string
		status              int
	}{
		"form":               {"POST", "application/x-www-form-urlencoded", 415},
		"plain":              {"POST", "text/plain", 415},
		"rubbish":            {"POST", ";;;", 415},
		"absent":             {"POST", "", 415},
		"with charset":       {"POST", "application/json; charset=utf-8", 201},
		"merge patch":        {"PATCH", "application/merge-patch+json", 200},
		"put":                {"PUT", "application/json", 200},
		"merge patch put":    {"PUT", "application/merge-patch+json", 415},
		"merge patch create": {"POST", "application/merge-patch+json", 415},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			target, body := "/api/v1/vms", `{"pids":64}`
			switch tt.method {
			case "PATCH":
				target += "/web"
			case "PUT":
				target, body = policyPath, `{}`
			}
			w := ask(New(partsOf(newFake(t)), options()), tt.method, target, body, "Content-Type", tt.contentType)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
		})
	}
}

func TestFailuresStayInTheLog(t *testing.T) {
	f := newFake(t)
	f.Err = errors.New("open /secret/path: disk on fire")
	var log bytes.Buffer
	opts := options()
	opts.Log = slog.New(slog.NewTextHandler(&log, nil))
	w := ask(New(partsOf(f), opts), "POST", "/api/v1/vms", `{}`)
	checkProblem(t, "/api/v1/vms", w.Header().Get("X-Request-Id"), w.Header().Get("Content-Type"), parse(t, w))
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "disk on fire") || !strings.Contains(log.String(), w.Header().Get("X-Request-Id")) {
		t.Errorf("log lacks the cause or the request id: %s", log.String())
	}
}

func TestPanicIs500(t *testing.T) {
	f := newFake(t)
	f.HostIs = func() agent.Host { panic("top secret") }
	var log bytes.Buffer
	opts := options()
	opts.Log = slog.New(slog.NewTextHandler(&log, nil))
	w := ask(New(partsOf(f), opts), "GET", "/api/v1/host", "")
	checkProblem(t, "/api/v1/host", w.Header().Get("X-Request-Id"), w.Header().Get("Content-Type"), parse(t, w))
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "top secret") || !strings.Contains(log.String(), w.Header().Get("X-Request-Id")) {
		t.Errorf("log lacks the panic or the request id: %s", log.String())
	}
}

func TestUnspeakableAnswerIs500(t *testing.T) {
	f := newFake(t)
	f.HostIs = func() agent.Host { return agent.Host{UptimeSeconds: math.NaN()} }
	w := ask(New(partsOf(f), options()), "GET", "/api/v1/host", "")
	checkProblem(t, "/api/v1/host", w.Header().Get("X-Request-Id"), w.Header().Get("Content-Type"), parse(t, w))
	if w.Code != 500 {
		t.Errorf("status %d", w.Code)
	}
}

func FuzzBodies(f *testing.F) {
	for _, seed := range []string{`{}`, `{"name":"a","cpus":1,"io":{"rbps":1}}`, `{"labels":{"a":"b"}}`, `{"argv":["a"],"request":{"cpus":1}}`,
		`null`, `[1]`, `{"cpus":1e400}`, `{"a":{"b":[{}]}}`, "{\"\xff\":1}", `{"":0}`, `{"io":[]}`, `{"argv":{"a":1}}`, `{"cpus":-0}`, `"x"`,
		`{"rules":{"cpus":{"up":0.7,"mode":"auto"},"all":{}},"idle":{"min_vms":1}}`, `{"rules":{"a":{"b":{}}}}`, `{"rules":{"":[1,{}]}}`, `{"autoscale":{"rules":{"all":1e400}}}`} {
		f.Add([]byte(seed))
	}
	h := New(partsOf(newFake(f)), options())
	routes := [][2]string{{"POST", "/api/v1/vms"}, {"PATCH", "/api/v1/vms/web"}, {"POST", "/api/v1/cloudlets"},
		{"POST", "/api/v1/tokens"}, {"POST", "/api/v1/login"}, {"POST", "/api/v1/login/codes"}, {"PUT", "/api/v1/autoscale/policy"}}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, r := range routes {
			w := ask(h, r[0], r[1], string(body), "Content-Type", "application/json")
			if w.Code >= 500 {
				t.Fatalf("%v: status %d: %s", r, w.Code, w.Body)
			}
			if w.Code >= 400 && w.Header().Get("Content-Type") != problem.ContentType {
				t.Fatalf("%v: status %d is %q", r, w.Code, w.Header().Get("Content-Type"))
			}
		}
	})
}

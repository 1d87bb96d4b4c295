package access

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/tokens"
	"cloudflash/api/problem"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tokens is an agent's store of tokens, by secret.
type fakeTokens struct {
	mu  sync.Mutex
	all map[string]agent.Token
}

func newTokens() *fakeTokens {
	return &fakeTokens{all: map[string]agent.Token{
		"admin-secret":   {ID: "1", Name: "ops", Role: tokens.RoleAdmin, Kind: "token"},
		"viewer-secret":  {ID: "2", Name: "wall", Role: tokens.RoleViewer, Kind: "token"},
		"session-secret": {ID: "3", Name: "browser", Role: tokens.RoleAdmin, Kind: "session"},
	}}
}

func (t *fakeTokens) Authenticate(secret string) (agent.Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tok, ok := t.all[secret]; ok {
		return tok, nil
	}
	return agent.Token{}, &fault.Error{Kind: fault.ErrAuth, Code: "bad_token", Detail: "token is unknown"}
}

func (t *fakeTokens) NewSession(role string) (string, time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all["new-session"] = agent.Token{ID: "4", Name: "browser", Role: role, Kind: "session"}
	return "new-session", time.Hour, nil
}

func (t *fakeTokens) Revoke(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for secret, tok := range t.all {
		if tok.ID == id {
			delete(t.all, secret)
		}
	}
	return nil
}

// ask sends one request through the guard. It returns the status, the code of a
// refusal, and the caller that the API saw.
func ask(a *Access, r *http.Request) (status int, code string, caller Caller, header http.Header) {
	w := httptest.NewRecorder()
	a.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ = FromContext(r.Context())
		caller.secret = ""
	})).ServeHTTP(w, r)
	if w.Code >= 400 {
		var p problem.Problem
		_ = json.Unmarshal(w.Body.Bytes(), &p)
		code = p.Code
	}
	return w.Code, code, caller, w.Header()
}

// request is one over TCP from this host to localhost:5000. Headers come in
// pairs; Host and From (the peer's address) are no headers but the real thing.
func request(method, target string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Host, r.RemoteAddr = "localhost:5000", "127.0.0.1:40000"
	for i := 0; i+1 < len(headers); i += 2 {
		switch headers[i] {
		case "Host":
			r.Host = headers[i+1]
		case "From":
			r.RemoteAddr = headers[i+1]
		default:
			r.Header.Add(headers[i], headers[i+1])
		}
	}
	return r
}

const (
	auth    = "Authorization"
	admin   = "Bearer admin-secret"
	viewer  = "Bearer viewer-secret"
	cookie  = "Cookie"
	session = SessionCookie + "=session-secret"
	far     = "192.0.2.7:40000"
)

func TestWhoMayDoWhat(t *testing.T) {
	ops, wall, browser := Caller{Name: "ops", Role: "admin", Via: "token"}, Caller{Name: "wall", Role: "viewer", Via: "token"}, Caller{Name: "browser", Role: "admin", Via: "session"}
	tests := map[string]struct {
		r      *http.Request
		status int
		code   string
		caller Caller
	}{
		"admin reads":              {request("GET", "/api/v1/vms", auth, admin), 200, "", ops},
		"admin writes":             {request("POST", "/api/v1/vms", auth, admin), 200, "", ops},
		"scheme in small letters":  {request("GET", "/api/v1/vms", auth, "bearer admin-secret"), 200, "", ops},
		"session reads":            {request("GET", "/api/v1/vms", cookie, session), 200, "", browser},
		"session writes":           {request("DELETE", "/api/v1/vms/a", cookie, session), 200, "", browser},
		"nobody":                   {request("GET", "/api/v1/vms"), 401, "login_required", Caller{}},
		"nobody writes":            {request("POST", "/api/v1/vms"), 401, "login_required", Caller{}},
		"nobody opens the stream":  {request("GET", "/api/v1/stream", "Upgrade", "websocket"), 401, "login_required", Caller{}},
		"unknown secret":           {request("GET", "/api/v1/vms", auth, "Bearer nonsense"), 401, "bad_token", Caller{}},
		"empty secret":             {request("GET", "/api/v1/vms", auth, "Bearer "), 401, "login_required", Caller{}},
		"basic":                    {request("GET", "/api/v1/vms", auth, "Basic YTpi"), 401, "bad_token", Caller{}},
		"bad token, good cookie":   {request("GET", "/api/v1/vms", auth, "Bearer nonsense", cookie, session), 401, "bad_token", Caller{}},
		"unknown cookie":           {request("GET", "/api/v1/vms", cookie, SessionCookie+"=nonsense"), 401, "bad_token", Caller{}},
		"token as cookie":          {request("GET", "/api/v1/vms", cookie, SessionCookie+"=admin-secret"), 401, "bad_token", Caller{}},
		"session as token":         {request("GET", "/api/v1/vms", auth, "Bearer session-secret"), 401, "bad_token", Caller{}},
		"old paths need login":     {request("GET", "/api/vms"), 401, "login_required", Caller{}},
		"viewer reads":             {request("GET", "/api/v1/vms", auth, viewer), 200, "", wall},
		"viewer heads":             {request("HEAD", "/api/v1/vms", auth, viewer), 200, "", wall},
		"viewer watches":           {request("GET", "/api/v1/stream", auth, viewer, "Upgrade", "websocket"), 200, "", wall},
		"viewer logs out":          {request("POST", "/api/v1/logout", auth, viewer), 200, "", wall},
		"viewer opens a shell":     {request("GET", "/api/v1/vms/a/exec", auth, viewer, "Upgrade", "websocket"), 403, "read_only", Caller{}},
		"viewer posts":             {request("POST", "/api/v1/vms", auth, viewer), 403, "read_only", Caller{}},
		"viewer sets a policy":     {request("PUT", "/api/v1/autoscale/policy", auth, viewer), 403, "read_only", Caller{}},
		"viewer patches":           {request("PATCH", "/api/v1/vms/a", auth, viewer), 403, "read_only", Caller{}},
		"viewer puts":              {request("PUT", "/api/v1/vms/a", auth, viewer), 403, "read_only", Caller{}},
		"viewer deletes":           {request("DELETE", "/api/v1/vms/a", auth, viewer), 403, "read_only", Caller{}},
		"viewer makes a code":      {request("POST", "/api/v1/login/codes", auth, viewer), 403, "read_only", Caller{}},
		"viewer makes up a method": {request("FROB", "/api/v1/vms", auth, viewer), 403, "read_only", Caller{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			status, code, caller, header := ask(New(newTokens(), nil, false), test.r)
			if status != test.status || code != test.code {
				t.Errorf("%d %s, want %d %s", status, code, test.status, test.code)
			}
			if diff := cmp.Diff(test.caller, caller, cmp.AllowUnexported(Caller{})); diff != "" {
				t.Error(diff)
			}
			if challenge := header.Get("WWW-Authenticate"); (challenge != "") != (status == 401) {
				t.Errorf("WWW-Authenticate %q with status %d", challenge, status)
			}
		})
	}
}

func TestOpenPaths(t *testing.T) {
	tests := map[string]struct {
		method, path, from string
		open               bool
	}{
		"health":                      {"GET", "/health", "", true},
		"livez":                       {"GET", "/livez", "", true},
		"readyz":                      {"GET", "/readyz", "", true},
		"metrics":                     {"GET", "/metrics", "", true},
		"metrics over ::1":            {"GET", "/metrics", "[::1]:4000", true},
		"openapi":                     {"GET", "/openapi.json", "", true},
		"page":                        {"GET", "/", "", true},
		"script":                      {"GET", "/app.js", "", true},
		"page from afar":              {"GET", "/", far, true},
		"login":                       {"POST", "/api/v1/login", "", true},
		"login from afar":             {"POST", "/api/v1/login", far, true},
		"login is only posted":        {"GET", "/api/v1/login", "", false},
		"codes":                       {"POST", "/api/v1/login/codes", "", false},
		"metrics from afar":           {"GET", "/metrics", far, false},
		"health from afar":            {"GET", "/health", far, false},
		"openapi from afar":           {"GET", "/openapi.json", far, false},
		"metrics from who knows":      {"GET", "/metrics", "@", false},
		"metrics, two slashes":        {"GET", "http://x//metrics", far, false},
		"api":                         {"GET", "/api/v1/vms", "", false},
		"api alone":                   {"GET", "/api", "", false},
		"api, two slashes":            {"GET", "http://x//api/v1/vms", "", false},
		"api, dots":                   {"GET", "http://x/static/../api/v1/vms", "", false},
		"api, capitals":               {"GET", "/API/v1/vms", "", false},
		"api, percent":                {"GET", "/%61pi/v1/vms", "", false},
		"login and back":              {"POST", "http://x/api/v1/login/../vms", "", false},
		"no api but looks a bit like": {"GET", "/apical.js", "", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := request(test.method, test.path)
			if test.from != "" {
				r.RemoteAddr = test.from
			}
			want := map[bool]int{true: 200, false: 401}[test.open]
			if status, code, _, _ := ask(New(newTokens(), nil, false), r); status != want {
				t.Errorf("%d %s, want %d", status, code, want)
			}
		})
	}
}

func TestHostNames(t *testing.T) {
	a := New(newTokens(), []string{"box.example"}, false)
	for _, host := range []string{"localhost", "localhost:5000", "LocalHost:5000", "127.0.0.1", "127.0.0.1:5000", "127.1.2.3:80", "[::1]", "[::1]:5000", "box.example", "BOX.example:443"} {
		if status, code, _, _ := ask(a, request("GET", "/health", "Host", host)); status != 200 {
			t.Errorf("%s: %d %s", host, status, code)
		}
	}
	for _, host := range []string{"", "evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1:5000", "0.0.0.0:5000", "[::]:5000",
		"sub.box.example", "box.example.", "localhost@evil.example", "evil.example\r\n", strings.Repeat("a", 10000)} {
		for _, path := range []string{"/health", "/", "/api/v1/vms"} { // not even the open ones
			if status, code, _, _ := ask(a, request("GET", path, "Host", host, auth, admin)); status != 421 || code != "wrong_host" {
				t.Errorf("%.40q %s: %d %s, want 421", host, path, status, code)
			}
		}
	}
}

func TestOrigins(t *testing.T) {
	const site, ours, foreign = "Sec-Fetch-Site", "http://localhost:5000", "http://evil.example"
	tests := map[string]struct {
		method  string
		headers []string
		ok      bool
	}{
		"our page writes":                {"POST", []string{"Origin", ours, site, "same-origin"}, true},
		"our page, TLS":                  {"POST", []string{"Origin", "https://localhost:5000"}, true},
		"our page, other case":           {"POST", []string{"Origin", ours, "Host", "LOCALHOST:5000"}, true},
		"our page opens a socket":        {"GET", []string{"Origin", ours, "Upgrade", "websocket"}, true},
		"a program writes":               {"POST", nil, true},
		"typed into the bar":             {"POST", []string{site, "none"}, true},
		"old browser, ours":              {"DELETE", []string{"Origin", ours}, true},
		"foreign page reads":             {"GET", []string{"Origin", foreign, site, "cross-site"}, true}, // and cannot see the answer
		"foreign page posts":             {"POST", []string{"Origin", foreign}, false},
		"foreign page deletes":           {"DELETE", []string{"Origin", foreign}, false},
		"foreign page patches":           {"PATCH", []string{"Origin", foreign}, false},
		"preflight":                      {"OPTIONS", []string{"Origin", foreign}, false},
		"foreign page opens a socket":    {"GET", []string{"Origin", foreign, "Upgrade", "websocket"}, false},
		"the same, capitals":             {"GET", []string{"Origin", foreign, "Upgrade", "WebSocket"}, false},
		"the same, as a list":            {"GET", []string{"Origin", foreign, "Upgrade", "h2c, websocket"}, false},
		"the same, twice":                {"GET", []string{"Origin", foreign, "Upgrade", "h2c", "Upgrade", "websocket"}, false},
		"another port":                   {"POST", []string{"Origin", "http://localhost:3000", site, "same-site"}, false},
		"another name of this host":      {"POST", []string{"Origin", "http://127.0.0.1:5000"}, false},
		"sandboxed page":                 {"POST", []string{"Origin", "null"}, false},
		"nonsense":                       {"POST", []string{"Origin", "://"}, false},
		"cross-site without origin":      {"POST", []string{site, "cross-site"}, false},
		"same-site without origin":       {"POST", []string{site, "same-site"}, false},
		"cross-site socket, no origin":   {"GET", []string{site, "cross-site", "Upgrade", "websocket"}, false},
		"user of ours at a foreign host": {"POST", []string{"Origin", "http://localhost:5000@evil.example"}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := request(test.method, "/api/v1/vms", append(test.headers, cookie, session)...)
			status, code, _, _ := ask(New(newTokens(), nil, false), r)
			if test.ok && status != 200 || !test.ok && (status != 403 || code != "foreign_origin") {
				t.Errorf("%d %s, want ok %t", status, code, test.ok)
			}
		})
	}
	t.Run("foreign page logs in", func(t *testing.T) {
		if status, _, _, _ := ask(New(newTokens(), nil, false), request("POST", "/api/v1/login", "Origin", foreign)); status != 403 {
			t.Errorf("status %d", status)
		}
	})
}

func TestGuessingIsSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(newTokens(), nil, false)
		guess := func() int {
			status, _, _, _ := ask(a, request("GET", "/api/v1/vms", auth, "Bearer guess"))
			return status
		}
		count := map[int]int{}
		for range 1000 {
			count[guess()]++
		}
		if count[401] != 50 || count[429] != 950 {
			t.Errorf("answers %v, want 50 of 401 and 950 of 429", count)
		}
		if status, _, _, _ := ask(a, request("GET", "/api/v1/vms", auth, admin)); status != 200 {
			t.Errorf("who has the token is locked out: %d", status)
		}
		if _, err := a.Redeem("guess"); problem.From(err).Status != 429 {
			t.Errorf("guess of a code: %v", err)
		}
		time.Sleep(time.Second)
		if status := guess(); status != 401 {
			t.Errorf("a second later: %d", status)
		}
	})
}

func TestLogin(t *testing.T) {
	a := New(newTokens(), nil, true)
	code, _ := a.NewCode(tokens.RoleViewer)
	c, err := a.Redeem(code)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != SessionCookie || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 3600 {
		t.Errorf("cookie %+v", c)
	}
	r := request("GET", "/api/v1/vms")
	r.AddCookie(c)
	if _, _, caller, _ := ask(a, r); caller.Role != tokens.RoleViewer || caller.Via != "session" {
		t.Errorf("caller %+v", caller)
	}
	if err := a.Forget(c.Value); err != nil {
		t.Fatal(err)
	}
	if status, _, _, _ := ask(a, r); status != 401 {
		t.Errorf("after logout: %d", status)
	}
	if err := a.Forget(c.Value); err != nil {
		t.Errorf("logout twice: %v", err)
	}
	if c, err := New(newTokens(), nil, false).Redeem(""); err == nil {
		t.Errorf("an empty code gave %v", c)
	}
}

// TestRevokedTokenEndsItsStreams: a stream lasts for hours, a right may not.
func TestRevokedTokenEndsItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newTokens()
		a := New(store, nil, false)
		ended := make(chan time.Duration)
		began := time.Now()
		go a.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			ended <- time.Since(began)
		})).ServeHTTP(httptest.NewRecorder(), request("GET", "/api/v1/stream", auth, admin))
		time.Sleep(10*recheckEvery + time.Second)
		select {
		case <-ended:
			t.Fatal("ended while the token was good")
		default:
		}
		_ = store.Revoke("1")
		if took := <-ended; took != 11*recheckEvery {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestContextEndsWithTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept context.Context
		a := New(newTokens(), nil, false)
		a.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { kept = r.Context() })).
			ServeHTTP(httptest.NewRecorder(), request("GET", "/api/v1/vms", auth, admin))
		if kept.Err() == nil {
			t.Error("the context outlives the request")
		}
	})
}

func TestCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCodes()
		used, _ := c.add("admin")
		if role, ok := c.take(used); !ok || role != "admin" {
			t.Errorf("first use: %q %t", role, ok)
		}
		if _, ok := c.take(used); ok {
			t.Error("a code works twice")
		}
		old, expires := c.add("admin")
		if left := time.Until(expires); left != codeLife {
			t.Errorf("lives %v", left)
		}
		time.Sleep(codeLife)
		last, _ := c.add("viewer")
		time.Sleep(time.Nanosecond)
		if _, ok := c.take(old); ok {
			t.Error("an expired code works")
		}
		if role, ok := c.take(last); !ok || role != "viewer" {
			t.Error("a fresh code does not work")
		}
		if len(c.open) != 0 {
			t.Errorf("%d codes are kept", len(c.open))
		}
	})
}

func TestCodesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCodes()
		var all []string
		for range maxCodes + 10 {
			code, _ := c.add("admin")
			all = append(all, code)
			time.Sleep(time.Millisecond) // so that there is an oldest
		}
		if len(c.open) != maxCodes {
			t.Errorf("%d codes are kept", len(c.open))
		}
		for i, code := range all {
			if _, ok := c.take(code); ok != (i >= 10) {
				t.Fatalf("code %d works: %t", i, ok)
			}
		}
	})
}

// TestOneCodeLogsInOnce races many browsers for one code.
func TestOneCodeLogsInOnce(t *testing.T) {
	c := newCodes()
	code, _ := c.add("admin")
	var wg sync.WaitGroup
	wins := make(chan struct{}, 100)
	for range cap(wins) {
		wg.Go(func() {
			if _, ok := c.take(code); ok {
				wins <- struct{}{}
			}
		})
	}
	wg.Wait()
	if len(wins) != 1 {
		t.Errorf("%d logins", len(wins))
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("GET", "/api/v1/vms", "localhost", "http://localhost", "Bearer x")
	f.Add("POST", "//api/v1/login/", "[::1", "null", "Bearer")
	f.Fuzz(func(t *testing.T, method, path, host, origin, authorization string) {
		r := request("GET", "/", "Host", host, "Origin", origin, auth, authorization)
		r.Method, r.URL.Path = method, path
		status, _, caller, _ := ask(New(newTokens(), nil, false), r)
		if authorization == admin || authorization == viewer || strings.Contains(authorization, "-secret") {
			return
		}
		if caller != (Caller{}) {
			t.Errorf("%d: %+v without a secret", status, caller)
		}
		if status == 200 && strings.HasPrefix(path, "/api/") && !strings.Contains(path, "login") && !strings.Contains(path, "..") {
			t.Errorf("%s %q is open", method, path)
		}
	})
}

func drain(r io.ReadCloser) { _, _ = io.Copy(io.Discard, r); _ = r.Close() }

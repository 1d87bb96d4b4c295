// Package access decides who may call the API: the owner of the Unix socket's
// other end, a bearer token, or a browser that has traded a one-time code for a
// session cookie. It also keeps web pages of strangers out, by the Host and
// Origin of a request. It knows nothing of routes but which are open to all.
package access

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/tokens"
	"cloudflash/api/problem"

	"golang.org/x/time/rate"
)

// SessionCookie is the name of a logged-in browser's cookie.
const SessionCookie = "cloudflash_session"

// Tokens is what access needs of the agent.
type Tokens interface {
	Authenticate(secret string) (agent.Token, error)
	NewSession(role string) (secret string, life time.Duration, err error)
	Revoke(ref string) error
}

// Caller is who makes a request.
type Caller struct {
	Name string
	Role string // tokens.RoleAdmin or tokens.RoleViewer
	Via  string // socket, token or session

	secret string // to ask again while a stream runs; empty for a socket
}

// Access wraps the API.
type Access struct {
	tokens Tokens
	hosts  []string // names this agent answers to, beside loopback
	secure bool     // cookies go over TLS only
	codes  *codes
	// failures slows down guessing: 256-bit secrets cannot be guessed, but a
	// client that tries costs a log line and a hash each time.
	failures *rate.Limiter
}

// New makes the guard. Hosts are names, without port, that requests over TCP may
// be addressed to beside localhost and loopback addresses. Secure marks cookies
// for TLS only.
func New(t Tokens, hosts []string, secure bool) *Access {
	return &Access{tokens: t, hosts: hosts, secure: secure, codes: newCodes(), failures: rate.NewLimiter(10, 50)}
}

type callerKey struct{}

// FromContext is who made the request.
func FromContext(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Wrap lets through only requests that may be made.
func (a *Access) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, p := a.check(r)
		if p != nil {
			if p.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="cloudflash"`)
			}
			problem.Write(w, r, p)
			return
		}
		ctx := r.Context()
		if caller.Via != "" {
			ctx = context.WithValue(ctx, callerKey{}, caller)
		}
		if caller.secret != "" {
			var stop func()
			ctx, stop = a.watch(ctx, caller.secret)
			defer stop()
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// recheckEvery is how soon a stream ends whose token has been revoked.
const recheckEvery = 15 * time.Second

// watch ends the context of a request that outlives its token or session. Short
// requests cost no more than a timer that never fires.
func (a *Access) watch(parent context.Context, secret string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	var timer *time.Timer
	armed := make(chan struct{})
	timer = time.AfterFunc(recheckEvery, func() {
		<-armed // timer is set
		if _, err := a.tokens.Authenticate(secret); err != nil {
			cancel()
			return
		}
		if ctx.Err() == nil {
			timer.Reset(recheckEvery)
		}
	})
	close(armed)
	return ctx, func() { cancel(); timer.Stop() }
}

func (a *Access) check(r *http.Request) (Caller, *problem.Problem) {
	if c, ok := peerOf(r.Context()); ok { // a browser cannot reach a Unix socket
		if c.Role == "" {
			return Caller{}, problem.New(http.StatusForbidden, "not_permitted", "this user may not use the agent's socket", "run as root, or join the group cloudflash")
		}
		return c, nil
	}
	if !a.isOurs(r.Host) {
		return Caller{}, problem.New(http.StatusMisdirectedRequest, "wrong_host", "this agent does not answer to the host name "+quoteHost(r.Host), "use localhost, or name it with serve --host-names")
	}
	if p := a.checkOrigin(r); p != nil {
		return Caller{}, p
	}
	if isOpen(r) {
		return Caller{}, nil
	}
	caller, err := a.authenticate(r)
	if err != nil {
		if !a.failures.Allow() {
			return Caller{}, problem.New(http.StatusTooManyRequests, "too_many_failures", "too many failed logins, wait a moment", "")
		}
		return Caller{}, problem.From(err)
	}
	if caller.Role != tokens.RoleAdmin && !isLook(r) && r.URL.Path != "/api/v1/logout" {
		return Caller{}, problem.New(http.StatusForbidden, "read_only", "a viewer may only look", "use a token of role admin")
	}
	return caller, nil
}

// isLook reports whether a request changes nothing. A WebSocket does, all but the
// one that only tells.
func isLook(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && (!upgrades(r) || r.URL.Path == "/api/v1/stream")
}

// isOpen names what needs no login: health and metrics for monitors on this
// host, the dashboard's own files, and the login itself. It looks at the path as
// a lenient router might, so that no spelling of an API path passes for a file.
func isOpen(r *http.Request) bool {
	p := strings.ToLower(path.Clean("/" + r.URL.Path))
	switch p {
	case "/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/openapi.yaml":
		return isLocal(r.RemoteAddr)
	case "/api/v1/login":
		return r.Method == http.MethodPost
	}
	return p != "/api" && !strings.HasPrefix(p, "/api/") && !strings.HasPrefix(p, "/openapi")
}

// isLocal reports whether a peer's address is on this host.
func isLocal(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// isOurs refuses names that a hostile page could have made to point at loopback
// (DNS rebinding).
func (a *Access) isOurs(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.Trim(name, "[]"))
	if name == "localhost" || slices.Contains(a.hosts, name) {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}

// checkOrigin refuses what another site's page sends: anything that changes
// something, and WebSockets, which browsers open to everywhere.
func (a *Access) checkOrigin(r *http.Request) *problem.Problem {
	safe := (r.Method == http.MethodGet || r.Method == http.MethodHead) && !upgrades(r)
	origin := r.Header.Get("Origin")
	if safe || origin == "" && !isCrossSite(r) {
		return nil
	}
	if u, err := url.Parse(origin); err == nil && origin != "" && strings.EqualFold(u.Host, r.Host) {
		return nil
	}
	return problem.New(http.StatusForbidden, "foreign_origin", "requests from pages of other sites are refused", "")
}

// upgrades reports whether a request asks for a WebSocket. Upgrade is a list.
func upgrades(r *http.Request) bool {
	return strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Upgrade"), ",")), "websocket")
}

func isCrossSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "same-origin" && site != "none"
}

func (a *Access) authenticate(r *http.Request) (Caller, error) {
	via, secret := "token", ""
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, rest, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return Caller{}, unauthorised("bad_token", "only Bearer authorisation is understood")
		}
		secret = strings.TrimSpace(rest)
	} else if c, err := r.Cookie(SessionCookie); err == nil {
		via, secret = "session", c.Value
	}
	if secret == "" {
		return Caller{}, unauthorised("login_required", "log in first")
	}
	t, err := a.tokens.Authenticate(secret)
	if err != nil {
		return Caller{}, err
	}
	if (t.Kind == "session") != (via == "session") {
		return Caller{}, unauthorised("bad_token", "a session is for cookies, a token for the Authorization header")
	}
	return Caller{Name: t.Name, Role: t.Role, Via: via, secret: secret}, nil
}

func unauthorised(code, detail string) error {
	return problem.New(http.StatusUnauthorized, code, detail, "cloudflash login prints a link for a browser; cloudflash token create makes a token")
}

// NewCode makes a one-time code for a browser.
func (a *Access) NewCode(role string) (code string, expires time.Time) { return a.codes.add(role) }

// Redeem trades a code for the cookie of a session.
func (a *Access) Redeem(code string) (*http.Cookie, error) {
	role, ok := a.codes.take(code)
	if !ok {
		if !a.failures.Allow() {
			return nil, problem.New(http.StatusTooManyRequests, "too_many_failures", "too many failed logins, wait a moment", "")
		}
		return nil, unauthorised("bad_code", "the code is unknown, used or expired")
	}
	secret, life, err := a.tokens.NewSession(role)
	if err != nil {
		return nil, err
	}
	return &http.Cookie{
		Name:     SessionCookie,
		Value:    secret,
		Path:     "/",
		MaxAge:   int(life.Seconds()), // the browser's clock may differ
		HttpOnly: true,
		Secure:   a.secure,
		SameSite: http.SameSiteStrictMode,
	}, nil
}

// Forget ends a session.
func (a *Access) Forget(secret string) error {
	t, err := a.tokens.Authenticate(secret)
	if err != nil {
		if errors.Is(err, fault.ErrAuth) {
			return nil // over already
		}
		return err
	}
	return a.tokens.Revoke(t.ID)
}

func quoteHost(h string) string {
	if len(h) > 100 {
		h = h[:100] + "…"
	}
	return `"` + strings.Map(func(r rune) rune {
		if r < 0x20 || r == '"' || r == 0x7f {
			return '?'
		}
		return r
	}, h) + `"`
}

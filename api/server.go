package api

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"cloudflash/api/problem"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

// Options is what the API is put together from.
type Options struct {
	Log     *slog.Logger
	Version string
	Login   Login        // one-time codes for browsers
	Stream  http.Handler // WebSocket at /api/v1/stream
	SSE     http.Handler // its twin at /api/v1/stream/sse
	Metrics http.Handler // /metrics
	Web     http.Handler // everything that is no route of ours
	// Observe counts a request; route is the pattern, never the raw path.
	Observe func(method, route string, status int, took time.Duration)
}

type server struct {
	agent Agent
	opts  Options
	huma  huma.API
	gin   *gin.Engine
}

// New makes the handler of the whole API.
func New(a Agent, opts Options) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.RedirectTrailingSlash = false
	_ = engine.SetTrustedProxies(nil) // nil is always accepted
	s := &server{agent: a, opts: opts, gin: engine}
	engine.Use(s.requestID, s.observe, s.recover, s.awaitReady)
	engine.NoRoute(s.noRoute)
	engine.NoMethod(func(c *gin.Context) {
		s.refuse(c, problem.New(http.StatusMethodNotAllowed, "method_not_allowed",
			c.Request.Method+" is not allowed on "+c.Request.URL.Path, "allowed: "+c.Writer.Header().Get("Allow")))
	})
	config := huma.DefaultConfig("CloudFlash", opts.Version)
	config.Info.Description = "VMs that are cgroup slices, cloudlets that are real processes, on one Linux host."
	config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", nil
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":   {Type: "http", Scheme: "bearer"},
		"session": {Type: "apiKey", In: "cookie", Name: "cloudflash_session"},
	}
	config.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	huma.NewError = newError
	s.huma = humagin.New(engine, config)
	s.routes()
	return engine
}

// newError gives huma's own errors, mostly of validation, our form.
func newError(status int, msg string, errs ...error) huma.StatusError {
	p := problem.New(status, codeOf(status), msg, "")
	for _, err := range errs {
		if err == nil {
			continue
		}
		f := problem.Field{Detail: err.Error()}
		if d, ok := err.(huma.ErrorDetailer); ok {
			detail := d.ErrorDetail()
			f.Pointer, f.Detail = pointer(detail.Location), detail.Message
		}
		p.Errors = append(p.Errors, f)
	}
	if len(p.Errors) > 0 {
		first := p.Errors[0]
		p.Detail = strings.TrimSpace(strings.TrimLeft(first.Pointer, "/?") + " " + first.Detail)
	}
	return p
}

// pointer turns body.io.wbps into /io/wbps and query.limit into ?limit.
func pointer(location string) string {
	where, rest, _ := strings.Cut(location, ".")
	switch where {
	case "body":
		if rest == "" {
			return ""
		}
		return "/" + strings.NewReplacer(".", "/", "[", "/", "]", "").Replace(rest)
	case "query":
		return "?" + rest
	}
	return rest
}

func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "malformed"
	case http.StatusUnprocessableEntity:
		return "invalid"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	case http.StatusUnsupportedMediaType:
		return "unsupported_media_type"
	case http.StatusNotAcceptable:
		return "not_acceptable"
	case http.StatusRequestTimeout:
		return "timeout"
	}
	return "internal"
}

// fail is what every handler returns for an error.
func (s *server) fail(err error) error {
	p := problem.From(err)
	if p.Status >= http.StatusInternalServerError && p.Code == "internal" {
		s.opts.Log.Error("request failed", "err", err)
	}
	return p
}

func (s *server) refuse(c *gin.Context, p *problem.Problem) {
	problem.Write(c.Writer, c.Request, p)
	c.Abort()
}

func (s *server) requestID(c *gin.Context) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	c.Header("X-Request-Id", hex.EncodeToString(b[:]))
	c.Header("X-Content-Type-Options", "nosniff")
	c.Next()
}

func (s *server) observe(c *gin.Context) {
	began := time.Now()
	c.Next()
	route := c.FullPath()
	if route == "" {
		route = "other"
	}
	took := time.Since(began)
	if s.opts.Observe != nil {
		s.opts.Observe(c.Request.Method, route, c.Writer.Status(), took)
	}
	s.opts.Log.Debug("request", "method", c.Request.Method, "path", c.Request.URL.Path, "status", c.Writer.Status(),
		"took", took, "request_id", c.Writer.Header().Get("X-Request-Id"))
}

// readyWait is how long a request waits for recovery to finish.
const readyWait = 10 * time.Second

// awaitReady holds requests back until the agent knows what it has.
func (s *server) awaitReady(c *gin.Context) {
	if !strings.HasPrefix(c.Request.URL.Path, base) || s.isReady() {
		return
	}
	select {
	case <-s.agent.Ready():
	case <-c.Request.Context().Done():
	case <-time.After(readyWait):
	}
	if !s.isReady() {
		c.Header("Retry-After", "1")
		s.refuse(c, problem.New(http.StatusServiceUnavailable, "recovering", "the agent is still finding out what runs", "try again in a moment"))
	}
}

// recover answers a panic with 500 and logs it; the client learns nothing of it.
func (s *server) recover(c *gin.Context) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler {
			panic(v)
		}
		s.opts.Log.Error("panic in a request", "panic", v, "path", c.Request.URL.Path, "stack", stack())
		if !c.Writer.Written() {
			s.refuse(c, problem.New(http.StatusInternalServerError, "internal", "internal error; the agent's log has the cause", ""))
		}
	}()
	c.Next()
}

// noRoute serves the dashboard, and a problem for what looks like the API.
func (s *server) noRoute(c *gin.Context) {
	path := c.Request.URL.Path
	if s.opts.Web != nil && !strings.HasPrefix(path, "/api/") && path != "/api" {
		c.Status(http.StatusOK) // gin has set 404 before asking us
		s.opts.Web.ServeHTTP(c.Writer, c.Request)
		return
	}
	s.refuse(c, problem.New(http.StatusNotFound, "no_such_route", "there is nothing at "+path, "GET /openapi.json lists all routes"))
}

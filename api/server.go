package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
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
	// Guard decides who may ask. Given here and not wrapped around the handler,
	// its refusals have a request id and are logged and counted. nil: everybody.
	Guard func(next http.Handler) http.Handler
}

type server struct {
	parts Parts
	opts  Options
	huma  huma.API
	gin   *gin.Engine
}

// New makes the handler of the whole API. The http.Server's ReadTimeout is the time that a
// request may take to arrive.
func New(parts Parts, opts Options) http.Handler {
	s := newServer(parts, opts)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead { // answered as GET; net/http drops the body
			r = r.WithContext(context.WithValue(r.Context(), headKey{}, true))
			r.Method = http.MethodGet
		}
		s.gin.ServeHTTP(w, r)
	})
}

type headKey struct{}

// isHead tells that nobody wants the body.
func isHead(ctx context.Context) bool { return ctx.Value(headKey{}) != nil }

func newServer(parts Parts, opts Options) *server {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.RedirectTrailingSlash = false
	_ = engine.SetTrustedProxies(nil) // nil is always accepted
	s := &server{parts: parts, opts: opts, gin: engine}
	engine.Use(whole, s.requestID, s.observe, s.recover, s.guard, s.awaitReady)
	engine.NoRoute(s.noRoute)
	engine.NoMethod(s.noMethod)
	s.huma = humagin.New(engine, s.config())
	s.routes()
	schemas := s.huma.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel") // huma's own, which is never sent
	delete(schemas, "ErrorDetail")
	return s
}

func (s *server) config() huma.Config {
	config := huma.DefaultConfig("CloudFlash", s.opts.Version)
	config.Info.Description = "VMs that are cgroup slices, cloudlets that are real processes, on one Linux host."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	format := huma.Format{Marshal: s.marshal, Unmarshal: json.Unmarshal}
	config.Formats = map[string]huma.Format{"application/json": format, "json": format} // json: for +json
	config.Transformers = []huma.Transformer{s.ourProblem}
	config.RejectUnknownQueryParameters = true
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":   {Type: "http", Scheme: "bearer"},
		"session": {Type: "apiKey", In: "cookie", Name: "cloudflash_session"},
	}
	config.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	return config
}

// marshal writes an answer. huma panics when the client hangs up, and has sent
// 200 when it finds that a value has no JSON, such as NaN.
func (s *server) marshal(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		c, ok := w.(gin.ResponseWriter)
		if !ok {
			return err
		}
		s.opts.Log.Error("marshal answer", "type", fmt.Sprintf("%T", v), "err", err, "request_id", c.Header().Get("X-Request-Id"))
		panic(errUnspeakable)
	}
	_, _ = w.Write(b.Bytes()) // the client is gone: nobody to tell
	return nil
}

var errUnspeakable = errors.New("an answer has no JSON")

// ourProblem gives huma's own errors, of parameters, our form, and puts into
// every problem what only the request knows.
func (s *server) ourProblem(ctx huma.Context, _ string, v any) (any, error) {
	var p problem.Problem
	switch e := v.(type) {
	case *huma.ErrorModel:
		p = *fromHuma(e)
	case *problem.Problem:
		p = *e
	default:
		return v, nil
	}
	u := ctx.URL()
	p.Instance, p.RequestID = u.Path, humagin.Unwrap(ctx).Writer.Header().Get("X-Request-Id")
	return &p, nil
}

func fromHuma(m *huma.ErrorModel) *problem.Problem {
	var fields []problem.Field
	for _, d := range m.Errors {
		if d != nil {
			fields = append(fields, problem.Field{Pointer: pointer(d.Location), Detail: d.Message})
		}
	}
	if len(fields) > 0 && m.Status == http.StatusUnprocessableEntity {
		return refuseFields(codeOf(m.Status), fields)
	}
	p := problem.New(m.Status, codeOf(m.Status), m.Detail, "")
	p.Errors = fields
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

func (s *server) refuse(c *gin.Context, p *problem.Problem) {
	problem.Write(c.Writer, c.Request, p)
	c.Abort()
}

type requestIDKey struct{}

func requestIDOf(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// goodRequestID is a client's own id that is repeated.
var goodRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (s *server) requestID(c *gin.Context) {
	id := c.GetHeader("X-Request-Id")
	if !goodRequestID.MatchString(id) {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails since Go 1.24
		id = hex.EncodeToString(b[:])
	}
	c.Header("X-Request-Id", id)
	c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), requestIDKey{}, id))
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

// guard asks Options.Guard, which goes on by calling its next.
func (s *server) guard(c *gin.Context) {
	if s.opts.Guard == nil {
		return
	}
	passed := false
	s.opts.Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.Request, passed = r, true
		c.Next()
	})).ServeHTTP(c.Writer, c.Request)
	if !passed {
		c.Abort()
	}
}

// readyWait is how long a request waits for recovery to finish.
const readyWait = 10 * time.Second

// awaitReady holds requests back until the agent knows what it has.
func (s *server) awaitReady(c *gin.Context) {
	if !strings.HasPrefix(c.Request.URL.Path, base) || s.isReady() {
		return
	}
	select {
	case <-s.parts.Host.Ready():
	case <-c.Request.Context().Done():
	case <-time.After(readyWait):
	}
	if !s.isReady() {
		c.Header("Retry-After", "1")
		s.refuse(c, problem.New(http.StatusServiceUnavailable, "recovering", "the agent is still finding out what runs", "try again in a moment"))
	}
}

// recover answers a panic with 500 and logs it; the client learns nothing of it.
// Where an answer has begun, the connection is broken: half must not pass for
// whole.
func (s *server) recover(c *gin.Context) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
		s.opts.Log.Error("panic in a request", "panic", v, "path", c.Request.URL.Path,
			"request_id", c.Writer.Header().Get("X-Request-Id"), "stack", stack())
		if c.Writer.Written() {
			panic(http.ErrAbortHandler)
		}
		s.refuse(c, problem.New(http.StatusInternalServerError, "internal", "internal error; the agent's log has the cause", ""))
	}()
	c.Next()
}

// noRoute sends users of old paths on, serves the dashboard, and answers a
// problem to what looks like the API.
func (s *server) noRoute(c *gin.Context) {
	path := c.Request.URL.Path
	if to, ok := moved(path); ok {
		target := *c.Request.URL
		target.Path, target.RawPath = to, ""
		c.Redirect(http.StatusPermanentRedirect, target.RequestURI())
		return
	}
	if s.opts.Web == nil || path == "/api" || strings.HasPrefix(path, "/api/") {
		s.refuse(c, problem.New(http.StatusNotFound, "no_such_route", "there is nothing at "+path, "GET /openapi.json lists all routes"))
		return
	}
	if c.Request.Method != http.MethodGet {
		c.Header("Allow", "GET, HEAD")
		s.refuseMethod(c)
		return
	}
	c.Status(http.StatusOK) // gin has set 404 before asking us
	s.opts.Web.ServeHTTP(c.Writer, c.Request)
}

// noMethod answers 405; gin has set Allow.
func (s *server) noMethod(c *gin.Context) {
	if allow := c.Writer.Header().Get("Allow"); strings.Contains(allow, http.MethodGet) {
		c.Header("Allow", allow+", "+http.MethodHead)
	}
	s.refuseMethod(c)
}

func (s *server) refuseMethod(c *gin.Context) {
	s.refuse(c, problem.New(http.StatusMethodNotAllowed, "method_not_allowed",
		c.Request.Method+" is not allowed on "+c.Request.URL.Path, "allowed: "+c.Writer.Header().Get("Allow")))
}

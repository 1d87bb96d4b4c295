package api

import (
	"context"
	"net/http"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"

	"cloudflash/agent"
	"cloudflash/agent/pages"
	"cloudflash/api/problem"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
)

const base = "/api/v1"

// routes is the whole API on one screen.
func (s *server) routes() {
	add(s, "GET", base+"/vms", "List VMs", 200, s.listVMs)
	withBody(s, "POST", base+"/vms", "Create a VM; it runs when the answer comes", 201, s.createVM)
	add(s, "GET", base+"/vms/{ref}", "Show a VM, by id or name", 200, s.showVM)
	withBody(s, "PATCH", base+"/vms/{ref}", "Resize a VM live; fields left out stay", 200, s.changeVM)
	add(s, "DELETE", base+"/vms/{ref}", "Delete a VM and its data", 202, s.deleteVM)
	add(s, "POST", base+"/vms/{ref}/actions/freeze", "Freeze all cloudlets of a VM", 200, s.freezeVM)
	add(s, "POST", base+"/vms/{ref}/actions/thaw", "Let a frozen VM run on", 200, s.thawVM)

	add(s, "GET", base+"/cloudlets", "List cloudlets, newest first", 200, s.listCloudlets)
	withBody(s, "POST", base+"/cloudlets", "Submit a cloudlet, or submit it and wait until it has ended", 201, s.submitCloudlet)
	add(s, "GET", base+"/cloudlets/{ref}", "Show a cloudlet, or wait until it has ended", 200, s.showCloudlet)
	add(s, "DELETE", base+"/cloudlets/{ref}", "Cancel a cloudlet", 202, s.cancelCloudlet)
	add(s, "GET", base+"/cloudlets/{ref}/output", "Read or follow what a cloudlet writes", 200, s.readOutput)

	add(s, "GET", base+"/events", "List events, oldest first; with Accept: text/event-stream, follow them", 200, s.listEvents)
	add(s, "GET", base+"/host", "Show the host", 200, s.showHost)
	add(s, "GET", base+"/host/checks", "Check what the host supports and whether the agent is well", 200, s.checkHost)
	add(s, "GET", vmMetricsPath, "Show what a VM has used over time", 200, s.vmMetrics)
	add(s, "GET", hostMetricsPath, "Show what the host has used over time", 200, s.hostMetrics)
	s.documentHistory()
	add(s, "GET", base+"/memory", "Show what the host's pages are used for", 200, s.showMemory)
	add(s, "GET", base+"/memory/map", "Draw a part of the map of pages, down to single ones", 200, s.showMemoryMap)
	add(s, "GET", base+"/memory/owners", "List who has pages: VMs, what deleted ones left, the host", 200, s.listMemoryOwners)
	add(s, "GET", base+"/memory/owners/{ref}/processes", "List the processes of a VM by their memory", 200, s.listMemoryProcesses)
	add(s, "GET", base+"/memory/owners/{ref}/processes/{pid}", "Show the mappings of one process of a VM", 200, s.showMemoryProcess)
	add(s, "POST", base+"/memory/scan", "Scan all pages now, at the speed of one core", 202, s.scanMemory)
	add(s, "DELETE", base+"/memory/scan", "Cancel the full scan that is under way", 204, s.cancelMemoryScan)
	add(s, "GET", base+"/recommendations", "List what is advised for VMs and found out about them and the host", 200, s.listAdvice)
	add(s, "GET", base+"/recommendations/{ref}", "Show what is advised for a VM, or found out about the host", 200, s.showAdvice)
	mayBody(s, "POST", base+"/recommendations/{ref}/actions/apply", "Give a VM what is advised, or of the named resources", 200, s.takeAdvice)
	add(s, "POST", base+"/recommendations/{ref}/actions/undo", "Give a VM back what it had before advice was taken", 200, s.undoAdvice)
	add(s, "GET", base+"/autoscale/policy", "Show how limits are scaled, on the host or of a VM, and where each value comes from", 200, s.showPolicy)
	withBody(s, "PUT", base+"/autoscale/policy", "Replace what was set for the host or for a VM; what is left out takes the value of the layer below", 200, s.setPolicy)
	add(s, "GET", base+"/autoscale/status", "Show how autoscaling and idle clean-up stand", 200, s.showScaling)
	add(s, "GET", base+"/autoscale/events", "List decisions, oldest first; with Accept: text/event-stream, follow them", 200, s.listDecisions)
	documentFeed[agent.Event](s, base+"/events")
	documentFeed[agent.Decision](s, base+"/autoscale/events")
	add(s, "GET", base+"/operations", "List operations, newest first", 200, s.listOperations)
	add(s, "GET", base+"/operations/{id}", "Show an operation, or wait until it has ended", 200, s.showOperation)
	add(s, "GET", base+"/tokens", "List tokens and browser sessions", 200, s.listTokens)
	withBody(s, "POST", base+"/tokens", "Create a token; its secret is shown once", 201, s.createToken)
	add(s, "DELETE", base+"/tokens/{ref}", "Revoke a token", 204, s.revokeToken)
	withBody(s, "POST", base+"/login/codes", "Make a one-time code for a browser", 201, s.createCode)
	withBody(s, "POST", base+"/login", "Trade a one-time code for a session cookie", 204, s.login)
	add(s, "POST", base+"/logout", "End the browser's session", 204, s.logout)
	add(s, "GET", base+"/session", "Show who asks: name and role", 200, s.showSession)

	raw(s, base+"/vms/{ref}/exec", "Run a command in a VM over a WebSocket: input, output, terminal", s.exec, switching...)
	raw(s, base+"/stream", "Follow host, vms, cloudlets, events and decisions over a WebSocket", plain(s.opts.Stream), switching...)
	raw(s, base+"/stream/sse", "The same as server-sent events; ?topics=host,vms", plain(s.opts.SSE), rawAnswer{200, "text/event-stream"})
	raw(s, "/health", "Is the agent well? 503 and the reasons when not", plain(http.HandlerFunc(s.health)), wellOrNot...)
	raw(s, "/livez", "Does the process answer?", plain(http.HandlerFunc(s.livez)), rawAnswer{200, "application/json"})
	raw(s, "/readyz", "Has recovery finished?", plain(http.HandlerFunc(s.readyz)), wellOrNot...)
	raw(s, "/metrics", "Prometheus metrics", plain(s.opts.Metrics), rawAnswer{200, "text/plain"})
	raw(s, "/openapi.json", "This document", plain(http.HandlerFunc(s.openAPI)), rawAnswer{200, "application/openapi+json"})
	s.documentContent(base+"/cloudlets/{ref}/output", map[string]*huma.MediaType{"text/plain": {Schema: textSchema}})
	s.documentContent(base+"/memory/map", map[string]*huma.MediaType{
		"application/json":         {Schema: s.schemaOf(reflect.TypeFor[pages.MemoryMap]())},
		"application/octet-stream": {},
	})
	s.allowNull()
}

// rawAnswer is how a raw route answers with a status.
type rawAnswer struct {
	status int
	kind   string // media type
}

var (
	switching = []rawAnswer{{http.StatusSwitchingProtocols, ""}}
	wellOrNot = []rawAnswer{{200, "application/json"}, {http.StatusServiceUnavailable, "application/json"}}

	textSchema = &huma.Schema{Type: huma.TypeString}
)

func (s *server) schemaOf(t reflect.Type) *huma.Schema {
	return s.huma.OpenAPI().Components.Schemas.Schema(t, true, "")
}

// documentContent describes the answers of a route that huma only passes on.
func (s *server) documentContent(path string, content map[string]*huma.MediaType) {
	s.huma.OpenAPI().Paths[path].Get.Responses["200"].Content = content
}

// allowNull says of pointers to structs that they may be null, where they are not left out
// then: huma says so of other pointers only.
func (s *server) allowNull() {
	schemas := s.huma.OpenAPI().Components.Schemas
	for name, schema := range schemas.Map() {
		t := schemas.TypeFromRef("#/components/schemas/" + name)
		if t == nil || t.Kind() != reflect.Struct {
			continue
		}
		for _, f := range fieldsOf(t) {
			p := schema.Properties[jsonName(f)]
			isPointer := f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Struct
			if p == nil || p.Ref == "" || !isPointer || strings.Contains(f.Tag.Get("json"), ",omit") {
				continue
			}
			null := &huma.Schema{Type: "null"}
			schema.Properties[jsonName(f)] = &huma.Schema{AnyOf: []*huma.Schema{p, null}, Description: p.Description}
		}
	}
}

// add registers a typed route without a body; its parameters are documented
// from their types. Types that are embedded must be exported: huma passes over
// others without a word.
func add[I, O any](s *server, method, path, summary string, status int, handle func(context.Context, *I) (*O, error)) {
	huma.Register(s.huma, s.operation(method, path, summary, status), func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		return out, s.refusal(ctx, err)
	})
}

// withBody registers a typed route that takes a JSON body as well. huma only
// documents the body: its decoder takes CPUS for cpus, null for absent and the
// last of two equal names.
func withBody[I, B, O any](s *server, method, path, summary string, status int, handle func(context.Context, *I, *B) (*O, error)) {
	register(s, method, path, summary, status, true, handle)
}

// mayBody is withBody for a body that may be left out.
func mayBody[I, B, O any](s *server, method, path, summary string, status int, handle func(context.Context, *I, *B) (*O, error)) {
	register(s, method, path, summary, status, false, handle)
}

func register[I, B, O any](s *server, method, path, summary string, status int, required bool, handle func(context.Context, *I, *B) (*O, error)) {
	op := s.operation(method, path, summary, status)
	op.Middlewares = huma.Middlewares{takeBody}
	huma.Register(s.huma, op, func(ctx context.Context, in *I) (*O, error) {
		body := new(B)
		if raw := bodyOf(ctx); required || len(raw) > 0 {
			if err := decode(raw, body); err != nil {
				return nil, err
			}
		}
		out, err := handle(ctx, in, body)
		return out, s.refusal(ctx, err)
	})
	schema := s.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[B](), true, "")
	request := &huma.RequestBody{Required: required, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
	item := s.huma.OpenAPI().Paths[path]
	switch method {
	case http.MethodPatch:
		request.Content["application/merge-patch+json"] = &huma.MediaType{Schema: schema}
		item.Patch.RequestBody = request
	case http.MethodPut:
		item.Put.RequestBody = request
	default:
		item.Post.RequestBody = request
	}
}

// refusal makes a problem of an error. What the client is not told goes to the log.
func (s *server) refusal(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	p := problem.From(err)
	if p.Code == "internal" && ctx.Err() == nil { // else the client is gone, and took the work with it
		s.opts.Log.Error("request failed", "err", err, "request_id", requestIDOf(ctx))
	}
	return p
}

// raw registers a route that answers in its own way.
func raw(s *server, path, summary string, h gin.HandlerFunc, answers ...rawAnswer) {
	if h == nil {
		return
	}
	s.gin.GET(strings.NewReplacer("{", ":", "}", "").Replace(path), h)
	op := s.operation("GET", path, summary, answers[0].status)
	for _, a := range answers {
		r := &huma.Response{Description: http.StatusText(a.status)}
		if a.kind != "" {
			r.Content = map[string]*huma.MediaType{a.kind: {}}
		}
		op.Responses[strconv.Itoa(a.status)] = r
	}
	s.huma.OpenAPI().AddOperation(&op)
}

func plain(h http.Handler) gin.HandlerFunc {
	if h == nil {
		return nil
	}
	return gin.WrapH(h)
}

func (s *server) operation(method, path, summary string, status int) huma.Operation {
	schema := s.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[problem.Problem](), true, "")
	return huma.Operation{Method: method, Path: path, Summary: summary, OperationID: operationID(method, path), DefaultStatus: status, Tags: []string{tag(path)},
		Responses: map[string]*huma.Response{"default": {Description: "Refused or failed",
			Content: map[string]*huma.MediaType{problem.ContentType: {Schema: schema}}}}}
}

func (s *server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_ = s.marshal(w, s.huma.OpenAPI())
}

// moved tells where a path of the original is now. 308 keeps method and body.
func moved(path string) (string, bool) {
	for from, to := range map[string]string{"/api/vms": base + "/vms", "/api/cloudlets": base + "/cloudlets", "/api/metrics": "/metrics"} {
		if rest, ok := strings.CutPrefix(path, from); ok && (rest == "" || rest[0] == '/') {
			return to + rest, true
		}
	}
	return "", false
}

func operationID(method, path string) string {
	name := strings.NewReplacer(base, "", "{", "", "}", "", "/", "-").Replace(path)
	return strings.ToLower(method) + name
}

func tag(path string) string {
	rest, ok := strings.CutPrefix(path, base+"/")
	if !ok {
		return "health"
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func stack() string { return string(debug.Stack()) }

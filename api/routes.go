package api

import (
	"context"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
)

const base = "/api/v1"

// routes is the whole API on one screen.
func (s *server) routes() {
	add(s, "GET", base+"/vms", "List VMs", 200, s.listVMs)
	add(s, "POST", base+"/vms", "Create a VM; it runs when the answer comes", 201, s.createVM)
	add(s, "GET", base+"/vms/{ref}", "Show a VM, by id or name", 200, s.showVM)
	add(s, "PATCH", base+"/vms/{ref}", "Resize a VM live; fields left out stay", 200, s.changeVM)
	add(s, "DELETE", base+"/vms/{ref}", "Delete a VM and its data", 202, s.deleteVM)
	add(s, "POST", base+"/vms/{ref}/actions/freeze", "Freeze all cloudlets of a VM", 200, s.freezeVM)
	add(s, "POST", base+"/vms/{ref}/actions/thaw", "Let a frozen VM run on", 200, s.thawVM)

	add(s, "GET", base+"/cloudlets", "List cloudlets, newest first", 200, s.listCloudlets)
	add(s, "POST", base+"/cloudlets", "Submit a cloudlet", 201, s.submitCloudlet)
	add(s, "GET", base+"/cloudlets/{ref}", "Show a cloudlet, or wait until it has ended", 200, s.showCloudlet)
	add(s, "DELETE", base+"/cloudlets/{ref}", "Cancel a cloudlet", 202, s.cancelCloudlet)
	add(s, "GET", base+"/cloudlets/{ref}/output", "Read or follow what a cloudlet writes", 200, s.readOutput)

	add(s, "GET", base+"/events", "List events, oldest first; with Accept: text/event-stream, follow them", 200, s.listEvents)
	add(s, "GET", base+"/host", "Show the host", 200, s.showHost)
	add(s, "GET", base+"/host/checks", "Check what the host supports and whether the agent is well", 200, s.checkHost)
	add(s, "GET", base+"/operations", "List operations, newest first", 200, s.listOperations)
	add(s, "GET", base+"/operations/{id}", "Show an operation, or wait until it has ended", 200, s.showOperation)
	add(s, "GET", base+"/tokens", "List tokens and browser sessions", 200, s.listTokens)
	add(s, "POST", base+"/tokens", "Create a token; its secret is shown once", 201, s.createToken)
	add(s, "DELETE", base+"/tokens/{ref}", "Revoke a token", 204, s.revokeToken)
	add(s, "POST", base+"/login/codes", "Make a one-time code for a browser", 201, s.createCode)
	add(s, "POST", base+"/login", "Trade a one-time code for a session cookie", 204, s.login)
	add(s, "POST", base+"/logout", "End the browser's session", 204, s.logout)

	raw(s, base+"/stream", "Follow host, vms, cloudlets and events over a WebSocket", s.opts.Stream)
	raw(s, base+"/stream/sse", "The same as server-sent events; ?topics=host,vms", s.opts.SSE)
	raw(s, "/health", "Is the agent well? 503 and the reasons when not", http.HandlerFunc(s.health))
	raw(s, "/livez", "Does the process answer?", http.HandlerFunc(s.livez))
	raw(s, "/readyz", "Has recovery finished?", http.HandlerFunc(s.readyz))
	raw(s, "/metrics", "Prometheus metrics", s.opts.Metrics)
	moved(s, "/api/vms", base+"/vms")
	moved(s, "/api/cloudlets", base+"/cloudlets")
	moved(s, "/api/metrics", "/metrics")
}

// add registers a typed route; its parameters and bodies are documented from
// their types.
func add[I, O any](s *server, method, path, summary string, status int, handle func(context.Context, *I) (*O, error)) {
	huma.Register(s.huma, huma.Operation{Method: method, Path: path, Summary: summary, OperationID: operationID(method, path),
		DefaultStatus: status, Tags: []string{tag(path)}}, handle)
}

// raw registers a route that answers in its own way.
func raw(s *server, path, summary string, h http.Handler) {
	if h == nil {
		return
	}
	s.gin.GET(path, gin.WrapH(h))
	s.huma.OpenAPI().AddOperation(&huma.Operation{Method: "GET", Path: path, Summary: summary, OperationID: operationID("GET", path), Tags: []string{tag(path)},
		Responses: map[string]*huma.Response{"200": {Description: "OK"}}})
}

// moved sends users of the original's paths on. 308 keeps method and body.
func moved(s *server, from, to string) {
	s.gin.Any(from, func(c *gin.Context) {
		target := to
		if q := c.Request.URL.RawQuery; q != "" {
			target += "?" + q
		}
		c.Redirect(http.StatusPermanentRedirect, target)
	})
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

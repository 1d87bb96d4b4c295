package api

import (
	"slices"
	"strings"
	"testing"

	"cloudflash/agent/fault"
)

func TestRecommendationRoutes(t *testing.T) {
	for name, c := range map[string]struct {
		method, target, body string
		status               int
		want                 string
	}{
		"list":                  {"GET", "/recommendations", "", 200, `{"items":[{"vm":"v0","vm_name":"db","template":"postgres","history_seconds":259200,"recommendations":[{"resource":"cpus","spec":2,"lower":0.3,"target":0.5`},
		"list has the host":     {"GET", "/recommendations", "", 200, `"vm":"","vm_name":"host"`},
		"a page":                {"GET", "/recommendations?limit=1", "", 200, `"total":3,"next_page_token":"ey`},
		"of a VM":               {"GET", "/recommendations/web", "", 200, `{"vm":"v1","vm_name":"web","history_seconds":720`},
		"of the host":           {"GET", "/recommendations/host", "", 200, `"findings":[{"kind":"fragmented-host"`},
		"of nobody":             {"GET", "/recommendations/zz", "", 404, `"code":"vm_not_found"`},
		"no such parameter":     {"GET", "/recommendations?x=1", "", 422, `"pointer":"?x"`},
		"apply":                 {"POST", "/recommendations/db/actions/apply", "", 200, `"spec":{"cpus":0.5`},
		"apply, an object":      {"POST", "/recommendations/db/actions/apply", "{}", 200, `"spec":{"cpus":0.5`},
		"apply what":            {"POST", "/recommendations/web/actions/apply", `{"resources":["cpus"]}`, 200, `"id":"v1"`},
		"apply nothing":         {"POST", "/recommendations/web/actions/apply", "", 409, `"code":"nothing_to_apply"`},
		"apply, wrong type":     {"POST", "/recommendations/web/actions/apply", `{"resources":"cpus"}`, 422, `"pointer":"/resources"`},
		"apply, unknown field":  {"POST", "/recommendations/web/actions/apply", `{"resource":["cpus"]}`, 422, `"pointer":"/resource"`},
		"apply, not JSON":       {"POST", "/recommendations/web/actions/apply", `{`, 400, `"code":"malformed"`},
		"apply to nobody":       {"POST", "/recommendations/zz/actions/apply", "", 404, `"code":"vm_not_found"`},
		"undo nothing":          {"POST", "/recommendations/db/actions/undo", "", 409, `"code":"nothing_to_undo"`},
		"apply with GET":        {"GET", "/recommendations/db/actions/apply", "", 405, ""},
		"a long name":           {"GET", "/recommendations/" + strings.Repeat("x", 200), "", 422, `"pointer":"ref"`},
		"apply, more than once": {"POST", "/recommendations/db/actions/apply", `{"resources":["cpus"],"resources":["cpus"]}`, 422, `"pointer":"/resources"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(New(partsOf(newFake(t)), options()), c.method, base+c.target, c.body)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("status %d, want %d with %s: %s", w.Code, c.status, c.want, w.Body)
			}
		})
	}
}

func TestAdviceIsTakenAndUndone(t *testing.T) {
	f := newFake(t)
	h := New(partsOf(f), options())
	w := ask(h, "POST", base+"/recommendations/db/actions/apply", `{"resources":["cpus","memory_bytes"]}`)
	if w.Code != 200 || !slices.Equal(f.Got.Advice, []string{"cpus", "memory_bytes"}) || w.Header().Get("Location") != base+"/vms/v0" {
		t.Errorf("status %d, %q, %v", w.Code, f.Got.Advice, w.Header())
	}
	if w := ask(h, "GET", base+"/recommendations/db", ""); !strings.Contains(w.Body.String(), `"applied":{"at":"0001-01-01T00:00:00Z","from":{"cpus":1,`) {
		t.Errorf("%s", w.Body)
	}
	if w := ask(h, "POST", base+"/recommendations/db/actions/undo", ""); w.Code != 200 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	f.Err = &fault.Error{Kind: fault.ErrConflict, Code: "a_code", Detail: "why"}
	for _, r := range []string{"GET /recommendations", "GET /recommendations/db"} {
		method, path, _ := strings.Cut(r, " ")
		if w := ask(h, method, base+path, ""); w.Code != 409 || !strings.Contains(w.Body.String(), `"code":"a_code"`) {
			t.Errorf("%s: status %d: %s", r, w.Code, w.Body)
		}
	}
}

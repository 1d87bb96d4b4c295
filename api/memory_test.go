package api

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"cloudflash/agent/fault"
	"cloudflash/agent/pages"
	"cloudflash/api/problem"
)

func TestMemoryRoutes(t *testing.T) {
	for name, c := range map[string]struct {
		method, target string
		status         int
		want           string
	}{
		"summary":              {"GET", "/memory", 200, `"total_pages":1536`},
		"map":                  {"GET", "/memory/map", 200, `"pages_per_cell":512`},
		"map of a VM":          {"GET", "/memory/map?from=0&span=1024&cells=2&owner=v0", 200, `"owner":"v0"`},
		"owners":               {"GET", "/memory/owners", 200, `"owners":[{"owner":"v0","name":"db","pages":400`},
		"processes":            {"GET", "/memory/owners/db/processes", 200, `"processes":[{"pid":42`},
		"mappings":             {"GET", "/memory/owners/db/processes/42", 200, `"mappings":[{"start":"1000"`},
		"full scan":            {"POST", "/memory/scan", 202, `"kind":"memory.scan"`},
		"cancel it":            {"DELETE", "/memory/scan", 204, ""},
		"cells":                {"GET", "/memory/map?cells=5000", 422, `"pointer":"?cells","detail":"must be 1 to 4096","min":1,"max":4096`},
		"cells in letters":     {"GET", "/memory/map?cells=many", 422, `"pointer":"?cells"`},
		"from in letters":      {"GET", "/memory/map?from=x", 422, `"pointer":"?from"`},
		"span beyond 64 bits":  {"GET", "/memory/map?span=99999999999999999999", 422, `"pointer":"?span"`},
		"no such parameter":    {"GET", "/memory/map?zoom=1", 422, `"pointer":"?zoom"`},
		"long owner":           {"GET", "/memory/map?owner=" + strings.Repeat("x", 200), 422, `"pointer":"?owner"`},
		"processes of nobody":  {"GET", "/memory/owners/zz/processes", 404, `"code":"vm_not_found"`},
		"process in letters":   {"GET", "/memory/owners/db/processes/x", 422, ""},
		"process out of range": {"GET", "/memory/owners/db/processes/0", 422, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(New(partsOf(newFake(t)), options()), c.method, base+c.target, "")
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("status %d, want %d with %s: %s", w.Code, c.status, c.want, w.Body)
			}
		})
	}
}

func TestMemoryIsRefusedAsWhatItIs(t *testing.T) {
	for _, c := range []struct {
		kind   error
		status int
		after  string
	}{{fault.ErrNotYet, 503, "1"}, {fault.ErrUnsupported, 501, ""}, {fault.ErrConflict, 409, ""}} {
		f := newFake(t)
		f.Err = &fault.Error{Kind: c.kind, Code: "a_code", Detail: "why"}
		for _, r := range []string{"GET /memory", "GET /memory/map", "GET /memory/owners", "POST /memory/scan", "DELETE /memory/scan"} {
			method, path, _ := strings.Cut(r, " ")
			w := ask(New(partsOf(f), options()), method, base+path, "")
			if w.Code != c.status || w.Header().Get("Retry-After") != c.after || w.Header().Get("Content-Type") != problem.ContentType || !strings.Contains(w.Body.String(), `"code":"a_code"`) {
				t.Errorf("%s, %v: status %d, %v: %s", r, c.kind, w.Code, w.Header(), w.Body)
			}
		}
	}
}

// The agent stops looking when the request ends.
func TestMappingsEndWithTheRequest(t *testing.T) {
	type key struct{}
	f := newFake(t)
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), key{}, "mine"), "GET", base+"/memory/owners/db/processes/42", nil)
	var seen any
	f.OnLook = func(ctx context.Context) { seen = ctx.Value(key{}) }
	New(partsOf(f), options()).ServeHTTP(httptest.NewRecorder(), r)
	if seen != "mine" {
		t.Errorf("the agent was asked with another context: %v", seen)
	}
}

func TestBinaryMap(t *testing.T) {
	h := New(partsOf(newFake(t)), options())
	w := ask(h, "GET", base+"/memory/map", "", "Accept", "application/octet-stream")
	b := w.Body.Bytes()
	if w.Header().Get("Content-Type") != "application/octet-stream" || len(b) < mapHeader || string(b[:4]) != "CFM1" {
		t.Fatalf("%v %q", w.Header(), b)
	}
	le := binary.LittleEndian
	n, size := int(le.Uint32(b[4:])), int(le.Uint32(b[8:]))
	if n != 2 || size != mapRecord || le.Uint32(b[12:]) != 4096 || le.Uint64(b[16:]) != 512 || le.Uint64(b[24:]) != 512 || math.Float64frombits(le.Uint64(b[32:])) != float64(epoch.Unix()) {
		t.Errorf("header %v", b[:mapHeader])
	}
	var names []string
	for at := mapHeader + n*size; at < len(b); {
		end := at + 2 + int(le.Uint16(b[at:]))
		names = append(names, string(b[at+2:end]))
		at = end
	}
	if len(names) != int(le.Uint32(b[40:])) || strings.Join(names, ",") != "v0,host" {
		t.Errorf("owners %q", names)
	}
	first, second := b[mapHeader:], b[mapHeader+size:]
	for i, want := range []uint32{100, 412, 100, 0, 0, 0, 7, 64, 400} {
		if got := le.Uint32(first[4*i:]); got != want {
			t.Errorf("field %d is %d, want %d", i, got, want)
		}
	}
	if le.Uint16(first[42:]) != 1 || le.Uint32(first[44:]) != 400 || le.Uint16(first[48:]) != 2 || le.Uint32(first[50:]) != 12 || math.Float32frombits(le.Uint32(first[36:])) != 1.5 {
		t.Errorf("first record %v", first[:size])
	}
	if le.Uint32(second[12:]) != 512 || int16(le.Uint16(second[40:])) != -1 || le.Uint16(second[42:]) != 0 {
		t.Errorf("second record %v", second[:size])
	}
	for accept, binary := range map[string]bool{"": false, "*/*": false, "application/json": false, "application/json, application/octet-stream": false,
		"text/html, application/octet-stream;q=0.9": true, "\x00": false} {
		if got := wantsBinary(accept); got != binary {
			t.Errorf("Accept %q: %v", accept, got)
		}
	}
}

func TestMapRecordsAreSmallerThanJSON(t *testing.T) {
	m := newFake(t).MemoryPicture()
	for len(m.Cells) < 4096 {
		m.Cells = append(m.Cells, m.Cells[0])
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	packed := encodeMap(m)
	t.Logf("4096 cells: %d bytes of JSON, %d packed", len(text), len(packed))
	if len(packed) != mapHeader+4096*mapRecord+2+2+4+2 || len(packed)*3 > len(text) {
		t.Errorf("%d bytes", len(packed))
	}
	huge := pages.MemoryMap{Cells: []pages.MemoryCell{{Free: 1 << 40}}}
	if got := binary.LittleEndian.Uint32(encodeMap(huge)[mapHeader:]); got != math.MaxUint32 {
		t.Errorf("2^40 pages become %d", got)
	}
}

// FuzzMapQuery asks for any part of the map: the answer is a map, or a problem that
// names the parameter.
func FuzzMapQuery(f *testing.F) {
	for _, q := range []string{"from=0&span=1&cells=1", "cells=-1", "from=9223372036854775807&span=9223372036854775807", "from=1e3", "owner=%00", "span=&from=", "cells=4097", "a=b"} {
		f.Add(q)
	}
	fake := newFake(f)
	h := New(partsOf(fake), options())
	f.Fuzz(func(t *testing.T, query string) {
		u := url.URL{Path: base + "/memory/map", RawQuery: query}
		if _, err := url.ParseRequestURI(u.String()); err != nil || strings.ContainsAny(u.String(), " \t\r\n") {
			t.Skip()
		}
		w := ask(h, "GET", u.String(), "")
		var p problem.Problem
		switch w.Code {
		case 200:
		case 400, 404, 422:
			if json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Code == "" || w.Code == 422 && len(p.Errors) == 0 {
				t.Errorf("?%s: %s", query, w.Body)
			}
		default:
			t.Errorf("?%s: status %d: %s", query, w.Code, w.Body)
		}
	})
}

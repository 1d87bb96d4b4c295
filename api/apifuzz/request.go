package apifuzz

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
)

// A Request is what is asked.
type Request struct {
	Method, Target string // the target has its query
	Body           []byte // JSON, or what would be; nil for none
	op             operation
}

// String is the request on one line.
func (q Request) String() string { return fmt.Sprintf("%s %s %.2000s", q.Method, q.Target, q.Body) }

// Request makes the next request. Names are what path parameters may be, beside what is
// not there.
func (d *Document) Request(r *rand.Rand, names []string) Request {
	op := d.operations[r.IntN(len(d.operations))]
	q := Request{Method: op.method, Target: op.path, op: op}
	query := url.Values{}
	for _, p := range op.parameters {
		switch {
		case p.in == "path":
			v := fmt.Sprint(d.value(r, p.schema, 0))
			if r.IntN(10) > 0 {
				v = pick(r, names)
			}
			if v == "" { // it would be another path
				v = "-"
			}
			q.Target = strings.ReplaceAll(q.Target, "{"+p.name+"}", url.PathEscape(v))
		case p.in == "query" && r.IntN(4) == 0:
			query.Set(p.name, fmt.Sprint(d.value(r, p.schema, 0)))
		}
	}
	if len(query) > 0 {
		q.Target += "?" + query.Encode()
	}
	if op.body != nil {
		q.Body = d.body(r, op.body)
	}
	return q
}

// body is a body that the schema allows, nearly, or one that is spoilt.
func (d *Document) body(r *rand.Rand, schema map[string]any) []byte {
	b := text(d.value(r, schema, 0))
	switch r.IntN(40) {
	case 0:
		return b[:r.IntN(len(b))+1]
	case 1:
		b[r.IntN(len(b))] = byte(r.IntN(256))
	case 2:
		return append(b, b...)
	case 3:
		return []byte(" ")
	}
	return b
}

// deepest is where values end.
const deepest = 6

// value is one that a schema allows, or one that it hardly does not.
func (d *Document) value(r *rand.Rand, schema map[string]any, depth int) any {
	schema = d.resolve(schema)
	if depth > deepest {
		return nil
	}
	switch r.IntN(30) {
	case 0:
		return nil
	case 1:
		return pick(r, []any{"", 0, -1, 1.5, true, []any{}, map[string]any{}, []any{nil}, "null"})
	}
	if all, ok := schema["enum"].([]any); ok && r.IntN(5) > 0 {
		return pick(r, all)
	}
	switch kindOf(r, schema) {
	case "boolean":
		return r.IntN(2) == 0
	case "integer":
		return pick(r, integers(schema))
	case "number":
		return pick(r, numbers(schema))
	case "string":
		return pick(r, words)
	case "array":
		return d.list(r, schema, depth)
	case "object":
		return d.object(r, schema, depth)
	}
	return pick(r, []any{"x", 1, nil, map[string]any{"a": []any{1, "b"}}})
}

func (d *Document) list(r *rand.Rand, schema map[string]any, depth int) any {
	n := r.IntN(4)
	if r.IntN(50) == 0 {
		n = 200
	}
	all := []any{}
	for range n {
		all = append(all, d.value(r, object(schema["items"]), depth+1))
	}
	return all
}

func (d *Document) object(r *rand.Rand, schema map[string]any, depth int) any {
	all := map[string]any{}
	properties := object(schema["properties"])
	required, _ := schema["required"].([]any)
	for _, name := range sorted(properties) {
		often := 2
		if slices.Contains(required, any(name)) {
			often = 10
		}
		if r.IntN(often) > 0 {
			all[name] = d.value(r, object(properties[name]), depth+1)
		}
	}
	if more := object(schema["additionalProperties"]); more != nil {
		for range r.IntN(3) {
			all[pick(r, words)] = d.value(r, more, depth+1)
		}
	}
	if r.IntN(30) == 0 {
		all[pick(r, words)] = 1
	}
	return all
}

// kindOf is the type of a schema; of several, one.
func kindOf(r *rand.Rand, schema map[string]any) string {
	switch t := schema["type"].(type) {
	case string:
		return t
	case []any:
		kind, _ := pick(r, t).(string)
		return kind
	}
	return ""
}

func integers(schema map[string]any) []any {
	all := []any{
		0, 1, 2, -1, 3, 100, 1 << 20, 1 << 26,
		int64(1) << 31, int64(1)<<32 - 1, int64(1) << 32, int64(1) << 53, int64(math.MaxInt64), int64(math.MinInt64),
	}
	for _, bound := range []string{"minimum", "maximum"} {
		if n, ok := asFloat(schema[bound]); ok && math.Abs(n) < 1<<53 {
			all = append(all, int64(n)-1, int64(n), int64(n)+1)
		}
	}
	return all
}

func numbers(schema map[string]any) []any {
	all := append(integers(schema), 0.5, 0.1, -0.5, 1.25, 1e-300, 1e300, math.MaxFloat64)
	for _, bound := range []string{"minimum", "maximum"} {
		if n, ok := asFloat(schema[bound]); ok {
			all = append(all, n-0.001, n, n+0.001)
		}
	}
	return all
}

func asFloat(v any) (float64, bool) {
	n, ok := v.(interface{ Float64() (float64, error) }) // json.Number
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// words are texts that have caused trouble somewhere.
var words = []string{
	"", "a", "web", "db", "host", "true", "sh", "sleep", "-1", "0", "30s", "1h", "1GiB",
	"kill", "stdout", "all", "cpus", "memory_bytes", "auto", "off",
	"/", "/proc", "/sys", "/dev/null", "/usr", "/data", "..", "../../etc/passwd", "a/b",
	"a b", "a\tb", "a\nb", "a\x00b", "-rf", "--help", "$(id)", "`id`", "%s%n", "'\"",
	"café", "日本語", "😀", "\u202e", "\ufeff", "\uffff", "A=B", "*",
	"null", "NaN", "Infinity", "1e999", "0x10", "127.0.0.1", "::1", "255.255.255.255", "2026-01-02T03:04:05Z",
	strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("x", 300), strings.Repeat("é", 2000), strings.Repeat("x", 70000),
}

func pick[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// sorted are the keys of an object in an order, so that the same seed makes the same request.
func sorted(o map[string]any) []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Package apifuzz asks an API what its OpenAPI document allows, and much that it does not,
// and holds the answers against the document. It is for tests, of the router and of a real
// agent.
package apifuzz

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A Document is an OpenAPI 3.1 document.
type Document struct {
	doc        map[string]any
	compiler   *jsonschema.Compiler
	schemas    map[string]*jsonschema.Schema // compiled, by where they are
	operations []operation
}

// operation is one method of one path.
type operation struct {
	method, path string
	at           string // where it is in the document, as a JSON pointer (RFC 6901)
	parameters   []parameter
	body         map[string]any // its schema, nil for none
	responses    map[string]any
}

type parameter struct {
	name, in string
	schema   map[string]any
}

const resource = "openapi.json"

// Requests is how many a test shall ask: what CLOUDFLASH_FUZZ_REQUESTS says, or usually so many.
func Requests(usually int) int {
	if n, err := strconv.Atoi(os.Getenv("CLOUDFLASH_FUZZ_REQUESTS")); err == nil {
		return n
	}
	return usually
}

// endless reports whether a route answers with something else than one document.
func endless(path string) bool {
	return strings.HasSuffix(path, "/exec") || strings.Contains(path, "/stream") || path == "/metrics"
}

// Read reads a document. Operations that skip reports are left out, as are those that have no
// end or no JSON; skip may be nil.
func Read(text []byte, skip func(method, path string) bool) (*Document, error) {
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	doc, ok := parsed.(map[string]any)
	if !ok {
		return nil, errors.New("the document is no object")
	}
	d := &Document{doc: doc, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	if err := d.compiler.AddResource(resource, parsed); err != nil {
		return nil, err
	}

	paths := object(doc["paths"])
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := object(paths[path])
		for _, method := range []string{"get", "put", "post", "patch", "delete"} {
			if op := object(item[method]); op != nil && !endless(path) && (skip == nil || !skip(strings.ToUpper(method), path)) {
				d.operations = append(d.operations, read(method, path, op))
			}
		}
	}
	if len(d.operations) == 0 {
		return nil, errors.New("the document has no operations")
	}
	return d, nil
}

func read(method, path string, op map[string]any) operation {
	out := operation{
		method:    strings.ToUpper(method),
		path:      path,
		at:        "/paths/" + escape(path) + "/" + method,
		responses: object(op["responses"]),
	}
	params, _ := op["parameters"].([]any)
	for _, p := range params {
		one := object(p)
		name, _ := one["name"].(string)
		in, _ := one["in"].(string)
		out.parameters = append(out.parameters, parameter{name, in, object(one["schema"])})
	}
	content := object(object(op["requestBody"])["content"])
	out.body = object(object(content["application/json"])["schema"])
	return out
}

// object is v as a JSON object, nil when it is none.
func object(v any) map[string]any {
	o, _ := v.(map[string]any)
	return o
}

// escape makes a key one token of a JSON pointer, as it is written in a URL.
func escape(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(key)
}

// resolve follows references within the document.
func (d *Document) resolve(schema map[string]any) map[string]any {
	for {
		ref, ok := schema["$ref"].(string)
		if !ok {
			return schema
		}
		at := any(d.doc)
		for token := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			at = object(at)[strings.NewReplacer("~1", "/", "~0", "~").Replace(token)]
		}
		schema = object(at)
	}
}

// Check says what is wrong with the answer to a request: a failure of the server, or what
// the document does not have.
func (d *Document) Check(q Request, status int, contentType string, body []byte) error {
	if status >= 500 && status != http.StatusServiceUnavailable && status != http.StatusInsufficientStorage {
		return fmt.Errorf("status %d: %.500s", status, body)
	}
	if status >= 300 && status < 400 {
		return nil
	}
	key := strconv.Itoa(status)
	response := object(q.op.responses[key])
	if response == nil && status >= 400 {
		key = "default"
		response = object(q.op.responses[key])
	}
	if response == nil {
		return fmt.Errorf("status %d is not documented", status)
	}
	content := object(response["content"])
	if len(content) == 0 {
		if len(body) > 0 {
			return fmt.Errorf("status %d has no content in the document, and %d bytes of %s", status, len(body), contentType)
		}
		return nil
	}

	kind, _, err := mime.ParseMediaType(contentType)
	media := object(content[kind])
	if err != nil || media == nil {
		return fmt.Errorf("status %d is %q, documented are %v", status, contentType, slices.Sorted(maps.Keys(content)))
	}
	if media["schema"] == nil || !strings.HasSuffix(kind, "json") {
		return nil
	}
	return d.conforms(q.op.at+"/responses/"+key+"/content/"+escape(kind)+"/schema", body)
}

// conforms reports where a body differs from the schema at a place of the document.
func (d *Document) conforms(at string, body []byte) error {
	schema := d.schemas[at]
	if schema == nil {
		var err error
		if schema, err = d.compiler.Compile(resource + "#" + at); err != nil {
			return err
		}
		d.schemas[at] = schema
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the answer is no JSON: %w", err)
	}
	if err := schema.Validate(v); err != nil {
		return fmt.Errorf("the answer is not as documented: %w", err)
	}
	return nil
}

// text is JSON of v; nothing that is made here has none.
func text(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"cloudflash/api/problem"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

const (
	// maxBody is the largest request body, in bytes.
	maxBody = 1 << 20
	// maxDepth bounds nesting, so that no body can exhaust the stack.
	maxDepth = 16
)

type bodyKey struct{}

// bodyOf is the body that takeBody has read.
func bodyOf(ctx context.Context) []byte {
	b, _ := ctx.Value(bodyKey{}).([]byte)
	return b
}

// whole closes the connection of a request that was answered before its body was read: net/http
// would wait for the rest of it, in most cases before it sends the answer. What arrives
// within a moment is read all the same, or the kernel would reset the connection, and the
// client might not see the answer.
func whole(c *gin.Context) {
	if c.Request.ContentLength == 0 {
		c.Next()
		return
	}
	c.Header("Connection", "close")
	c.Next()
	if !c.GetBool(wholeKey) {
		_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Now().Add(drainTime))
	}
}

const drainTime = time.Second

// wholeKey marks a request whose body was read to its end.
const wholeKey = "whole"

// takeBody reads the request's JSON body into its context.
func takeBody(hc huma.Context, next func(huma.Context)) {
	c := humagin.Unwrap(hc)
	body, err := readBody(c.Writer, c.Request)
	if err != nil {
		problem.Write(c.Writer, c.Request, problem.From(err))
		return
	}
	c.Set(wholeKey, true)
	c.Writer.Header().Del("Connection")
	c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), bodyKey{}, body))
	next(hc)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil // whose absence the decoder refuses
	}
	ct, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || ct != "application/json" && (ct != "application/merge-patch+json" || r.Method != http.MethodPatch) {
		return nil, problem.New(http.StatusUnsupportedMediaType, "unsupported_media_type",
			fmt.Sprintf("Content-Type is %.100q, not application/json", r.Header.Get("Content-Type")), "send Content-Type: application/json")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problem.New(http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("body is over %d bytes", maxBody), "")
	case err != nil:
		return nil, problem.New(http.StatusBadRequest, "body_incomplete", "read body: "+err.Error(), "")
	}
	return b, nil
}

// decode parses a JSON object strictly into the struct v points to: names
// exact, none twice, none unknown, no null, nothing behind it.
func decode(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return badJSON("body is empty, a JSON object is expected")
	}
	if err := isText(body); err != nil {
		return err
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return syntaxProblem(err)
	}
	t := reflect.TypeOf(v).Elem()
	c := checker{dec: json.NewDecoder(bytes.NewReader(body))}
	c.dec.UseNumber()
	if err := c.value(t, "", 0); err != nil {
		return err
	}
	if len(c.fields) > 0 {
		return refuseFields("invalid_body", c.fields)
	}
	return typeProblem(json.Unmarshal(body, v), t, body)
}

// isText refuses what encoding/json would silently replace: bytes that are not UTF-8, and
// halves of surrogate pairs (RFC 8259, section 8).
func isText(body []byte) error {
	for i := 0; i < len(body); {
		r, n := utf8.DecodeRune(body[i:])
		if r == utf8.RuneError && n <= 1 {
			return badJSON("body is not UTF-8 at byte %d", i+1)
		}
		if r != '\\' {
			i += n
			continue
		}
		first, second := escaped(body[i:]), rune(-1)
		if i+6 <= len(body) {
			second = escaped(body[i+6:])
		}
		switch {
		case !utf16.IsSurrogate(first) && i+1 < len(body) && body[i+1] == '\\':
			i += 2
		case !utf16.IsSurrogate(first):
			i++
		case utf16.DecodeRune(first, second) != utf8.RuneError:
			i += 12
		default:
			return badJSON("body has half of a surrogate pair, %.6s, at byte %d", body[i:], i+1)
		}
	}
	return nil
}

// escaped is the code unit that b begins with as \uXXXX, or -1.
func escaped(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

func badJSON(format string, args ...any) *problem.Problem {
	return problem.New(http.StatusBadRequest, "malformed", fmt.Sprintf(format, args...), "")
}

// syntaxProblem says after how many bytes the body ceased to be JSON.
func syntaxProblem(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return badJSON("body is not JSON at byte %d: %v", syntax.Offset, err)
	}
	return badJSON("body is not JSON: %v", err)
}

// typeProblem names the field of body that holds a value of the wrong type.
func typeProblem(err error, in reflect.Type, body []byte) error {
	if err == nil {
		return nil
	}
	var t *json.UnmarshalTypeError
	if !errors.As(err, &t) {
		return badJSON("body is not JSON: %v", err)
	}
	c := checker{dec: json.NewDecoder(bytes.NewReader(body)), seek: t.Offset}
	c.dec.UseNumber()
	_ = c.value(in, "", 0) // it has gone well before
	pointer := c.found
	what := fmt.Sprintf("must be %s, not %s", describe(t.Type), t.Value)
	return refuseFields("wrong_type", []problem.Field{{Pointer: pointer, Detail: what}})
}

// describe says in words what a field takes.
func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem())
	case reflect.Int, reflect.Int64:
		return "a whole number of at most 19 digits, without exponent"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a " + t.Kind().String()
}

// checker walks the tokens of a body beside the type it is meant for and
// collects what encoding/json would let pass.
type checker struct {
	dec    *json.Decoder
	fields []problem.Field
	seek   int64  // where the token of a value ends; encoding/json leaves the keys of maps out of its fields
	found  string // the pointer to that value
}

func (c *checker) refuse(pointer, detail string) {
	if len(c.fields) < 20 { // enough to act on
		c.fields = append(c.fields, problem.Field{Pointer: pointer, Detail: detail})
	}
}

// refuseFields names every offending field in one problem.
func refuseFields(code string, fields []problem.Field) *problem.Problem {
	details := make([]string, len(fields))
	for i, f := range fields {
		details[i] = strings.TrimLeft(f.Pointer, "/?") + " " + f.Detail
	}
	p := problem.New(http.StatusUnprocessableEntity, code, strings.Join(details, "; "), "")
	p.Errors = fields
	return p
}

// value checks the next value. t is nil below an unknown field.
func (c *checker) value(t reflect.Type, pointer string, depth int) error {
	if depth > maxDepth {
		return badJSON("body is nested deeper than %d", maxDepth)
	}
	tok, err := c.dec.Token()
	if err != nil {
		return err
	}
	if c.dec.InputOffset() == c.seek {
		c.found = pointer
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if pointer == "" && tok != json.Delim('{') {
		return problem.New(http.StatusUnprocessableEntity, "invalid_body", "body must be a JSON object", "")
	}
	switch tok {
	case json.Delim('{'):
		return c.object(t, pointer, depth)
	case json.Delim('['):
		return c.array(t, pointer, depth)
	case nil:
		if t != nil {
			c.refuse(pointer, "must not be null; leave it out to leave it as it is")
		}
	}
	return nil
}

func (c *checker) object(t reflect.Type, pointer string, depth int) error {
	seen := map[string]bool{}
	for c.dec.More() {
		tok, err := c.dec.Token()
		if err != nil {
			return err
		}
		name, _ := tok.(string) // a name is: the syntax has been checked
		at := pointer + "/" + escapePointer(name)
		if seen[name] {
			c.refuse(at, "is given twice")
		}
		seen[name] = true
		member, known := memberOf(t, name)
		if !known {
			c.refuse(at, "is not a known field; known are "+strings.Join(namesOf(t), ", "))
		}
		if err := c.value(member, at, depth+1); err != nil {
			return err
		}
	}
	c.required(t, pointer, seen)
	_, err := c.dec.Token()
	return err
}

// required refuses an object without the fields it must have: those whose tag
// says neither omitempty nor omitzero.
func (c *checker) required(t reflect.Type, pointer string, seen map[string]bool) {
	if t == nil || t.Kind() != reflect.Struct {
		return
	}
	for _, f := range fieldsOf(t) {
		if !strings.Contains(f.Tag.Get("json"), ",omit") && !seen[jsonName(f)] {
			c.refuse(pointer+"/"+jsonName(f), "is missing")
		}
	}
}

func (c *checker) array(t reflect.Type, pointer string, depth int) error {
	var elem reflect.Type
	if t != nil && t.Kind() == reflect.Slice {
		elem = t.Elem()
	}
	for i := 0; c.dec.More(); i++ {
		if err := c.value(elem, fmt.Sprintf("%s/%d", pointer, i), depth+1); err != nil {
			return err
		}
	}
	_, err := c.dec.Token()
	return err
}

// memberOf finds the type of a member of t. Where t is no object, everything
// is known: encoding/json refuses the type itself.
func memberOf(t reflect.Type, name string) (reflect.Type, bool) {
	switch {
	case t == nil:
		return nil, true
	case t.Kind() == reflect.Map:
		return t.Elem(), true
	case t.Kind() != reflect.Struct:
		return nil, true
	}
	for _, f := range fieldsOf(t) {
		if jsonName(f) == name {
			return f.Type, true
		}
	}
	return nil, false
}

func namesOf(t reflect.Type) []string {
	var names []string
	for _, f := range fieldsOf(t) {
		names = append(names, jsonName(f))
	}
	return names
}

// fieldsOf are the fields that encoding/json sees, promoted ones included.
func fieldsOf(t reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Anonymous })
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// escapePointer makes a name one RFC 6901 token of bounded length.
func escapePointer(name string) string {
	if len(name) > 80 {
		name = strings.ToValidUTF8(name[:80], "") + "…"
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// Package problem is how the API says no: RFC 9457 problem details with a
// machine code, the offending fields and the way out.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"cloudflash/agent"
)

// ContentType is the media type of every error the API answers with.
const ContentType = "application/problem+json"

// RequestID is the header that names one request in answers and in the log.
const RequestID = "X-Request-ID"

// Problem is one refusal or failure. It is an error and an HTTP answer.
type Problem struct {
	Type      string  `json:"type" doc:"Stable name of the kind of problem, urn:cloudflash:problem:CODE"`
	Title     string  `json:"title" doc:"The kind of problem in words"`
	Status    int     `json:"status" doc:"HTTP status code"`
	Detail    string  `json:"detail" doc:"What is wrong this time"`
	Instance  string  `json:"instance" doc:"Path of the request"`
	Code      string  `json:"code" doc:"The kind of problem for machines, such as out_of_range"`
	Errors    []Field `json:"errors,omitempty" doc:"Every offending field"`
	Hint      string  `json:"hint,omitempty" doc:"The way out"`
	RequestID string  `json:"request_id" doc:"Names the request in the agent's log"`

	// Header is sent with the answer, such as Retry-After or Allow.
	Header http.Header `json:"-"`
	cause  error
}

// Field is one offending field or parameter of a request.
type Field struct {
	Pointer string `json:"pointer" doc:"RFC 6901 pointer into the body, or / and the name of a parameter"`
	Detail  string `json:"detail"`
	Min     any    `json:"min,omitempty"`
	Max     any    `json:"max,omitempty"`
}

// New makes a Problem; type and title follow from code.
func New(status int, code, detail string) *Problem {
	words := strings.ReplaceAll(code, "_", " ")
	return &Problem{
		Type:   "urn:cloudflash:problem:" + strings.ReplaceAll(code, "_", "-"),
		Title:  strings.ToUpper(words[:1]) + words[1:],
		Status: status, Code: code, Detail: detail,
	}
}

// WithHint adds the way out.
func (p *Problem) WithHint(hint string) *Problem {
	p.Hint = hint
	return p
}

// WithField adds an offending field that has no range.
func (p *Problem) WithField(pointer, detail string) *Problem {
	p.Errors = append(p.Errors, Field{Pointer: pointer, Detail: detail})
	return p
}

// WithHeader adds a header to the answer.
func (p *Problem) WithHeader(name, value string) *Problem {
	if p.Header == nil {
		p.Header = http.Header{}
	}
	p.Header.Set(name, value)
	return p
}

// Error is the detail.
func (p *Problem) Error() string { return p.Detail }

// Unwrap returns the error the problem was made from, which may be nil.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus, GetHeaders and ContentType let huma answer with a Problem.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns the headers to send with the answer.
func (p *Problem) GetHeaders() http.Header { return p.Header }

// ContentType returns the media type of the answer, whatever was negotiated.
func (p *Problem) ContentType(string) string { return ContentType }

// For fills in what only the request knows.
func (p *Problem) For(path, requestID string) *Problem {
	q := *p
	q.Instance, q.RequestID = path, requestID
	return &q
}

// Write answers r with p. The request id is the one already set on w.
func Write(w http.ResponseWriter, r *http.Request, p *Problem) {
	b, err := json.Marshal(p.For(r.URL.Path, w.Header().Get(RequestID)))
	if err != nil { // a Min or Max that JSON has no word for, such as NaN
		b = []byte(`{"status":` + strconv.Itoa(p.Status) + `,"code":"` + p.Code + `"}`)
	}
	for name, values := range p.Header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n')) // the client is gone: nobody to tell
}

// statuses is the one map from what the agent refuses to HTTP.
var statuses = []struct {
	kind   error
	status int
	code   string
}{
	{agent.ErrNotFound, http.StatusNotFound, "not_found"},
	{agent.ErrExists, http.StatusConflict, "already_exists"},
	{agent.ErrConflict, http.StatusConflict, "conflict"},
	{agent.ErrCapacity, http.StatusInsufficientStorage, "insufficient_capacity"},
	{agent.ErrInvalid, http.StatusUnprocessableEntity, "invalid"},
	{agent.ErrAuth, http.StatusUnauthorized, "unauthorised"},
	{agent.ErrExpired, http.StatusGone, "history_gone"},
	{context.DeadlineExceeded, http.StatusGatewayTimeout, "timed_out"},
	{context.Canceled, http.StatusServiceUnavailable, "cancelled"},
}

// From turns any error into a Problem. A Problem is returned as it is; what no
// sentinel explains is a 500.
func From(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	status, code := http.StatusInternalServerError, "internal"
	for _, s := range statuses {
		if errors.Is(err, s.kind) {
			status, code = s.status, s.code
			break
		}
	}
	var refusal *agent.Error
	if !errors.As(err, &refusal) {
		p = New(status, code, err.Error())
		p.cause = err
		return p
	}
	if refusal.Code != "" {
		code = refusal.Code
	}
	p = New(status, code, err.Error())
	p.cause, p.Hint = err, refusal.Hint
	for _, f := range refusal.Fields {
		p.Errors = append(p.Errors, Field(f))
	}
	return p
}

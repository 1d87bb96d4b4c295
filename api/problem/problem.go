// Package problem is how the API says no: RFC 9457 problem details with a
// machine code, the offending fields and a hint. It is the only place that turns
// an error into a status.
package problem

import (
	"encoding/json"
	"errors"
	"net/http"

	"cloudflash/agent/fault"
)

// ContentType of every error of the API.
const ContentType = "application/problem+json"

// Problem is an RFC 9457 problem detail.
type Problem struct {
	Type      string  `json:"type" doc:"Always about:blank: code tells problems apart"`
	Title     string  `json:"title" doc:"The status in words"`
	Status    int     `json:"status"`
	Detail    string  `json:"detail" doc:"What is wrong, for people"`
	Code      string  `json:"code" doc:"What is wrong, for programs, such as out_of_range"`
	Errors    []Field `json:"errors,omitempty" doc:"The fields of the request that are wrong"`
	Hint      string  `json:"hint,omitempty" doc:"The way out"`
	Instance  string  `json:"instance,omitempty" doc:"Path of the request"`
	RequestID string  `json:"request_id,omitempty" doc:"Also in the agent's log"`
}

// Field is one field of the request that is wrong.
type Field struct {
	Pointer string `json:"pointer" doc:"RFC 6901 pointer into the body, or ?name for a query parameter"`
	Detail  string `json:"detail"`
	Min     any    `json:"min,omitempty"`
	Max     any    `json:"max,omitempty"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus tells huma the status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType tells huma the content type.
func (p *Problem) ContentType(string) string { return ContentType }

// GetHeaders tells huma the headers: of what will be there in a moment, when to
// ask again.
func (p *Problem) GetHeaders() http.Header {
	if p.Status == http.StatusServiceUnavailable {
		return http.Header{"Retry-After": {"1"}}
	}
	return nil
}

// New makes a problem.
func New(status int, code, detail, hint string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: code, Hint: hint}
}

// From turns an error into a problem. What is no refusal of the agent's is an
// internal error, whose text is for the log only.
func From(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var e *fault.Error
	if !errors.As(err, &e) {
		return New(http.StatusInternalServerError, "internal", "internal error; the agent's log has the cause", "")
	}
	p = New(status(e), e.Code, err.Error(), e.Hint)
	for _, f := range e.Fields {
		p.Errors = append(p.Errors, Field{Pointer: f.Pointer, Detail: f.Detail, Min: f.Min, Max: f.Max})
	}
	return p
}

func status(e *fault.Error) int {
	switch {
	case errors.Is(e, fault.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(e, fault.ErrExists), errors.Is(e, fault.ErrConflict):
		return http.StatusConflict
	case errors.Is(e, fault.ErrCapacity), errors.Is(e, fault.ErrFull):
		return http.StatusInsufficientStorage
	case errors.Is(e, fault.ErrInvalid):
		return http.StatusUnprocessableEntity
	case errors.Is(e, fault.ErrAuth):
		return http.StatusUnauthorized
	case errors.Is(e, fault.ErrPrecondition):
		return http.StatusPreconditionFailed
	case errors.Is(e, fault.ErrExpired):
		return http.StatusGone
	case errors.Is(e, fault.ErrNotYet):
		return http.StatusServiceUnavailable
	case errors.Is(e, fault.ErrUnsupported):
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

// Write sends a problem. Path and request id are filled in.
func Write(w http.ResponseWriter, r *http.Request, p *Problem) {
	out := *p
	out.Instance = r.URL.Path
	out.RequestID = w.Header().Get("X-Request-Id")
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(out) // the client is gone: nobody to tell
}

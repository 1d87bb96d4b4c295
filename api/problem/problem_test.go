package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"cloudflash/agent"
)

func TestFrom(t *testing.T) {
	refusal := &agent.Error{Kind: agent.ErrInvalid, Code: "out_of_range", Detail: "cpus must be 0.1 to 32", Hint: "less",
		Fields: []agent.Field{{Pointer: "/cpus", Detail: "too many", Min: 0.1, Max: 32.0}}}
	tests := map[string]struct {
		err  error
		want *Problem
	}{
		"not found": {agent.ErrNotFound, New(404, "not_found", "not found")},
		"exists":    {agent.ErrExists, New(409, "already_exists", "already exists")},
		"conflict":  {agent.ErrConflict, New(409, "conflict", "conflict")},
		"capacity":  {agent.ErrCapacity, New(507, "insufficient_capacity", "insufficient capacity")},
		"auth":      {agent.ErrAuth, New(401, "unauthorised", "not authorised")},
		"expired":   {agent.ErrExpired, New(410, "history_gone", "history gone")},
		"deadline":  {context.DeadlineExceeded, New(504, "timed_out", "context deadline exceeded")},
		"unknown":   {errors.New("disk on fire"), New(500, "internal", "disk on fire")},
		"problem":   {fmt.Errorf("wrapped: %w", New(418, "teapot", "short")), New(418, "teapot", "short")},
		"refusal wrapped": {fmt.Errorf("create VM web: %w", refusal), &Problem{
			Type: "urn:cloudflash:problem:out-of-range", Title: "Out of range", Status: 422, Code: "out_of_range",
			Detail: "create VM web: cpus must be 0.1 to 32", Hint: "less",
			Errors: []Field{{Pointer: "/cpus", Detail: "too many", Min: 0.1, Max: 32.0}}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, From(tt.err), cmpopts.IgnoreUnexported(Problem{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set(RequestID, "r1")
	Write(w, httptest.NewRequest("GET", "/api/v1/vms?x=1", nil), New(410, "history_gone", "gone").WithHint("start again").WithHeader("Retry-After", "1"))
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"type": "urn:cloudflash:problem:history-gone", "title": "History gone", "status": 410.0,
		"detail": "gone", "instance": "/api/v1/vms", "code": "history_gone", "hint": "start again", "request_id": "r1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if w.Code != 410 || w.Header().Get("Content-Type") != ContentType || w.Header().Get("Retry-After") != "1" {
		t.Errorf("status %d, headers %v", w.Code, w.Header())
	}
}

func TestWriteUnspeakable(t *testing.T) {
	p := New(422, "out_of_range", "no number")
	p.Errors = []Field{{Min: math.NaN()}}
	w := httptest.NewRecorder()
	Write(w, httptest.NewRequest("GET", "/", nil), p)
	if w.Code != 422 || !json.Valid(w.Body.Bytes()) {
		t.Errorf("status %d, body %s", w.Code, w.Body)
	}
}

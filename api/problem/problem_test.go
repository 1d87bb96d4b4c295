package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"cloudflash/agent/fault"
)

func TestFromMapsEveryKindOfRefusal(t *testing.T) {
	kinds := map[error]int{fault.ErrNotFound: 404, fault.ErrExists: 409, fault.ErrConflict: 409, fault.ErrCapacity: 507, fault.ErrFull: 507,
		fault.ErrInvalid: 422, fault.ErrAuth: 401, fault.ErrExpired: 410}
	for kind, status := range kinds {
		err := fmt.Errorf("create VM web: %w", &fault.Error{Kind: kind, Code: "some_code", Detail: "details", Hint: "a hint",
			Fields: []fault.Field{{Pointer: "/cpus", Detail: "too many", Max: 32}}})
		p := From(err)
		if p.Status != status || p.Code != "some_code" || p.Hint != "a hint" || len(p.Errors) != 1 || p.Errors[0].Pointer != "/cpus" {
			t.Errorf("%v: %+v", kind, p)
		}
		if p.Detail != "create VM web: details" {
			t.Errorf("detail %q", p.Detail)
		}
	}
}

func TestInternalErrorsTellNothing(t *testing.T) {
	if p := From(errors.New("open /secret/path: disk on fire")); p.Status != 500 || strings.Contains(p.Detail, "secret") {
		t.Errorf("%+v", p)
	}
}

func TestWrite(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "r1")
	Write(w, httptest.NewRequest("GET", "/api/v1/vms/x", nil), New(404, "vm_not_found", "VM x not found", "list them"))
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if w.Code != 404 || w.Header().Get("Content-Type") != ContentType || p.RequestID != "r1" || p.Instance != "/api/v1/vms/x" || p.Title != "Not Found" {
		t.Errorf("%d %v %+v", w.Code, w.Header(), p)
	}
}

package problem

import (
	"net/http/httptest"
	"testing"
)

func TestHandshake(t *testing.T) {
	good := map[string]string{
		"Connection":            "keep-alive, Upgrade",
		"Upgrade":               "WebSocket",
		"Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key":     "dGhlIHNhbXBsZSBub25jZQ==",
	}
	for name, tt := range map[string]struct {
		header, value string
		status        int
	}{
		"good":          {"X", "y", 0},
		"no connection": {"Connection", "keep-alive", 426},
		"no upgrade":    {"Upgrade", "", 426},
		"another":       {"Upgrade", "h2c", 426},
		"version":       {"Sec-WebSocket-Version", "8", 400},
		"no key":        {"Sec-WebSocket-Key", "", 400},
		"short key":     {"Sec-WebSocket-Key", "YWJj", 400},
		"no base64":     {"Sec-WebSocket-Key", "!!!!", 400},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		for k, v := range good {
			r.Header.Set(k, v)
		}
		r.Header.Set(tt.header, tt.value)
		status := 0
		if p := Handshake(r); p != nil {
			status = p.Status
		}
		if status != tt.status {
			t.Errorf("%s: %d, want %d", name, status, tt.status)
		}
	}
}

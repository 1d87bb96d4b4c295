package problem

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Handshake says what keeps a request from opening a WebSocket (RFC 6455, section 4.2.1),
// nil for nothing. The library that accepts it would say so in plain text.
func Handshake(r *http.Request) *Problem {
	has := func(name, token string) bool {
		all := strings.Split(strings.Join(r.Header.Values(name), ","), ",")
		return slices.ContainsFunc(all, func(t string) bool { return strings.EqualFold(strings.TrimSpace(t), token) })
	}

	if !has("Connection", "upgrade") || !has("Upgrade", "websocket") {
		return New(http.StatusUpgradeRequired, "websocket_required",
			"this needs a WebSocket: the request has no Connection: Upgrade and Upgrade: websocket", "")
	}
	if v := r.Header.Get("Sec-WebSocket-Version"); v != "13" {
		return New(http.StatusBadRequest, "bad_handshake", fmt.Sprintf("Sec-WebSocket-Version is %.20q, not 13", v), "")
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	key, err := base64.StdEncoding.DecodeString(strings.Join(keys, " ")) // two are none
	if err != nil || len(key) != 16 {
		return New(http.StatusBadRequest, "bad_handshake", "Sec-WebSocket-Key is not 16 bytes in base64", "")
	}
	return nil
}

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// A request to make something may carry a key that its client has made up. When no
// answer comes, because the agent was killed or the connection was cut, the client asks
// again with that key, and the agent makes nothing more than it has made before. The
// header is that of draft-ietf-httpapi-idempotency-key-header-07.

const (
	// keepKeys is how long a key is remembered.
	keepKeys = 24 * time.Hour
	// longestKey is what one may be, in bytes.
	longestKey = 255
)

// asked is a request with a key; the zero value is one without.
type asked struct {
	what string // VM or cloudlet
	key  string // of state.Made
	body string
	full string // digest of the whole body, as agents before 2026-12 stored it
}

// askedWith checks a key, and makes of it and of the request what is stored.
func askedWith(what, key string, request any) (asked, error) {
	if key == "" {
		return asked{}, nil
	}
	if len(key) > longestKey || strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		var f fault.List
		f.Add("Idempotency-Key", 1, longestKey, "must be 1 to %d printable ASCII characters, not %s", longestKey, fault.Quote(key))
		return asked{}, f.Err("invalid_idempotency_key")
	}
	body, err1 := json.Marshal(said(reflect.ValueOf(request)))
	full, err2 := json.Marshal(request)
	if err := errors.Join(err1, err2); err != nil {
		return asked{}, err
	}
	return asked{what, digest(what + "\x00" + key), digest(string(body)), digest(string(full))}, nil
}

// said is what a request says: its fields that are zero are left out, so that an agent that
// knows more fields finds the same request again.
func said(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		fields := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.Tag.Get("json") != "-" && !v.Field(i).IsZero() {
				fields[f.Name] = said(v.Field(i))
			}
		}
		return fields
	case reflect.Pointer:
		return said(v.Elem()) // of a field that is not zero
	case reflect.Slice:
		all := make([]any, v.Len())
		for i := range all {
			all[i] = said(v.Index(i))
		}
		return all
	case reflect.Map:
		all := map[string]any{}
		for _, key := range v.MapKeys() {
			all[key.String()] = said(v.MapIndex(key))
		}
		return all
	}
	return v.Interface()
}

func digest(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// madeBy is the id of what the same request has made before, if it has. Another request
// with the same key is refused.
func (a *Agent) madeBy(s state.View, k asked) (id string, err error) {
	m := s.Made(k.key)
	if m == nil || a.keyAge(m, clock.Now()) >= keepKeys {
		return "", nil
	}
	if m.Body != k.body && m.Body != k.full {
		f := fault.Field{Pointer: "Idempotency-Key", Detail: "was used for another request"}
		return "", &fault.Error{
			Kind:   fault.ErrInvalid,
			Code:   "idempotency_key_reused",
			Detail: fmt.Sprintf("Idempotency-Key was used %s for another %s", m.At.Format(time.DateTime), k.what),
			Hint:   "use a new key for each request, and the same one only to repeat it",
			Fields: []fault.Field{f},
		}
	}
	return m.Target, nil
}

// keepKey stores what a request with a key makes, and forgets keys that are too old.
func (a *Agent) keepKey(tx *state.Tx, k asked, target string) {
	if k.key == "" {
		return
	}
	m := clock.Now()
	for old := range tx.MadeInOrder() {
		if a.keyAge(old, m) < keepKeys {
			break
		}
		tx.DeleteMade(old.ID)
	}
	tx.PutMade(state.Made{ID: k.key, Body: k.body, Target: target, At: m.Day, Boot: a.boot, AtBoot: m.Boot})
}

// keyAge goes by the time of day only where the machine has been booted since.
func (a *Agent) keyAge(r *state.Made, m clock.Moment) time.Duration {
	if r.Boot == a.boot {
		return m.Boot - r.AtBoot
	}
	return m.Day.Sub(r.At)
}

// madeVM is the VM that a request with a key has made before, once it is there. Where it
// could not be created, all of it is gone when madeVM returns errUnmade.
func (a *Agent) madeVM(ctx context.Context, k asked, id string) (VM, error) {
	for {
		s := a.state.View()
		r, m := s.VM(id), s.Made(k.key)
		switch {
		case r == nil && (m == nil || m.Target != id): // or somebody has begun to try it again
			return VM{}, errUnmade
		case r == nil || r.State == VMDeleting && !r.Unmade:
			return VM{}, spent("VM")
		case r.State != VMCreating && r.State != VMDeleting:
			return a.VM(id)
		}

		select {
		case <-s.WatchVM(id):
		case <-ctx.Done():
			return VM{}, fault.Refuse(fault.ErrNotYet, "request_ended", "ask again", "the request ended before the VM was created")
		case <-time.After(unpackTimeout + deleteTimeout): // nobody erases it any more
			return VM{}, fault.Refuse(fault.ErrNotYet, "host_busy", "see the agent's log; delete the VM",
				"VM %s is still %s", r.Name, r.State)
		}
	}
}

// errUnmade means that what a request was to make could not be made: the same one may try
// it again.
var errUnmade = errors.New("could not be created")

func spent(what string) error {
	return fault.Refuse(fault.ErrConflict, "idempotency_key_spent", "use a new key to make another",
		"the %s that was made with this Idempotency-Key is gone", what)
}

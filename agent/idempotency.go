package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
	body, err := said(request)
	if err != nil {
		return asked{}, err
	}
	return asked{what, digest(what + "\x00" + key), digest(string(body))}, nil
}

// said is what a request says, in one form: what is left out does not count, so that an
// agent that knows more fields finds the same request again.
func said(request any) ([]byte, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	var all any
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, err
	}
	return json.Marshal(withoutZeros(all))
}

// withoutZeros is a value of JSON without those of its fields that are zero or empty; nil
// when nothing is left.
func withoutZeros(v any) any {
	switch v := v.(type) {
	case map[string]any:
		left := map[string]any{}
		for name, field := range v {
			if field = withoutZeros(field); field != nil {
				left[name] = field
			}
		}
		if len(left) > 0 {
			return left
		}
		return nil
	case []any:
		if len(v) > 0 {
			return v
		}
		return nil
	case string, float64, bool:
		if v == "" || v == 0.0 || v == false {
			return nil
		}
	}
	return v
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
	if m.Body != k.body {
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
		r := s.VM(id)
		switch {
		case r == nil && s.Made(k.key) == nil:
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
		}
	}
}

// errUnmade means that what a request was to make could not be made: the same one may try
// it again.
var errUnmade = errors.New("could not be created")

// forgetVM removes the record of a VM that is erased. The key of a request that could not
// be carried out goes with it.
func forgetVM(tx *state.Tx, id string) {
	r, m := tx.VM(id), tx.MadeBy(id)
	if r != nil && r.Unmade && m != nil {
		tx.DeleteMade(m.ID)
	}
	tx.DeleteVM(id)
}

func spent(what string) error {
	return fault.Refuse(fault.ErrConflict, "idempotency_key_spent", "use a new key to make another",
		"the %s that was made with this Idempotency-Key is gone", what)
}

// Package tokens has who may use the API: bearer tokens, and the sessions of
// browsers. Of a secret it stores the hash.
package tokens

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// Roles of a token.
const (
	RoleAdmin  = "admin"
	RoleViewer = "viewer"
)

const (
	kindToken   = "token"
	kindSession = "session"
	// sessionLife is how long a browser stays logged in.
	sessionLife = 12 * time.Hour
	// maxTokens bounds tokens and sessions together.
	maxTokens = 10000
)

// nameRule is that of cloudlets.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)

// Tokens are those of one agent.
type Tokens struct {
	db   *state.DB
	boot string
	now  func() clock.Moment
}

// New looks after the tokens that are stored in db; boot is the id of this boot of the
// machine.
func New(db *state.DB, boot string) *Tokens { return &Tokens{db, boot, clock.Now} }

func secretHash(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

// Create makes a bearer token. The secret is shown once and not stored.
func (t *Tokens) Create(name, role string) (state.Token, string, error) {
	var f fault.List
	if !nameRule.MatchString(name) {
		f.Add("/name", nil, nil, "must be 1 to 63 letters, digits, dots, underscores and hyphens, not %s", fault.Quote(name))
	}
	if role != RoleAdmin && role != RoleViewer {
		f.Add("/role", nil, nil, "must be admin or viewer, not %s", fault.Quote(role))
	}
	if err := f.Err("invalid_token"); err != nil {
		return state.Token{}, "", err
	}

	var made state.Token
	var secret string
	err := t.db.Update(func(tx *state.Tx) (err error) {
		for other := range tx.TokensNamed(name) {
			if other.Kind == kindToken {
				return fault.Refuse(fault.ErrExists, "name_taken", "revoke it first, or choose another name",
					"a token named %s exists", fault.Quote(name))
			}
		}
		made, secret, err = t.issue(tx, state.StoredToken{Token: state.Token{Name: name, Role: role, Kind: kindToken}})
		tx.Tell(state.Event{Level: state.LevelInfo, Kind: "token.created", Message: fmt.Sprintf("token %s created, role %s", name, role)})
		return err
	})
	if err != nil {
		return state.Token{}, "", err
	}
	return made, secret, nil
}

// NewSession makes the secret of a browser's cookie, and tells how long it is good for.
// It survives a restart.
func (t *Tokens) NewSession(role string) (secret string, life time.Duration, err error) {
	err = t.db.Update(func(tx *state.Tx) (err error) {
		m := t.now()
		_, secret, err = t.issue(tx, state.StoredToken{
			Token: state.Token{
				Name:      "browser",
				Role:      role,
				Kind:      kindSession,
				ExpiresAt: new(m.Day.Add(sessionLife)),
			},
			Boot:        t.boot,
			ExpiresBoot: m.Boot + sessionLife,
		})
		tx.Tell(state.Event{Level: state.LevelInfo, Kind: "session.created", Message: "a browser logged in"})
		return err
	})
	return secret, sessionLife, err
}

// issue stores a new token, and forgets the sessions that are over.
func (t *Tokens) issue(tx *state.Tx, r state.StoredToken) (state.Token, string, error) {
	m := t.now()
	all := slices.Collect(tx.Tokens())
	left := len(all)
	for _, other := range all {
		if !t.valid(other, m) {
			tx.DeleteToken(other.ID)
			left--
		}
	}
	if left >= maxTokens {
		return state.Token{}, "", fault.Refuse(fault.ErrConflict, "too_many_tokens", "revoke some", "there are %d tokens and sessions", left)
	}

	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	secret := base64.RawURLEncoding.EncodeToString(b[:])
	r.ID, r.CreatedAt, r.Hash = state.NewID(), m.Day, secretHash(secret)
	tx.PutToken(r)
	return r.Token, secret, nil
}

// valid reports whether a token opens the API. The time of day decides only about a
// session of before a reboot, which the clock may have been set back by.
func (t *Tokens) valid(r *state.StoredToken, m clock.Moment) bool {
	switch {
	case r.ExpiresAt == nil:
		return true
	case r.Boot == t.boot:
		return m.Boot < r.ExpiresBoot
	}
	left := r.ExpiresAt.Sub(m.Day)
	return left > 0 && left <= sessionLife
}

// List returns tokens and sessions, oldest first.
func (t *Tokens) List() []state.Token {
	m := t.now()
	all := []state.Token{}
	for r := range t.db.View().Tokens() {
		shown := r.Token
		if r.ExpiresAt != nil && r.Boot == t.boot {
			shown.ExpiresAt = new(m.DayOf(r.ExpiresBoot, *r.ExpiresAt))
		}
		all = append(all, shown)
	}
	return all
}

// Revoke ends a token or session, by id or name.
func (t *Tokens) Revoke(ref string) error {
	return t.db.UpdateAnyway(func(tx *state.Tx) error {
		found := tx.Token(ref)
		for t := range tx.TokensNamed(ref) {
			if found == nil && t.Kind == kindToken {
				found = t
			}
		}
		if found == nil {
			return fault.Refuse(fault.ErrNotFound, "token_not_found", "", "token %s not found", fault.Quote(ref))
		}
		tx.DeleteToken(found.ID)
		tx.Tell(state.Event{Level: state.LevelInfo, Kind: "token.revoked", Message: fmt.Sprintf("%s %s revoked", found.Kind, found.Name)})
		return nil
	})
}

// Authenticate finds the token of a secret. Looking for hashes of 256-bit random
// secrets leaks nothing through timing.
func (t *Tokens) Authenticate(secret string) (state.Token, error) {
	if r := t.db.View().TokenOf(secretHash(secret)); r != nil && t.valid(r, t.now()) {
		return r.Token, nil
	}
	return state.Token{}, fault.Refuse(fault.ErrAuth, "bad_token", "cloudflash login, or cloudflash token create",
		"token is unknown, revoked or expired")
}

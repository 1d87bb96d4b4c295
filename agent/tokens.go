package agent

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

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

func secretHash(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

// CreateToken makes a bearer token. The secret is shown once and not stored.
func (a *Agent) CreateToken(name, role string) (Token, string, error) {
	var f fault.List
	if !cloudletName.MatchString(name) {
		f.Add("/name", nil, nil, "must be 1 to 63 letters, digits, dots, underscores and hyphens, not %s", fault.Quote(name))
	}
	if role != RoleAdmin && role != RoleViewer {
		f.Add("/role", nil, nil, "must be admin or viewer, not %s", fault.Quote(role))
	}
	if err := f.Err("invalid_token"); err != nil {
		return Token{}, "", err
	}

	var t Token
	var secret string
	err := a.state.Update(func(tx *state.Tx) (err error) {
		for other := range tx.TokensNamed(name) {
			if other.Kind == kindToken {
				return fault.Refuse(fault.ErrExists, "name_taken", "revoke it first, or choose another name", "a token named %s exists", fault.Quote(name))
			}
		}
		t, secret, err = issue(tx, Token{Name: name, Role: role, Kind: kindToken})
		tx.Tell(Event{Level: LevelInfo, Kind: "token.created", Message: fmt.Sprintf("token %s created, role %s", name, role)})
		return err
	})
	if err != nil {
		return Token{}, "", err
	}
	return t, secret, nil
}

// NewSession makes the secret of a browser's cookie. It survives a restart.
func (a *Agent) NewSession(role string) (secret string, expires time.Time, err error) {
	expires = time.Now().Add(sessionLife).UTC()
	err = a.state.Update(func(tx *state.Tx) (err error) {
		_, secret, err = issue(tx, Token{Name: "browser", Role: role, Kind: kindSession, ExpiresAt: &expires})
		tx.Tell(Event{Level: LevelInfo, Kind: "session.created", Message: "a browser logged in"})
		return err
	})
	if err != nil {
		return "", expires, err
	}
	return secret, expires, nil
}

// issue stores a new token, and forgets the sessions that are over.
func issue(tx *state.Tx, t Token) (Token, string, error) {
	all := slices.Collect(tx.Tokens())
	left := len(all)
	for _, other := range all {
		if !valid(other, time.Now()) {
			tx.DeleteToken(other.ID)
			left--
		}
	}
	if left >= maxTokens {
		return Token{}, "", fault.Refuse(fault.ErrConflict, "too_many_tokens", "revoke some", "there are %d tokens and sessions", left)
	}

	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	secret := base64.RawURLEncoding.EncodeToString(b[:])
	t.ID, t.CreatedAt = newID(), time.Now().UTC()
	tx.PutToken(tokenRecord{Token: t, Hash: secretHash(secret)})
	return t, secret, nil
}

func valid(t *tokenRecord, now time.Time) bool { return t.ExpiresAt == nil || now.Before(*t.ExpiresAt) }

// Tokens lists tokens and sessions, oldest first.
func (a *Agent) Tokens() []Token {
	all := []Token{}
	for t := range a.state.View().Tokens() {
		all = append(all, t.Token)
	}
	return all
}

// RevokeToken ends a token or session, by id or name.
func (a *Agent) RevokeToken(ref string) error {
	return a.state.UpdateAnyway(func(tx *state.Tx) error {
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
		tx.Tell(Event{Level: LevelInfo, Kind: "token.revoked", Message: fmt.Sprintf("%s %s revoked", found.Kind, found.Name)})
		return nil
	})
}

// Authenticate finds the token of a secret. Looking for hashes of 256-bit random
// secrets leaks nothing through timing.
func (a *Agent) Authenticate(secret string) (Token, error) {
	if t := a.state.View().TokenOf(secretHash(secret)); t != nil && valid(t, time.Now()) {
		return t.Token, nil
	}
	return Token{}, fault.Refuse(fault.ErrAuth, "bad_token", "cloudflash login, or cloudflash token create", "token is unknown, revoked or expired")
}

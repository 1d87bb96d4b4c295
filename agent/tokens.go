package agent

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"cloudflash/agent/store"
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

// tokenRecord is a Token and the SHA-256 of its secret. The secret itself has
// 256 random bits, so that no salt or slow hash is needed.
type tokenRecord struct {
	Token
	Hash string `json:"hash"`
}

func secretHash(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

// CreateToken makes a bearer token. The secret is shown once and not stored.
func (a *Agent) CreateToken(name, role string) (Token, string, error) {
	var f faults
	if !cloudletName.MatchString(name) {
		f.add("/name", nil, nil, "must be 1 to 63 letters, digits, dots, underscores and hyphens, not %s", quote(name))
	}
	if role != RoleAdmin && role != RoleViewer {
		f.add("/role", nil, nil, "must be admin or viewer, not %s", quote(role))
	}
	if err := f.err("invalid_token"); err != nil {
		return Token{}, "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tokens {
		if t.Kind == kindToken && t.Name == name {
			return Token{}, "", refuse(ErrExists, "name_taken", "revoke it first, or choose another name", "a token named %s exists", quote(name))
		}
	}
	return a.issue(Token{Name: name, Role: role, Kind: kindToken},
		Event{Level: LevelInfo, Kind: "token.created", Message: fmt.Sprintf("token %s created, role %s", name, role)})
}

// NewSession makes the secret of a browser's cookie. It survives a restart.
func (a *Agent) NewSession(role string) (secret string, expires time.Time, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	expires = time.Now().Add(sessionLife).UTC()
	_, secret, err = a.issue(Token{Name: "browser", Role: role, Kind: kindSession, ExpiresAt: &expires},
		Event{Level: LevelInfo, Kind: "session.created", Message: "a browser logged in"})
	return secret, expires, err
}

func (a *Agent) issue(t Token, e Event) (Token, string, error) {
	changes := a.expireTokens()
	if len(a.tokens) >= maxTokens {
		return Token{}, "", refuse(ErrConflict, "too_many_tokens", "revoke some", "there are %d tokens and sessions", len(a.tokens))
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	secret := base64.RawURLEncoding.EncodeToString(b[:])
	t.ID, t.CreatedAt = newID(), time.Now().UTC()
	rec := tokenRecord{t, secretHash(secret)}
	if err := a.commit(append(changes, store.Put(store.Tokens, t.ID, rec)), e); err != nil {
		return Token{}, "", err
	}
	a.tokens[t.ID] = rec
	return t, secret, nil
}

// expireTokens forgets the sessions that are over. The caller holds a.mu.
func (a *Agent) expireTokens() []store.Change {
	var changes []store.Change
	for id, t := range a.tokens {
		if t.ExpiresAt != nil && time.Now().After(*t.ExpiresAt) {
			delete(a.tokens, id)
			changes = append(changes, store.Delete(store.Tokens, id))
		}
	}
	return changes
}

// Tokens lists tokens and sessions, oldest first.
func (a *Agent) Tokens() []Token {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]Token, 0, len(a.tokens))
	for _, t := range a.tokens {
		all = append(all, t.Token)
	}
	slices.SortFunc(all, func(x, y Token) int { return cmp.Or(x.CreatedAt.Compare(y.CreatedAt), cmp.Compare(x.ID, y.ID)) })
	return all
}

// RevokeToken ends a token or session, by id or name.
func (a *Agent) RevokeToken(ref string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, t := range a.tokens {
		if id != ref && (t.Kind != kindToken || t.Name != ref) {
			continue
		}
		err := a.commit([]store.Change{store.Delete(store.Tokens, id)},
			Event{Level: LevelInfo, Kind: "token.revoked", Message: fmt.Sprintf("%s %s revoked", t.Kind, t.Name)})
		if err == nil {
			delete(a.tokens, id)
		}
		return err
	}
	return refuse(ErrNotFound, "token_not_found", "", "token %s not found", quote(ref))
}

// Authenticate finds the token of a secret. Comparing hashes of 256-bit random
// secrets leaks nothing through timing.
func (a *Agent) Authenticate(secret string) (Token, error) {
	hash := secretHash(secret)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tokens {
		if t.Hash == hash && (t.ExpiresAt == nil || time.Now().Before(*t.ExpiresAt)) {
			return t.Token, nil
		}
	}
	return Token{}, refuse(ErrAuth, "bad_token", "cloudflash login, or cloudflash token create", "token is unknown, revoked or expired")
}

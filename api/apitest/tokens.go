package apitest

import (
	"slices"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/tokens"
)

// Tokens are those that an agent has.
type Tokens struct{ agent *Agent }

func (f Tokens) List() []agent.Token {
	f.agent.Mu.Lock()
	defer f.agent.Mu.Unlock()
	return slices.Clone(f.agent.Has.Tokens)
}

func (f Tokens) Create(name, role string) (agent.Token, string, error) {
	if role != tokens.RoleAdmin && role != tokens.RoleViewer {
		return agent.Token{}, "", &fault.Error{Kind: fault.ErrInvalid, Code: "invalid_token",
			Detail: "role must be admin or viewer, not \"" + role + "\""}
	}
	return agent.Token{ID: "t7", Name: name, Role: role, Kind: "token", CreatedAt: Ago(0)}, "s3cret", nil
}

func (f Tokens) Revoke(ref string) error {
	f.agent.Mu.Lock()
	defer f.agent.Mu.Unlock()
	n := len(f.agent.Has.Tokens)
	f.agent.Has.Tokens = slices.DeleteFunc(f.agent.Has.Tokens, func(t agent.Token) bool { return t.ID == ref || t.Name == ref })
	if len(f.agent.Has.Tokens) == n {
		return missing("token", ref)
	}
	return nil
}

func (f Tokens) Authenticate(secret string) (agent.Token, error) {
	f.agent.Mu.Lock()
	defer f.agent.Mu.Unlock()
	if t, ok := f.agent.Has.Secrets[secret]; ok {
		return t, nil
	}
	return agent.Token{}, &fault.Error{Kind: fault.ErrAuth, Code: "bad_token",
		Detail: "token is unknown, revoked or expired", Hint: "cloudflash token create"}
}

func (f Tokens) NewSession(string) (string, time.Duration, error) {
	return "", 0, missing("session", "")
}

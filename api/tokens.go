package api

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/tokens"
	"cloudflash/api/problem"
)

func (s *server) listTokens(_ context.Context, in *Paging) (*listOutput[agent.Token], error) {
	return cut(s.parts.Tokens.List(), *in, func(t agent.Token) cursor { return cursor{-t.CreatedAt.UnixNano(), t.ID} })
}

// createTokenBody asks for a token.
type createTokenBody struct {
	Name string `json:"name"`
	Role string `json:"role,omitempty" enum:"admin,viewer" default:"viewer"`
}

type createTokenOutput struct {
	Body struct {
		agent.Token
		Secret string `json:"secret" doc:"Shown once: only its hash is kept"`
	}
}

func (s *server) createToken(_ context.Context, _ *struct{}, b *createTokenBody) (*createTokenOutput, error) {
	t, secret, err := s.parts.Tokens.Create(b.Name, cmp.Or(b.Role, tokens.RoleViewer))
	if err != nil {
		return nil, err
	}
	out := &createTokenOutput{}
	out.Body.Token, out.Body.Secret = t, secret
	return out, nil
}

func (s *server) revokeToken(_ context.Context, in *Target) (*struct{}, error) {
	if err := s.parts.Tokens.Revoke(in.Ref); err != nil {
		return nil, err
	}
	return nil, nil
}

// createCodeBody asks for a login code.
type createCodeBody struct {
	Role string `json:"role,omitempty" enum:"admin,viewer" default:"admin"`
}

type createCodeOutput struct {
	Body struct {
		Code      string    `json:"code" doc:"Good for one login"`
		Path      string    `json:"path" doc:"Of the dashboard, with the code: put the agent's address before it"`
		ExpiresAt time.Time `json:"expires_at"`
	}
}

func (s *server) createCode(_ context.Context, _ *struct{}, b *createCodeBody) (*createCodeOutput, error) {
	role := cmp.Or(b.Role, tokens.RoleAdmin)
	if role != tokens.RoleAdmin && role != tokens.RoleViewer {
		return nil, refuseFields("invalid", []problem.Field{{Pointer: "/role", Detail: "must be admin or viewer"}})
	}
	out := &createCodeOutput{}
	out.Body.Code, out.Body.ExpiresAt = s.opts.Login.NewCode(role)
	out.Body.Path = "/#code=" + out.Body.Code // after #: it never reaches a log
	return out, nil
}

// loginBody holds what cloudflash login has printed.
type loginBody struct {
	Code string `json:"code" maxLength:"256"`
}

type cookieOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
}

func (s *server) login(_ context.Context, _ *struct{}, b *loginBody) (*cookieOutput, error) {
	cookie, err := s.opts.Login.Redeem(b.Code)
	if err != nil {
		return nil, err
	}
	return &cookieOutput{SetCookie: *cookie}, nil
}

type logoutInput struct {
	Session string `cookie:"cloudflash_session"`
}

func (s *server) logout(_ context.Context, in *logoutInput) (*cookieOutput, error) {
	if in.Session != "" {
		if err := s.opts.Login.Forget(in.Session); err != nil {
			return nil, err
		}
	}
	return &cookieOutput{SetCookie: http.Cookie{Name: "cloudflash_session", Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode}}, nil
}

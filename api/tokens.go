package api

import (
	"context"
	"net/http"
	"time"

	"cloudflash/agent"
)

func (s *server) listTokens(_ context.Context, in *page) (*listOutput[agent.Token], error) {
	return cut(s.agent.Tokens(), *in)
}

type createTokenInput struct {
	Body struct {
		Name string `json:"name"`
		Role string `json:"role,omitempty" enum:"admin,viewer" default:"viewer"`
	}
}

type createTokenOutput struct {
	Body struct {
		agent.Token
		Secret string `json:"secret" doc:"Shown once: only its hash is kept"`
	}
}

func (s *server) createToken(_ context.Context, in *createTokenInput) (*createTokenOutput, error) {
	t, secret, err := s.agent.CreateToken(in.Body.Name, in.Body.Role)
	if err != nil {
		return nil, s.fail(err)
	}
	out := &createTokenOutput{}
	out.Body.Token, out.Body.Secret = t, secret
	return out, nil
}

func (s *server) revokeToken(_ context.Context, in *refInput) (*struct{}, error) {
	if err := s.agent.RevokeToken(in.Ref); err != nil {
		return nil, s.fail(err)
	}
	return nil, nil
}

type createCodeInput struct {
	Body struct {
		Role string `json:"role,omitempty" enum:"admin,viewer" default:"admin"`
	}
}

type createCodeOutput struct {
	Body struct {
		Code      string    `json:"code" doc:"Good for one login"`
		Path      string    `json:"path" doc:"Of the dashboard, with the code: put the agent's address before it"`
		ExpiresAt time.Time `json:"expires_at"`
	}
}

func (s *server) createCode(_ context.Context, in *createCodeInput) (*createCodeOutput, error) {
	out := &createCodeOutput{}
	out.Body.Code, out.Body.ExpiresAt = s.opts.Login.NewCode(in.Body.Role)
	out.Body.Path = "/#code=" + out.Body.Code // after #: it never reaches a log
	return out, nil
}

type loginInput struct {
	Body struct {
		Code string `json:"code" maxLength:"256"`
	}
}

type cookieOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
}

func (s *server) login(_ context.Context, in *loginInput) (*cookieOutput, error) {
	cookie, err := s.opts.Login.Redeem(in.Body.Code)
	if err != nil {
		return nil, s.fail(err)
	}
	return &cookieOutput{SetCookie: *cookie}, nil
}

type logoutInput struct {
	Session string `cookie:"cloudflash_session"`
}

func (s *server) logout(_ context.Context, in *logoutInput) (*cookieOutput, error) {
	if in.Session != "" {
		if err := s.opts.Login.Forget(in.Session); err != nil {
			return nil, s.fail(err)
		}
	}
	return &cookieOutput{SetCookie: http.Cookie{Name: "cloudflash_session", Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode}}, nil
}

package api

import (
	"context"

	"cloudflash/agent/tokens"
	"cloudflash/api/access"
)

type sessionOutput struct {
	Body struct {
		Name string `json:"name" doc:"Of the token or the browser's session, or the user at the socket"`
		Role string `json:"role" enum:"admin,viewer" doc:"A viewer may only look"`
		Via  string `json:"via" enum:"socket,token,session"`
	}
}

// showSession tells who asks, so that a page offers nobody what would be refused.
func (s *server) showSession(ctx context.Context, _ *struct{}) (*sessionOutput, error) {
	out := &sessionOutput{}
	out.Body.Role = tokens.RoleViewer // where nothing guards the API, nobody is told that they may write
	if c, ok := access.FromContext(ctx); ok {
		out.Body.Name, out.Body.Role, out.Body.Via = c.Name, c.Role, c.Via
	}
	return out, nil
}

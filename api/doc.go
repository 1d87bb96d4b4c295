// Package api serves the agent over HTTP: one route table (routes.go), one file
// per resource, OpenAPI from the types. Gin and huma live here and nowhere else.
// Who may call is decided before, by package access.
package api

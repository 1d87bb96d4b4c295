package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// defaultHost is where the agent of this machine listens.
const defaultHost = "unix:///run/cloudflash/api.sock"

// client speaks to one agent.
type client struct {
	http  *http.Client
	base  string // http://host:port
	host  string // as the user wrote it
	token string
	err   error // the host makes no sense
}

// client is the same for all requests of a command: each has connections of its
// own.
func (a *app) client() *client {
	if a.agent == nil {
		a.agent = a.newClient()
	}
	return a.agent
}

func (a *app) newClient() *client {
	host := a.host
	if host == "" {
		host = a.Env("CLOUDFLASH_HOST")
	}
	if host == "" {
		host = defaultHost
	}
	c := &client{host: host, token: a.Env("CLOUDFLASH_TOKEN"), http: &http.Client{}}
	switch {
	case strings.HasPrefix(host, "unix://"):
		path := strings.TrimPrefix(host, "unix://")
		c.base = "http://localhost"
		c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
		}}
	case strings.HasPrefix(host, "http://"), strings.HasPrefix(host, "https://"):
		c.base = strings.TrimSuffix(host, "/")
	default:
		c.err = usage("--host must be unix:///path or http(s)://host:port, not %q", host)
	}
	return c
}

// dashboard is where a browser on this machine finds the agent.
func (c *client) dashboard() string {
	if strings.HasPrefix(c.host, "unix://") {
		return "http://localhost:5000"
	}
	return c.base
}

// problemError is an answer of the API that says no.
type problemError struct {
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Hint   string `json:"hint"`
	Errors []struct {
		Pointer string `json:"pointer"`
		Detail  string `json:"detail"`
	} `json:"errors"`
	RequestID string `json:"request_id"`
}

func (p *problemError) Error() string { return p.Detail }

func (p *problemError) print(w io.Writer) {
	fmt.Fprintln(w, "error:", clean(p.Detail))
	if len(p.Errors) > 1 {
		for _, f := range p.Errors {
			fmt.Fprintf(w, "  %s: %s\n", strings.TrimLeft(clean(f.Pointer), "/?"), clean(f.Detail))
		}
	}
	if p.Hint != "" {
		fmt.Fprintln(w, "hint:", clean(p.Hint))
	}
	if p.Status >= 500 && p.Code == "internal" {
		fmt.Fprintln(w, "request:", clean(p.RequestID))
	}
}

func (p *problemError) exitCode() int {
	switch {
	case p.Status == http.StatusNotFound:
		return ExitNotFound
	case p.Status == http.StatusConflict, p.Status == http.StatusPreconditionFailed:
		return ExitConflict
	case p.Status == http.StatusInsufficientStorage:
		return ExitCapacity
	case p.Status == http.StatusUnauthorized, p.Status == http.StatusForbidden, p.Status == http.StatusTooManyRequests:
		return ExitAuth
	case p.Status == http.StatusBadRequest, p.Status == http.StatusUnprocessableEntity:
		return ExitUsage
	}
	return ExitFailure
}

// open sends a request and returns the answer's body, or the problem that the
// agent has with it. Paths without / in front of api are below /api/v1. Headers
// are names and values by turns.
func (c *client) open(ctx context.Context, method, path string, query url.Values, body any, headers ...string) (*http.Response, error) {
	if c.err != nil {
		return nil, c.err
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	target := c.base + "/api/v1" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return c.send(ctx, method, target, r, headers...)
}

func (c *client) send(ctx context.Context, method, target string, body io.Reader, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, usage("%v", err)
	}
	req.Header.Set("Accept", "application/json, text/plain")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}

	var sent atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}))
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &unanswered{c.unreachable(ctx, err), sent.Load()}
	}

	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problemOf(resp, method+" "+target)
}

// problemOf reads an answer that says no.
func problemOf(resp *http.Response, asked string) *problemError {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	p := &problemError{}
	if json.Unmarshal(b, p) != nil || p.Detail == "" {
		p.Detail = fmt.Sprintf("%s: %s", asked, resp.Status)
	}
	p.Status = resp.StatusCode
	return p
}

// unreachable explains why nobody answers.
func (c *client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		hint = "\nhint: is it running? sudo cloudflash serve"
	case errors.Is(err, fs.ErrPermission):
		hint = "\nhint: run as root, or join the group cloudflash"
	}
	text := fmt.Sprintf("cannot reach the agent at %s: %v%s", clean(c.host), cause(err), hint)
	return &exit{ExitUnreachable, text}
}

// unanswered is why no answer has come.
type unanswered struct {
	err  error
	sent bool // the request may have come to somebody
}

func (u *unanswered) Error() string { return u.err.Error() }

// Unwrap tells the exit code.
func (u *unanswered) Unwrap() error { return u.err }

// cause drops the method and the made-up address from the error of net/http.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// call sends body and decodes the answer into out, when it is not nil.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body, out any, headers ...string) error {
	resp, err := c.open(ctx, method, path, query, body, headers...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("decode the answer to %s %s: %w", method, path, err)
	}
	return nil
}

// comeBack is how long an agent is waited for that went away in the middle of a request.
// What it does once it is back may take longer.
const comeBack = 30 * time.Second

// create asks for something new. When the agent goes away before it has answered, nobody
// knows whether that has been made, so it is asked again, with the same key, once it is
// back: the agent makes it once. Warn is told of that.
func (c *client) create(ctx context.Context, path string, body, out any, warn io.Writer) error {
	key := rand.Text()
	ask := func() error { return c.call(ctx, http.MethodPost, path, nil, body, out, "Idempotency-Key", key) }
	err := ask()
	if !cutOff(err) {
		return err
	}
	return c.again(ctx, warn, ask)
}

// again asks once more after the agent went away, and goes on until it is back.
func (c *client) again(ctx context.Context, warn io.Writer, ask func() error) error {
	fmt.Fprintf(warn, "the agent went away before it answered; asking again for up to %v\n", comeBack)
	end := time.Now().Add(comeBack)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		err := ask()
		var p *problemError
		var u *unanswered
		unsure := cutOff(err) || errors.As(err, &u) || errors.As(err, &p) && p.Status == http.StatusServiceUnavailable
		if !unsure || time.Now().After(end) {
			return err
		}
	}
}

// cutOff reports whether a request may have been carried out although no whole answer came.
func cutOff(err error) bool {
	var u *unanswered
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.As(err, &u) && u.sent
}

func (c *client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.call(ctx, http.MethodGet, path, query, nil, out)
}

// list fetches all pages.
func list[T any](ctx context.Context, c *client, path string, query url.Values) ([]T, error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", "1000")
	all := []T{}
	for {
		var page struct {
			Items []T    `json:"items"`
			Next  string `json:"next_page_token"`
		}
		if err := c.get(ctx, path, query, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("page_token", page.Next)
	}
}

func ref(s string) string { return url.PathEscape(s) }

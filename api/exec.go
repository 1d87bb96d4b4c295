package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"syscall"
	"time"

	"cloudflash/agent"
	"cloudflash/api/problem"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"
)

// The WebSocket of a command in a VM. The client's first message is an
// execStart; then its binary messages are input and its text messages an
// execControl each. The agent's binary messages are a byte (execStdout or
// execStderr) and output; its text messages are an execNews each, the last of
// which says how it ended.
//
// A piece of input is sent only when the one before was taken. So this side can
// always read, and notices at once when the client is gone.

// execStart is what is to be run.
type execStart struct {
	Argv     []string          `json:"argv"`
	Env      map[string]string `json:"env"`
	WorkDir  string            `json:"workdir"`
	Terminal bool              `json:"terminal"`
	agent.TerminalSize
}

type execControl struct {
	Resize   *agent.TerminalSize `json:"resize"`
	EndInput bool                `json:"end_input"`
	Signal   string              `json:"signal"` // one of execSignals
}

// execSignals are those that a client may pass on: what its terminal or its user sends it.
var execSignals = map[string]syscall.Signal{
	"SIGHUP":  syscall.SIGHUP,
	"SIGINT":  syscall.SIGINT,
	"SIGQUIT": syscall.SIGQUIT,
	"SIGTERM": syscall.SIGTERM,
	"SIGUSR1": syscall.SIGUSR1,
	"SIGUSR2": syscall.SIGUSR2,
}

type execNews struct {
	Taken   bool              `json:"taken,omitempty"`   // the input that was sent: the next may come
	End     *agent.ExecResult `json:"end,omitempty"`     // it has ended
	Problem *problem.Problem  `json:"problem,omitempty"` // it never began
}

const (
	execStdout = 1
	execStderr = 2

	maxExecMessage   = 256 << 10
	execStartTimeout = 30 * time.Second
	execWriteTimeout = time.Minute // a client that does not read for so long is gone
	execPingEvery    = 15 * time.Second
)

func (s *server) exec(c *gin.Context) {
	if p := problem.Handshake(c.Request); p != nil {
		p.Hint = "cloudflash vm exec"
		problem.Write(c.Writer, c.Request, p)
		return
	}
	// Package access has compared Origin and Host already.
	conn, err := websocket.Accept(c.Writer, c.Request, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	ctx, cancel := context.WithCancel(c.Request.Context())
	defer cancel()
	var start execStart
	if err := readStart(ctx, conn, &start); err != nil {
		sendNews(ctx, conn, execNews{Problem: problem.New(http.StatusBadRequest, "bad_json", "the first message must be what to run: "+err.Error(), "")})
		return
	}
	client := newExecClient(ctx, conn, start)
	var talk sync.WaitGroup
	for _, part := range []func() error{client.listen, client.feed, client.ping} {
		talk.Go(func() {
			if part() != nil {
				cancel() // who hangs up ends the command
			}
		})
	}
	res, err := s.parts.VMs.Exec(ctx, c.Param("ref"), client.request(start))
	news := execNews{End: &res}
	if err != nil && ctx.Err() == nil {
		news = execNews{}
		errors.As(s.refusal(ctx, err), &news.Problem)
	}
	sendNews(ctx, conn, news)
	cancel()
	_ = client.stdin.Close()
	talk.Wait()
}

func readStart(ctx context.Context, conn *websocket.Conn, start *execStart) error {
	ctx, cancel := context.WithTimeout(ctx, execStartTimeout)
	defer cancel()
	conn.SetReadLimit(maxBody)
	_, b, err := conn.Read(ctx)
	if err != nil {
		return err
	}
	conn.SetReadLimit(maxExecMessage)
	if err := isText(b); err != nil {
		return err
	}
	return json.Unmarshal(b, start)
}

func sendNews(ctx context.Context, conn *websocket.Conn, news execNews) {
	b, err := json.Marshal(news)
	if err != nil {
		return // it has nothing that could fail
	}
	ctx, cancel := context.WithTimeout(ctx, execWriteTimeout)
	defer cancel()
	if conn.Write(ctx, websocket.MessageText, b) == nil && !news.Taken {
		_ = conn.Close(websocket.StatusNormalClosure, "")
	}
}

// execClient is the other end of a command's WebSocket.
type execClient struct {
	ctx    context.Context
	conn   *websocket.Conn
	pieces chan []byte // of input, each sent when the one before was taken
	stdin  *io.PipeReader
	typed  *io.PipeWriter
	sizes  chan agent.TerminalSize

	signals chan syscall.Signal
}

func newExecClient(ctx context.Context, conn *websocket.Conn, start execStart) *execClient {
	c := &execClient{
		ctx:     ctx,
		conn:    conn,
		pieces:  make(chan []byte, 1),
		sizes:   make(chan agent.TerminalSize, 1),
		signals: make(chan syscall.Signal, 8),
	}
	c.stdin, c.typed = io.Pipe()
	if start.Rows > 0 && start.Cols > 0 {
		c.sizes <- start.TerminalSize
	}
	return c
}

func (c *execClient) request(start execStart) agent.ExecRequest {
	return agent.ExecRequest{
		Argv:     start.Argv,
		Env:      start.Env,
		WorkDir:  start.WorkDir,
		Terminal: start.Terminal,
		Sizes:    c.sizes,
		Signals:  c.signals,
		Stdin:    c.stdin,
		Stdout:   &execWriter{c.ctx, c.conn, execStdout},
		Stderr:   &execWriter{c.ctx, c.conn, execStderr},
	}
}

// listen takes in what the client sends until it hangs up or breaks the rules.
func (c *execClient) listen() error {
	defer close(c.pieces)
	for {
		kind, b, err := c.conn.Read(c.ctx)
		if err != nil {
			return err
		}
		if kind == websocket.MessageText {
			if err := c.obey(b); err != nil {
				return err
			}
			continue
		}
		select {
		case c.pieces <- b:
		default:
			return errors.New("input came before the last was taken")
		}
	}
}

func (c *execClient) obey(b []byte) error {
	var control execControl
	if err := json.Unmarshal(b, &control); err != nil {
		return err
	}
	if control.Resize != nil {
		select { // only the newest counts
		case <-c.sizes:
		default:
		}
		c.sizes <- *control.Resize
	}
	if control.Signal != "" {
		sig, known := execSignals[control.Signal]
		if !known {
			return fmt.Errorf("signal %.20q is none of those that are passed on", control.Signal)
		}
		select {
		case c.signals <- sig:
		default: // it has not taken the last ones yet
		}
	}
	if control.EndInput {
		return c.typed.Close()
	}
	return nil
}

// feed hands the input to the command at its pace. What the command does not want
// any more is dropped.
func (c *execClient) feed() error {
	for b := range c.pieces {
		_, _ = c.typed.Write(b)
		sendNews(c.ctx, c.conn, execNews{Taken: true})
	}
	return c.typed.Close()
}

func (c *execClient) ping() error {
	tick := time.NewTicker(execPingEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return nil
		case <-tick.C:
			ctx, cancel := context.WithTimeout(c.ctx, execWriteTimeout)
			err := c.conn.Ping(ctx)
			cancel()
			if err != nil {
				return err
			}
		}
	}
}

// execWriter sends output of one kind.
type execWriter struct {
	ctx  context.Context
	conn *websocket.Conn
	kind byte
}

// Write sends p as one message.
func (w *execWriter) Write(p []byte) (int, error) {
	ctx, cancel := context.WithTimeout(w.ctx, execWriteTimeout)
	defer cancel()
	if err := w.conn.Write(ctx, websocket.MessageBinary, append([]byte{w.kind}, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

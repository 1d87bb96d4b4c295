package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/cloudlet"
	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func (a *app) vmExec() *cobra.Command {
	var env []string
	var workdir string
	var plain bool
	c := &cobra.Command{Use: "exec VM -- COMMAND [ARG]...", Short: "Run a command in a VM on this terminal, such as a shell",
		Long: "Run a command in a VM on this terminal, such as a shell. It ends when you hang up; what should outlive that is a cloudlet.\n" +
			"Without a terminal, signals are passed on to the command; a second Ctrl-C within five seconds hangs up.\n" +
			"The exit code is the command's own; 128 + N after signal N, 126 and 127 for commands that cannot be executed or do not exist.",
		Example: "  cloudflash vm exec web -- bash\n  tar c src | cloudflash vm exec web -- tar x",
		Args:    atLeast(2, "a VM and a command"), ValidArgsFunction: a.completeVMs}
	f := c.Flags()
	f.SetInterspersed(false)
	f.StringArrayVarP(&env, "env", "e", nil, "NAME=VALUE, repeatable")
	f.StringVar(&workdir, "workdir", "", "directory in the VM (/data)")
	f.BoolVarP(&plain, "no-terminal", "T", false, "pipes, even where input and output are a terminal")
	c.RunE = func(c *cobra.Command, args []string) error {
		argv := args[1:]
		if argv[0] == "--" {
			argv = argv[1:]
		}
		if len(argv) == 0 {
			return usage("%s needs a command after --", c.CommandPath())
		}
		vars, err := pairs("--env", env)
		if err != nil {
			return err
		}
		in, isFile := a.In.(*os.File)
		terminal := !plain && isFile && term.IsTerminal(int(in.Fd())) && a.terminal
		start := execStart{Argv: argv, Env: vars, WorkDir: workdir, Terminal: terminal}
		if terminal {
			if start.Env == nil {
				start.Env = map[string]string{}
			}
			if _, set := start.Env["TERM"]; !set && a.Env("TERM") != "" {
				start.Env["TERM"] = a.Env("TERM")
			}
			start.TerminalSize, _ = sizeOf(in)
		}
		return a.exec(c.Context(), args[0], start, in)
	}
	return c
}

// The messages of api/exec.go.
type execStart struct {
	Argv     []string          `json:"argv"`
	Env      map[string]string `json:"env,omitempty"`
	WorkDir  string            `json:"workdir,omitempty"`
	Terminal bool              `json:"terminal,omitempty"`
	agent.TerminalSize
}

type execNews struct {
	Taken   bool              `json:"taken"`
	End     *agent.ExecResult `json:"end"`
	Problem *problemError     `json:"problem"`
}

const (
	execPiece    = 32 << 10
	maxExecStart = 1 << 20 // what the API takes of any request
)

func sizeOf(f *os.File) (agent.TerminalSize, error) {
	cols, rows, err := term.GetSize(int(f.Fd()))
	return agent.TerminalSize{Rows: uint16(rows), Cols: uint16(cols)}, err
}

// exec runs one command. The terminal in, where there is one, is raw meanwhile.
func (a *app) exec(ctx context.Context, vm string, start execStart, in *os.File) error {
	text, err := json.Marshal(start)
	if err != nil {
		return err
	}
	if len(text) > maxExecStart {
		return usage("the command and its variables are %d bytes as JSON, the agent takes %d", len(text), maxExecStart)
	}
	client := a.client()
	conn, err := client.webSocket(ctx, "/vms/"+ref(vm)+"/exec")
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	var signals chan os.Signal
	if !start.Terminal { // there the keys are the command's own signals
		var stop func()
		signals, stop = passed()
		defer stop()
		if ctx.Err() != nil { // it came before
			return ctx.Err()
		}
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, text); err != nil {
		return client.unreachable(ctx, err)
	}
	if start.Terminal {
		old, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		defer func() { _ = term.Restore(int(in.Fd()), old) }()
		go passSizes(ctx, conn, in)
	} else {
		go passSignals(ctx, conn, signals, cancel)
	}
	taken := make(chan struct{}, 1)
	go sendInput(ctx, conn, a.In, taken) // may be stuck in a read for ever: it ends with the process
	news, err := a.receive(ctx, conn, taken)
	var unwritten *unwrittenError
	switch {
	case errors.As(err, &unwritten):
		return unwritten.error
	case err != nil:
		return client.unreachable(ctx, err)
	case news.Problem != nil:
		return news.Problem
	}
	return execExit(*news.End)
}

// receive prints output until the end.
func (a *app) receive(ctx context.Context, conn *websocket.Conn, taken chan<- struct{}) (execNews, error) {
	conn.SetReadLimit(1 << 20)
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			return execNews{}, err
		}
		if kind == websocket.MessageText {
			var news execNews
			if err := json.Unmarshal(b, &news); err != nil {
				return execNews{}, fmt.Errorf("decode the agent's message: %w", err)
			}
			if news.End != nil || news.Problem != nil {
				return news, nil
			}
			select {
			case taken <- struct{}{}:
			default:
			}
			continue
		}
		if len(b) == 0 {
			continue
		}
		to := a.Out
		if b[0] == 2 {
			to = a.Err
		}
		if _, err := to.Write(b[1:]); err != nil {
			return execNews{}, &unwrittenError{err}
		}
	}
}

// unwrittenError is output that this side cannot write.
type unwrittenError struct{ error }

// sendInput sends what is typed, a piece whenever the last was taken.
func sendInput(ctx context.Context, conn *websocket.Conn, in io.Reader, taken <-chan struct{}) {
	buf := make([]byte, execPiece)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if conn.Write(ctx, websocket.MessageBinary, buf[:n]) != nil {
				return
			}
			select {
			case <-taken:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			_ = sendJSON(ctx, conn, map[string]bool{"end_input": true})
			return
		}
	}
}

// passSizes follows the size of the terminal.
func passSizes(ctx context.Context, conn *websocket.Conn, in *os.File) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if size, err := sizeOf(in); err == nil {
				_ = sendJSON(ctx, conn, map[string]agent.TerminalSize{"resize": size})
			}
		}
	}
}

// passed are the signals that come from now on for the command: all that would end this
// program, but those that it was started to ignore, by nohup or a shell.
func passed() (got chan os.Signal, stop func()) {
	got = make(chan os.Signal, 8)
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2} {
		if !signal.Ignored(sig) {
			signal.Notify(got, sig)
		}
	}
	return got, func() { signal.Stop(got) }
}

// insist is how soon the same signal has to come again to be meant for this program.
const insist = 5 * time.Second

// passSignals passes signals on to the command. One that is to end it, and that comes twice
// within a short time, hangs up.
func passSignals(ctx context.Context, conn *websocket.Conn, got <-chan os.Signal, hangUp func()) {
	last := map[os.Signal]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-got:
			if again := time.Since(last[sig]) < insist; again && sig != unix.SIGUSR1 && sig != unix.SIGUSR2 {
				hangUp()
				return
			}
			last[sig] = time.Now()
			_ = sendJSON(ctx, conn, map[string]string{"signal": unix.SignalName(sig.(unix.Signal))})
		}
	}
}

func sendJSON(ctx context.Context, conn *websocket.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return conn.Write(ctx, websocket.MessageText, b)
}

// execExit makes the end of the command that of this one.
func execExit(r agent.ExecResult) error {
	text := r.Reason
	switch {
	case r.ExitCode != nil && *r.ExitCode == 0:
		return nil
	case r.ExitCode != nil:
		return &exit{*r.ExitCode, text}
	case r.Signal == "":
		return &exit{ExitFailure, text}
	}
	if text == "" {
		text = "killed by " + r.Signal
	}
	if sig := cloudlet.SignalNumber(r.Signal); sig != 0 {
		return &exit{128 + int(sig), text}
	}
	return &exit{ExitFailure, text}
}

// webSocket connects, or returns the problem that the agent has with it.
func (c *client) webSocket(ctx context.Context, path string) (*websocket.Conn, error) {
	if c.err != nil {
		return nil, c.err
	}
	h := http.Header{}
	if c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
	conn, resp, err := websocket.Dial(ctx, c.base+"/api/v1"+path, &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: h})
	if err == nil {
		return conn, nil
	}
	if resp != nil && resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, problemOf(resp, path)
	}
	return nil, c.unreachable(ctx, err)
}

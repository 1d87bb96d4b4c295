package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"cloudflash/agent/guest"
	"cloudflash/agent/store"
	"cloudflash/cgroup"
	"golang.org/x/sys/unix"
)

// ExecRequest asks for a command whose life is bound to its caller's: a shell in
// a VM. It is no cloudlet: it is not queued, not stored, and ends with the agent.
type ExecRequest struct {
	Argv    []string
	Env     map[string]string
	WorkDir string
	// Terminal connects the command to a pseudo-terminal: Stderr is not used then.
	Terminal bool
	Sizes    <-chan TerminalSize // of the terminal: the first at the start, then each new one

	Stdin          io.ReadCloser // closed when the command has ended
	Stdout, Stderr io.Writer
}

// TerminalSize is in characters.
type TerminalSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// ExecResult is how a command of Exec ended.
type ExecResult struct {
	ExitCode *int   `json:"exit_code" doc:"Null when a signal ended it"`
	Signal   string `json:"signal" doc:"Such as SIGKILL; empty otherwise"`
	Reason   string `json:"reason" doc:"oom, command not found..., VM deleted; empty otherwise"`
}

// session is a running command of Exec.
type session struct {
	vm   string
	exit chan guest.Exit // closed without a value when the VM's init is gone
}

// Exec runs a command in a VM and returns when it has ended. When ctx ends it is
// killed, with everything it has started.
func (a *Agent) Exec(ctx context.Context, ref string, req ExecRequest) (ExecResult, error) {
	if err := req.check(); err != nil {
		return ExecResult{}, err
	}
	v, g, id, s, err := a.openSession(ref)
	if err != nil {
		return ExecResult{}, err
	}
	scope := v.slice.Scope(scopeName(id))
	defer a.closeSession(v, id, scope)
	if err := makeScope(scope, SLAMedium, int(v.uidBase())); err != nil {
		return ExecResult{}, err
	}
	rec := cloudletRecord{Cloudlet: Cloudlet{ID: id, VM: v.ID, Env: req.Env}}
	p := guest.Process{ID: id, Argv: req.Argv, Env: rec.environ(), WorkDir: req.WorkDir, Scope: scope, Terminal: req.Terminal}
	pumps, err := a.startSession(ctx, g, p, req, int(v.uidBase()))
	var se *guest.StartError
	if errors.As(err, &se) {
		end := startEnding(se)
		return ExecResult{ExitCode: &end.code, Reason: end.reason}, nil
	}
	if err != nil {
		return ExecResult{}, err
	}
	defer pumps.close()
	select {
	case <-ctx.Done():
		return ExecResult{}, ctx.Err()
	case e, ok := <-s.exit:
		if !ok {
			return ExecResult{Reason: "the VM went down with it"}, nil
		}
		pumps.drain(ctx)
		return sessionResult(e, lastUsage(scope).OOMKills > 0), nil
	}
}

func (r ExecRequest) check() error {
	var f faults
	c := CloudletSubmit{Argv: r.Argv, Env: r.Env, WorkDir: r.WorkDir, SLA: SLAMedium, OnDeadline: OnDeadlineKill}
	if len(r.Argv) == 0 {
		f.add("/argv", nil, nil, "must name a command")
		return f.err("invalid_command")
	}
	return c.check()
}

// openSession registers a command before it starts, so that its end is not missed.
func (a *Agent) openSession(ref string) (*vm, *guest.Guest, string, *session, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.find(ref)
	if v == nil {
		return nil, nil, "", nil, vmNotFound(ref)
	}
	if v.State != VMRunning || v.guest == nil {
		return nil, nil, "", nil, wrongState(v, "entered")
	}
	rec := v.vmRecord
	rec.IdleSince = nil
	if err := a.commit([]store.Change{putVM(rec)}); err != nil {
		return nil, nil, "", nil, err
	}
	v.vmRecord = rec
	id := newID()
	s := &session{vm: v.ID, exit: make(chan guest.Exit, 1)}
	a.sessions[id] = s
	return v, v.guest, id, s, nil
}

// closeSession kills what is left and forgets the command.
func (a *Agent) closeSession(v *vm, id string, scope *cgroup.Scope) {
	ctx, cancel := context.WithTimeout(context.Background(), kernelTimeout)
	defer cancel()
	if scope.Exists() {
		if err := errors.Join(ignoreGone(scope.Kill(ctx)), scope.Remove(ctx)); err != nil {
			a.log.Warn("clear scope", "session", id, "err", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sessions, id)
	a.restIfIdle(v)
}

// restIfIdle notes since when nothing has run in a VM. The caller holds a.mu.
func (a *Agent) restIfIdle(v *vm) {
	if v.State != VMRunning || v.IdleSince != nil || a.vms[v.ID] != v || a.active(v.ID) > 0 || a.hasSession(v.ID) {
		return
	}
	rec := v.vmRecord
	now := time.Now().UTC()
	rec.IdleSince = &now
	if a.commit([]store.Change{putVM(rec)}) == nil {
		v.vmRecord = rec
	}
}

func (a *Agent) hasSession(vmID string) bool {
	for _, s := range a.sessions {
		if s.vm == vmID {
			return true
		}
	}
	return false
}

// dropSessions tells the sessions of a VM that its init is gone. The caller holds
// a.mu.
func (a *Agent) dropSessions(vmID string) {
	for id, s := range a.sessions {
		if s.vm == vmID {
			close(s.exit)
			delete(a.sessions, id)
		}
	}
}

// sessionEnded reports whether an exit was that of a session, and tells it.
func (a *Agent) sessionEnded(e guest.Exit) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sessions[e.ID]
	if s == nil {
		return false
	}
	select {
	case s.exit <- e:
	default: // told before
	}
	return true
}

func sessionResult(e guest.Exit, oom bool) ExecResult {
	var r ExecResult
	if e.Signal != 0 {
		r.Signal = signalName(e.Signal)
	} else {
		r.ExitCode = &e.Code
	}
	if oom && (e.Signal != 0 || e.Code != 0) {
		r.Reason = "oom"
	}
	return r
}

// pumps carry the input and output of a session.
type pumps struct {
	out   sync.WaitGroup // ends when nobody in the VM can write any more
	in    sync.WaitGroup // ends with the input or with the command
	files []*os.File
	stdin io.Closer
}

// startSession connects a command and starts it.
func (a *Agent) startSession(ctx context.Context, g *guest.Guest, p guest.Process, req ExecRequest, base int) (*pumps, error) {
	if req.Terminal {
		return startOnTerminal(ctx, g, p, req)
	}
	var ends [6]*os.File // read, write of stdin, stdout, stderr
	for i := 0; i < len(ends); i += 2 {
		var err error
		if ends[i], ends[i+1], err = os.Pipe(); err != nil {
			closeFiles(ends[:i])
			return nil, err
		}
	}
	ours, theirs := []*os.File{ends[1], ends[2], ends[4]}, []*os.File{ends[0], ends[3], ends[5]}
	defer closeFiles(theirs)
	for _, f := range theirs { // so that /dev/stdin and the others can be opened again inside
		if err := f.Chown(base, base); err != nil {
			closeFiles(ours)
			return nil, err
		}
	}
	p.Stdin, p.Stdout, p.Stderr = theirs[0], theirs[1], theirs[2]
	if _, err := g.Start(ctx, p); err != nil {
		closeFiles(ours)
		return nil, err
	}
	w := &pumps{files: ours, stdin: req.Stdin}
	w.in.Go(func() {
		_, _ = io.Copy(ours[0], req.Stdin)
		_ = ours[0].Close() // the command reads an end of file
	})
	w.out.Go(func() { _, _ = io.Copy(req.Stdout, ours[1]) })
	w.out.Go(func() { _, _ = io.Copy(req.Stderr, ours[2]) })
	return w, nil
}

func startOnTerminal(ctx context.Context, g *guest.Guest, p guest.Process, req ExecRequest) (*pumps, error) {
	run, err := g.Start(ctx, p)
	if err != nil {
		return nil, err
	}
	if run.Terminal == nil {
		return nil, fmt.Errorf("start %s: no terminal came back", p.Argv[0])
	}
	w := &pumps{files: []*os.File{run.Terminal}, stdin: req.Stdin}
	done := make(chan struct{})
	w.out.Go(func() {
		defer close(done)
		_, _ = io.Copy(req.Stdout, run.Terminal) // EIO when the last process has closed its side
	})
	w.in.Go(func() { _, _ = io.Copy(run.Terminal, req.Stdin) })
	w.in.Go(func() {
		for {
			select {
			case <-done:
				return
			case size, ok := <-req.Sizes:
				if !ok {
					return
				}
				resize(run.Terminal, size)
			}
		}
	})
	return w, nil
}

// resize tells the processes on the terminal too (SIGWINCH).
func resize(terminal *os.File, size TerminalSize) {
	if raw, err := terminal.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
		})
	}
}

// drain waits until all output of a command that has ended is passed on. Its
// scope has been killed, so that nobody holds the other end.
func (w *pumps) drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { closeFiles(w.files) })
	defer stop()
	w.out.Wait()
}

// close ends every pump and waits for it.
func (w *pumps) close() {
	closeFiles(w.files)
	_ = w.stdin.Close()
	w.out.Wait()
	w.in.Wait()
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

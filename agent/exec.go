package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/agent/state"
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

// vmGone is how a command ends that is in a VM without an init.
var vmGone = ExecResult{Reason: "the VM went down with it"}

// session is a running command of Exec.
type session struct {
	vm       string
	starting bool            // its scope has no process yet, or one that the init waits for
	oom      bool            // killed because the VM thrashed
	exit     chan guest.Exit // closed without a value when the VM's init is gone
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
	env := cloudlet.Environ(&cloudletRecord{ID: id, VM: v.ID, Env: req.Env})
	p := guest.Process{ID: id, Argv: req.Argv, Env: env, WorkDir: req.WorkDir, Scope: scope, Terminal: req.Terminal}
	pumps, err := a.startSession(ctx, g, p, req, int(v.uidBase()))
	var se *guest.StartError
	if errors.As(err, &se) {
		end := startEnding(se)
		return ExecResult{ExitCode: &end.Code, Reason: end.Reason}, nil
	}
	if errors.Is(err, guest.ErrGone) {
		return vmGone, nil
	}
	if err != nil {
		return ExecResult{}, err
	}
	defer pumps.close()
	if err := a.sessionStarted(ctx, v, s, scope); err != nil {
		return ExecResult{}, err
	}
	select {
	case <-ctx.Done():
		return ExecResult{}, ctx.Err()
	case e, ok := <-s.exit:
		if !ok {
			return vmGone, nil
		}
		pumps.drain(ctx)
		return sessionResult(e, usageOf(meter.Read(scope)).OOMKills > 0 || a.sessionThrashed(s)), nil
	}
}

func (r ExecRequest) check() error {
	var f fault.List
	c := cloudlet.Submit{Argv: r.Argv, Env: r.Env, WorkDir: r.WorkDir, SLA: SLAMedium, OnDeadline: OnDeadlineKill}
	if len(r.Argv) == 0 {
		f.Add("/argv", nil, nil, "must name a command")
		return f.Err("invalid_command")
	}
	return c.Check()
}

// openSession registers a command before it starts, so that its end is not missed.
// It is a change, of nothing that is stored: an idle VM is deleted before it, and the
// command refused, or is not idle any more.
func (a *Agent) openSession(ref string) (v *vm, g *guest.Guest, id string, s *session, err error) {
	err = a.state.Update(func(tx *state.Tx) error {
		r := tx.FindVM(ref)
		if r == nil {
			return state.NoVM(ref)
		}
		a.held.Lock()
		defer a.held.Unlock()
		if v = a.vms[r.ID]; r.State != VMRunning || v == nil || v.guest == nil {
			return wrongState(r, "entered")
		}
		v.idle.Touch(time.Now(), "a command of vm exec was run in it")
		a.changed()
		id, g = state.NewID(), v.guest
		s = &session{vm: v.ID, starting: true, exit: make(chan guest.Exit, 1)}
		a.sessions[id] = s
		return nil
	})
	if err != nil {
		if s != nil { // something else could not be stored
			a.held.Lock()
			delete(a.sessions, id)
			a.held.Unlock()
		}
		return nil, nil, "", nil, err
	}
	return v, g, id, s, nil
}

// sessionStarted freezes a command whose VM was frozen while it started: until
// then its scope was left out (eachScope).
func (a *Agent) sessionStarted(ctx context.Context, v *vm, s *session, scope *cgroup.Scope) error {
	a.held.Lock()
	s.starting = false
	a.held.Unlock()
	if a.record(v).State != VMFrozen {
		return nil
	}
	v.work.Lock() // or it could be thawed between the look and the act
	defer v.work.Unlock()
	if a.record(v).State != VMFrozen {
		return nil
	}
	return ignoreGone(scope.Freeze(ctx))
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
	a.held.Lock()
	defer a.held.Unlock()
	delete(a.sessions, id)
	v.idle.Touch(time.Now(), "a command of vm exec was run in it")
}

// dropSessions tells the sessions of a VM that its init is gone. The caller holds
// a.held.
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
	a.held.Lock()
	defer a.held.Unlock()
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

func (a *Agent) sessionThrashed(s *session) bool {
	a.held.Lock()
	defer a.held.Unlock()
	return s.oom
}

func sessionResult(e guest.Exit, oom bool) ExecResult {
	var r ExecResult
	if e.Signal != 0 {
		r.Signal = cloudlet.SignalName(e.Signal)
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
	from  []*outflow
}

// outflow is one stream of output.
type outflow struct {
	file   *os.File
	to     io.Writer
	passed atomic.Int64 // bytes
}

func (w *pumps) carry(from *os.File, to io.Writer, end func()) {
	o := &outflow{file: from, to: to}
	w.from = append(w.from, o)
	w.out.Go(func() {
		defer end()
		_, _ = io.Copy(o, from) // of a terminal: EIO when the last process has closed its side
	})
}

func (o *outflow) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	o.passed.Add(int64(n))
	return n, err
}

// waits is how much has not been read yet.
func (o *outflow) waits() (n int64) {
	if raw, err := o.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if got, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
				n = int64(got)
			}
		})
	}
	return n
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
	w.carry(ours[1], req.Stdout, func() {})
	w.carry(ours[2], req.Stderr, func() {})
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
	w.carry(run.Terminal, req.Stdout, func() { close(done) })
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

// heldFor is how long silence has to last until the output of a command that has
// ended, and that somebody else keeps open, is taken to be complete.
const heldFor = 500 * time.Millisecond

// drain waits until all output of a command that has ended is passed on. Its
// scope has been killed, so as a rule nobody holds the other end. But anybody else
// in the VM may have opened it: that one is not waited for, and what it writes
// is passed on no further than what might be the command's.
func (w *pumps) drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { closeFiles(w.files) })
	defer stop()
	done := make(chan struct{})
	go func() { // ends in close at the latest
		w.out.Wait()
		close(done)
	}()
	most := make([]int64, len(w.from))
	for i, o := range w.from {
		most[i] = o.passed.Load() + o.waits() + 64<<10 // and what a pump has in its hands
	}
	tick := time.NewTicker(heldFor / 10)
	defer tick.Stop()
	for quiet := 0; quiet < 10; quiet++ {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		for i, o := range w.from {
			if o.waits() > 0 && o.passed.Load() < most[i] {
				quiet = 0
			}
		}
	}
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

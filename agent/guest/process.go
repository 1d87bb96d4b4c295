package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cloudflash/agent/guest/wire"
	"cloudflash/cgroup"
	"golang.org/x/sys/unix"
)

// Process asks for one command.
type Process struct {
	ID      string   // unique for the life of the VM
	Argv    []string // Argv[0] is looked for in the PATH of Env
	Env     []string // NAME=value, all of it
	WorkDir string   // inside the VM; empty is /data
	Scope   *cgroup.Scope
	Stdout  *os.File
	Stderr  *os.File
	Stdin   *os.File // nil is /dev/null
	// Terminal gives the process a new pseudo-terminal instead of the files
	// above; Running.Terminal is its other end.
	Terminal bool
}

// io is how the process is to be connected, and the descriptors for it.
func (p Process) io() (kind uint32, fds []int) {
	switch {
	case p.Terminal:
		return wire.Terminal, nil
	case p.Stdin != nil:
		return wire.Pipes, []int{int(p.Stdout.Fd()), int(p.Stderr.Fd()), int(p.Stdin.Fd())}
	}
	return wire.Files, []int{int(p.Stdout.Fd()), int(p.Stderr.Fd())}
}

// StartError says that a process could not be made what was asked for.
type StartError struct {
	Errno syscall.Errno
	Stage string // exec, workdir, clone...
	Path  string // what was to be executed, or the working directory
}

func (e *StartError) Error() string { return fmt.Sprintf("%s %.200q: %v", e.Stage, e.Path, e.Errno) }

// Unwrap makes errors.Is find the errno.
func (e *StartError) Unwrap() error { return e.Errno }

// Start starts a process inside its scope and returns once its exec has
// succeeded. A command that cannot be executed is a *StartError.
func (g *Guest) Start(ctx context.Context, p Process) (Running, error) {
	if len(p.Argv) == 0 {
		return Running{}, &StartError{Errno: syscall.EINVAL, Stage: "argv", Path: ""}
	}
	if p.WorkDir == "" {
		p.WorkDir = "/data"
	}
	dir, err := p.Scope.OpenDir()
	if err != nil {
		return Running{}, err
	}
	defer unix.Close(dir)
	kind, fds := p.io()
	r, err := g.exchange(ctx, wire.Start, func(w *wire.Writer) {
		w.String(p.ID)
		w.Strings(p.Argv)
		w.Strings(p.Env)
		w.String(p.WorkDir)
		w.Uint32(kind)
	}, append([]int{dir}, fds...))
	if err != nil {
		return Running{}, err
	}
	return g.running(p, r)
}

func (g *Guest) running(p Process, r reply) (Running, error) {
	master, err := terminal(p, r)
	if err != nil {
		return Running{}, err
	}
	run, err := g.process(p, r)
	if err != nil && master != nil {
		_ = master.Close()
	}
	run.Terminal = master
	return run, err
}

// terminal takes the end of a pseudo-terminal out of an answer. It is looked at
// before it is used: what comes out of a VM could be anything.
func terminal(p Process, r reply) (*os.File, error) {
	if len(r.fds) == 0 && (r.err != nil || !p.Terminal) {
		return nil, nil
	}
	if len(r.fds) != 1 || !p.Terminal || r.err != nil {
		closeAll(r.fds)
		return nil, errors.New("malformed answer: descriptors")
	}
	if _, err := unix.IoctlGetInt(r.fds[0], unix.TIOCGPTN); err != nil {
		closeAll(r.fds)
		return nil, fmt.Errorf("malformed answer: no terminal: %w", err)
	}
	if err := unix.SetNonblock(r.fds[0], true); err != nil {
		closeAll(r.fds)
		return nil, err
	}
	return os.NewFile(uintptr(r.fds[0]), "terminal"), nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func (g *Guest) process(p Process, r reply) (Running, error) {
	var errno syscall.Errno
	switch {
	case errors.Is(r.err, ErrGone):
		return Running{}, r.err
	case errors.Is(r.err, syscall.EEXIST):
		return Running{}, fmt.Errorf("start %s: %w", p.ID, ErrExists)
	case errors.As(r.err, &errno):
		stage, _, _ := strings.Cut(r.err.Error(), ":")
		se := &StartError{Errno: errno, Stage: stage, Path: p.Argv[0]}
		if stage == "workdir" {
			se.Path = p.WorkDir
		}
		return Running{}, se
	case r.err != nil:
		return Running{}, r.err
	}
	vpid, at := int(r.fields.Uint32()), r.fields.Int64()
	pid, err := hostPID(p.Scope, vpid)
	if errors.Is(err, ErrNotFound) {
		err, pid = nil, 0 // over already
	}
	return Running{ID: p.ID, PID: pid, StartedAt: time.Unix(0, at)}, err
}

// hostPID finds the process of a scope that has that id inside the VM. What the
// init says is believed no further than its own cgroup.
func hostPID(scope *cgroup.Scope, vpid int) (int, error) {
	pids, err := scope.PIDs()
	if errors.Is(err, cgroup.ErrGone) {
		return 0, ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if innermostPID(pid) == vpid {
			return pid, nil
		}
	}
	return 0, ErrNotFound
}

// innermostPID is the last field of NSpid in /proc/<pid>/status, or 0.
func innermostPID(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	return parseNSPID(b)
}

func parseNSPID(status []byte) int {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte("NSpid:"))
		if !ok {
			continue
		}
		fields := bytes.Fields(rest)
		if len(fields) == 0 {
			return 0
		}
		n, err := strconv.Atoi(string(fields[len(fields)-1]))
		if err != nil {
			return 0
		}
		return n
	}
	return 0
}

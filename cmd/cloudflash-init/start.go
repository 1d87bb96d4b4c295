package main

import (
	"strings"
	"syscall"
	"time"
	_ "unsafe" // for linkname

	"cloudflash/agent/guest/wire"
	"golang.org/x/sys/unix"
)

// start makes a process and answers once its exec has succeeded or failed.
func (s *server) start(seq uint32, r *wire.Reader, fds []int) {
	id, argv, env, dir := r.String(), r.Strings(), r.Strings(), r.String()
	if r.Bad || len(argv) == 0 || len(fds) != 4 || !s.ready {
		s.reply(seq, fault{unix.EINVAL, "malformed start request"}, nil)
		return
	}
	s.mu.Lock()
	_, runs := s.procs[id]
	_, ended := s.exits[id]
	s.mu.Unlock()
	if runs || ended {
		s.reply(seq, fault{unix.EEXIST, "started before"}, nil)
		return
	}
	c, f := prepare(argv, env, dir, fds)
	if f.errno != 0 {
		s.reply(seq, f, nil)
		return
	}
	defer c.close()
	c.setFilter(s.seccomp)
	p, statusFD, f := s.fork(id, c)
	if f.errno != 0 {
		s.reply(seq, f, nil)
		return
	}
	// The gate must be the child's alone, so that either side sees the other die.
	_ = unix.Close(fds[3])
	fds[3] = -1
	errno, stage := outcome(statusFD)
	s.mu.Lock()
	defer s.mu.Unlock()
	if errno != 0 {
		delete(s.procs, id)
		s.replyLocked(seq, fault{errno, stage}, nil)
		return
	}
	p.starting = false
	s.replyLocked(seq, fault{}, func(w *wire.Writer) {
		w.Uint32(uint32(p.pid))
		w.Int64(p.startedAt)
	})
	if p.early != nil {
		s.ended(*p.early)
	}
}

// fork makes the child and its entry. The returned descriptor reads how its
// exec went.
func (s *server) fork(id string, c *child) (*proc, int, fault) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, fault{err.(syscall.Errno), "pipe"}
	}
	c.status = pipe[1]
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, errno := c.fork()
	if errno != 0 {
		_ = unix.Close(pipe[0])
		return nil, -1, fault{errno, "clone"}
	}
	p := &proc{id: id, pid: int(pid), startedAt: time.Now().UnixNano(), starting: true}
	s.procs[id] = p
	select {
	case s.forked <- struct{}{}:
	default:
	}
	_ = unix.Close(c.status)
	c.status = -1
	return p, pipe[0], fault{}
}

// outcome reads what the child reports: nothing when exec succeeded, else an
// errno and the number of the step that failed.
func outcome(fd int) (syscall.Errno, string) {
	defer unix.Close(fd)
	var b [8]byte
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case err == unix.EINTR:
			continue
		case n == 8:
			errno := syscall.Errno(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16)
			return errno, stages[b[4]]
		}
		return 0, ""
	}
}

// Stages of a child, for the message when one fails.
const (
	stageGate byte = iota
	stageFiles
	stageCgroup
	stageDir
	stageCaps
	stageSeccomp
	stageExec
)

var stages = [...]string{stageGate: "gate", stageFiles: "files", stageCgroup: "cgroup namespace", stageDir: "workdir",
	stageCaps: "capabilities", stageSeccomp: "seccomp", stageExec: "exec"}

// prepare turns a request into what the child needs, all of it allocated before
// the fork.
func prepare(argv, env []string, dir string, fds []int) (*child, fault) {
	c := &child{cgroup: fds[0], stdout: fds[1], stderr: fds[2], gate: fds[3], status: -1, null: -1}
	var err error
	if c.argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return nil, fault{unix.EINVAL, "argv"}
	}
	if c.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return nil, fault{unix.EINVAL, "env"}
	}
	if c.dir, err = syscall.BytePtrFromString(dir); err != nil {
		return nil, fault{unix.EINVAL, "workdir"}
	}
	for _, path := range candidates(argv[0], env) {
		p, err := syscall.BytePtrFromString(path)
		if err != nil {
			return nil, fault{unix.EINVAL, "argv"}
		}
		c.paths = append(c.paths, p)
	}
	if c.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fault{err.(syscall.Errno), "open /dev/null"}
	}
	return c, fault{}
}

// candidates are the paths that execvp would try.
func candidates(file string, env []string) []string {
	if strings.Contains(file, "/") {
		return []string{file}
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var all []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		all = append(all, dir+"/"+file)
	}
	return all
}

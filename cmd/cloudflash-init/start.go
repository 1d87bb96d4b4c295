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
	if r.Bad || len(argv) == 0 || len(fds) != 3 || !s.ready {
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
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &proc{id: id, startedAt: time.Now().UnixNano()}
	if f := s.fork(p, c); f.errno != 0 {
		s.replyLocked(seq, f, nil)
		return
	}
	s.replyLocked(seq, fault{}, func(w *wire.Writer) {
		w.Uint32(uint32(p.pid))
		w.Int64(p.startedAt)
	})
}

// fork makes the child and its entry. The caller holds s.mu: the child, should it
// end at once, is not reaped before its entry is there.
func (s *server) fork(p *proc, c *child) fault {
	errno, pid := c.fork()
	if errno != 0 {
		return fault{errno, "clone"}
	}
	select {
	case s.forked <- struct{}{}:
	default:
	}
	if c.failed != 0 {
		return fault{c.failed, stages[c.stage]} // reaped as a stranger
	}
	p.pid = pid
	s.procs[p.id] = p
	return fault{}
}

// Stages of a child, for the message when one fails.
const (
	stageOOM byte = iota
	stageFiles
	stageCgroup
	stageDir
	stageCaps
	stageSeccomp
	stageExec
)

var stages = [...]string{stageOOM: "OOM score", stageFiles: "files", stageCgroup: "cgroup namespace", stageDir: "workdir",
	stageCaps: "capabilities", stageSeccomp: "seccomp", stageExec: "exec"}

// prepare turns a request into what the child needs, all of it allocated before
// the fork.
func prepare(argv, env []string, dir string, fds []int) (*child, fault) {
	c := &child{cgroup: fds[0], stdout: fds[1], stderr: fds[2], null: -1}
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

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
	id, argv, env, dir, kind := r.String(), r.Strings(), r.Strings(), r.String(), r.Uint32()
	want, known := map[uint32]int{wire.Files: 3, wire.Pipes: 4, wire.Terminal: 1}[kind]
	if r.Bad || len(argv) == 0 || !known || len(fds) != want || !s.ready {
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
	c, f := prepare(argv, env, dir, fds, kind)
	if f.errno != 0 {
		s.reply(seq, f, nil)
		return
	}
	defer c.close()
	var answer []int // descriptors that go with it
	if kind == wire.Terminal {
		answer = []int{c.master}
	}
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
	}, answer...)
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
	stageTerminal
	stageCgroup
	stageDir
	stageCaps
	stageSeccomp
	stageExec
)

var stages = [...]string{stageOOM: "OOM score", stageFiles: "files", stageTerminal: "terminal", stageCgroup: "cgroup namespace", stageDir: "workdir",
	stageCaps: "capabilities", stageSeccomp: "seccomp", stageExec: "exec"}

// prepare turns a request into what the child needs, all of it allocated before
// the fork.
func prepare(argv, env []string, dir string, fds []int, kind uint32) (*child, fault) {
	c := &child{cgroup: fds[0], null: -1, master: -1}
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
	switch kind {
	case wire.Pipes:
		c.stdin, c.stdout, c.stderr = fds[3], fds[1], fds[2]
	case wire.Terminal:
		if f := c.openTerminal(); f.errno != 0 {
			return nil, f
		}
	default:
		if c.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return nil, fault{err.(syscall.Errno), "open /dev/null"}
		}
		c.stdin, c.stdout, c.stderr = c.null, fds[1], fds[2]
	}
	return c, fault{}
}

// openTerminal makes a pseudo-terminal of the VM's own devpts, so that ttyname(3)
// finds it inside. Its other end is opened without a path (TIOCGPTPEER, Linux 4.13).
func (c *child) openTerminal() fault {
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault{err.(syscall.Errno), "open a terminal"}
	}
	c.master, c.terminal = master, true
	err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	if err != nil {
		c.close()
		return fault{err.(syscall.Errno), "open a terminal"}
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		c.close()
		return fault{errno, "open a terminal"}
	}
	peer := int(fd)
	c.null, c.stdin, c.stdout, c.stderr = peer, peer, peer, peer
	return fault{}
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

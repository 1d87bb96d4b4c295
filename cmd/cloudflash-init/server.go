package main

import (
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"cloudflash/agent/guest/wire"
	"golang.org/x/sys/unix"
)

// server is the state of one VM's init.
type server struct {
	mu         sync.Mutex // guards everything below; held from fork to the entry in procs
	procs      map[string]*proc
	exits      map[string]wire.Exit // in the journal and not acknowledged
	conn       int                  // the agent's connection, -1 when there is none
	subscribed bool
	ready      bool
	seccomp    []unix.SockFilter
	out        wire.Writer
	line       []byte
	torn       bool // the journal ends in a part of a line
	garbage    int  // bytes allocated since the last collection, about

	forked chan struct{} // there may be children to wait for
}

// proc is a process that the agent asked for.
type proc struct {
	id        string
	pid       int
	startedAt int64
}

// message buffers. Untouched pages of them cost nothing.
var (
	packet [wire.MaxMessage]byte
	oob    [1024]byte
)

// serve answers one agent until it hangs up.
func (s *server) serve(conn int) {
	s.mu.Lock()
	s.conn, s.subscribed = conn, false
	s.mu.Unlock()
	for {
		n, oobn, flags, _, err := unix.Recvmsg(conn, packet[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		fds := files(oob[:oobn])
		if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) == 0 {
			s.handle(packet[:n], fds)
		}
		for _, fd := range fds {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
		s.tidy(2 * n)
	}
	s.mu.Lock()
	s.conn, s.subscribed = -1, false
	s.mu.Unlock()
	_ = unix.Close(conn)
}

// files takes the descriptors out of a control message.
func files(b []byte) []int {
	if len(b) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// tidy collects garbage by hand now and then: the runtime's own pacing would
// let the heap grow to 4 MiB first.
func (s *server) tidy(bytes int) {
	if s.garbage += bytes + 1024; s.garbage > 256<<10 {
		runtime.GC()
		s.garbage = 0
	}
}

func (s *server) handle(b []byte, fds []int) {
	r := wire.Reader{B: b}
	kind, seq := r.Begin()
	switch kind {
	case wire.Setup:
		s.reply(seq, s.setup(&r, fds), nil)
	case wire.Start:
		s.start(seq, &r, fds)
	case wire.Signal:
		s.reply(seq, s.signal(r.String(), int(r.Uint32())), nil)
	case wire.List:
		after := r.String()
		s.reply(seq, fault{}, func(w *wire.Writer) { s.list(w, after) })
	case wire.Ping:
		s.reply(seq, fault{}, func(w *wire.Writer) {
			var ready uint32
			if s.ready {
				ready = wire.Ready
			}
			w.Uint32(ready)
		})
	case wire.Acknowledge:
		s.acknowledge(r.String())
		s.reply(seq, fault{}, nil)
	case wire.Subscribe:
		s.reply(seq, fault{}, nil)
		s.subscribe()
	default:
		s.reply(seq, fault{unix.ENOSYS, "unknown request"}, nil)
	}
}

// fault is why a request failed; errno 0 is success.
type fault struct {
	errno syscall.Errno
	text  string
}

func (s *server) reply(seq uint32, f fault, more func(*wire.Writer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replyLocked(seq, f, more)
}

func (s *server) replyLocked(seq uint32, f fault, more func(*wire.Writer), fds ...int) {
	s.out.Begin(wire.Reply, seq)
	s.out.Uint32(uint32(f.errno))
	s.out.String(f.text)
	if more != nil {
		more(&s.out)
	}
	s.send(fds...)
}

// send never blocks. An agent that does not read for so long that the socket is
// full is cut off: it connects again and asks anew.
func (s *server) send(fds ...int) {
	if s.conn < 0 {
		return
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(s.conn, s.out.B, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT); err != nil {
		_ = unix.Shutdown(s.conn, unix.SHUT_RDWR)
		s.subscribed = false
	}
}

func (s *server) list(w *wire.Writer, after string) {
	var ids []string
	for id := range s.procs {
		if id > after {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	ids = ids[:min(len(ids), wire.MaxList)]
	w.Uint32(uint32(len(ids)))
	for _, id := range ids {
		p := s.procs[id]
		w.String(p.id)
		w.Uint32(uint32(p.pid))
		w.Int64(p.startedAt)
	}
}

func (s *server) signal(id string, sig int) fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.procs[id]
	if p == nil {
		return fault{unix.ESRCH, "no such process"}
	}
	if err := unix.Kill(p.pid, syscall.Signal(sig)); err != nil {
		return fault{err.(syscall.Errno), "kill"}
	}
	return fault{}
}

func (s *server) subscribe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribed = true
	for _, e := range s.exits {
		s.tell(e)
	}
}

func (s *server) tell(e wire.Exit) {
	if !s.subscribed {
		return
	}
	s.out.Begin(wire.Exited, 0)
	e.Put(&s.out)
	s.send()
}

// acknowledge forgets an exit. When none is left the journal starts afresh.
func (s *server) acknowledge(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.exits, id)
	if len(s.exits) == 0 {
		_ = unix.Ftruncate(wire.JournalFD, 0)
		s.torn = false
	}
}

// reap waits for every child: processes of the agent and orphans of theirs.
func (s *server) reap() {
	for {
		// Look first and reap under the lock: until then nobody else can get the
		// pid, and signal cannot hit a stranger.
		var info [128]byte
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT|unix.WALL, 0, 0)
		switch errno {
		case 0:
			s.reapOne(int(*(*int32)(unsafe.Pointer(&info[16])))) // si_pid
		case unix.ECHILD:
			<-s.forked
		}
	}
}

func (s *server) reapOne(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var status unix.WaitStatus
	var use unix.Rusage
	if got, err := unix.Wait4(pid, &status, unix.WALL|unix.WNOHANG, &use); err != nil || got != pid {
		return
	}
	for _, p := range s.procs {
		if p.pid != pid {
			continue
		}
		e := wire.Exit{ID: p.id, StartedAt: p.startedAt, FinishedAt: time.Now().UnixNano(),
			CPUTime: use.Utime.Nano() + use.Stime.Nano(), FinishedBoot: sinceBoot()}
		if status.Signaled() {
			e.Signal = uint32(status.Signal())
		} else {
			e.Code = uint32(status.ExitStatus())
		}
		s.ended(e)
		return
	}
}

// sinceBoot is a clock that nobody can set, in nanoseconds.
func sinceBoot() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // Linux has it since 2.6.39
	return ts.Nano()
}

// ended records an exit, then tells it.
func (s *server) ended(e wire.Exit) {
	delete(s.procs, e.ID)
	s.exits[e.ID] = e
	s.line = s.line[:0]
	if s.torn {
		s.line = append(s.line, "?\n"...) // nothing cut off may pass for a number
	}
	s.line = e.AppendLine(s.line)
	// When /run is full the agent still hears of it, as long as this init lives.
	n, _ := unix.Write(wire.JournalFD, s.line)
	s.torn = n < len(s.line) && (s.torn || n > 0)
	s.tell(e)
}

package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"cloudflash/agent/guest/wire"

	"golang.org/x/sys/unix"
)

// reply is the answer to one request.
type reply struct {
	fields wire.Reader
	fds    []int // whoever takes the reply closes them
	err    error
}

// shortPath names a file through its open directory: the address of a socket
// holds 107 bytes only. The file keeps the directory open.
func shortPath(path string) (string, *os.File, error) {
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path), dir, nil
}

// dial connects to the socket in the VM's run directory.
func dial(ctx context.Context, cfg Config) (*Guest, error) {
	path, dir, err := shortPath(filepath.Join(cfg.RunDir, socketName))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", ErrGone, err)
		}
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%w: %w", ErrGone, err)
		}
		return nil, fmt.Errorf("connect to the init of %s: %w", cfg.Hostname, err)
	}
	g := &Guest{cfg: cfg, conn: c.(*net.UnixConn), waiting: map[uint32]chan reply{}, arrived: make(chan struct{}, 1), done: make(chan struct{})}
	if err := g.conn.SetWriteBuffer(wire.MaxMessage); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	go g.read() // ends in Close, which waits for it
	return g, nil
}

// request sends a message with open files and waits for the answer.
func (g *Guest) request(ctx context.Context, kind byte, fields func(*wire.Writer), fds ...int) (*wire.Reader, error) {
	r, err := g.exchange(ctx, kind, fields, fds)
	if err != nil {
		return nil, err
	}
	closeAll(r.fds) // none is expected
	return &r.fields, r.err
}

// exchange sends a message with open files and waits for the answer, whose own
// files the caller closes.
func (g *Guest) exchange(ctx context.Context, kind byte, fields func(*wire.Writer), fds []int) (reply, error) {
	seq, answer, err := g.send(kind, fields, fds)
	if err != nil {
		return reply{}, err
	}
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		g.giveUp(seq, answer)
		return reply{}, ctx.Err()
	}
}

// giveUp waits no longer for an answer. One that is there already is dropped.
func (g *Guest) giveUp(seq uint32, answer <-chan reply) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiting, seq)
	select {
	case r := <-answer:
		closeAll(r.fds)
	default:
	}
}

// send sends a request and returns where its answer will come.
func (g *Guest) send(kind byte, fields func(*wire.Writer), fds []int) (uint32, <-chan reply, error) {
	answer := make(chan reply, 1)
	g.mu.Lock()
	if g.closed != nil {
		g.mu.Unlock()
		return 0, nil, fmt.Errorf("%w: %w", ErrGone, g.closed)
	}
	g.seq++
	seq := g.seq
	g.waiting[seq] = answer
	g.mu.Unlock()
	var w wire.Writer
	w.Begin(kind, seq)
	if fields != nil {
		fields(&w)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := g.conn.WriteMsgUnix(w.B, rights, nil); err != nil {
		g.mu.Lock()
		delete(g.waiting, seq)
		g.mu.Unlock()
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			err = fmt.Errorf("%w: %w", ErrGone, err)
		}
		return 0, nil, err
	}
	return seq, answer, nil
}

// read takes in answers and exits until the connection ends.
func (g *Guest) read() {
	defer close(g.done)
	for {
		text, fds, err := g.receive()
		if err != nil || len(text) == 0 { // an empty message reads as an end of file, and may still carry some
			closeAll(fds)
			g.hangUp(err)
			return
		}
		r := wire.Reader{B: text}
		kind, seq := r.Begin()
		if kind == wire.Reply {
			g.deliver(seq, r, fds)
			continue
		}
		closeAll(fds)
		switch kind {
		case wire.Exited:
			if e := r.Exit(); !r.Bad {
				g.mu.Lock()
				g.exits = append(g.exits, exitFrom(e))
				g.mu.Unlock()
				g.arrive()
			}
		}
	}
}

// longest is the longest message, in bytes: what is beyond is cut off.
const longest = 64 << 10

// buffers are shared by all connections: those of a thousand VMs that are silent need none.
var buffers = sync.Pool{New: func() any { return new([longest]byte) }}

// receive waits for a message, and returns it with the files that it carries.
func (g *Guest) receive() (text []byte, fds []int, err error) {
	raw, err := g.conn.SyscallConn()
	if err != nil {
		return nil, nil, err
	}

	var failed error
	err = raw.Read(func(fd uintptr) (done bool) {
		buf, oob := buffers.Get().(*[longest]byte), [64]byte{}
		defer buffers.Put(buf)
		var n, oobn int
		for {
			n, oobn, _, _, failed = unix.Recvmsg(int(fd), buf[:], oob[:], unix.MSG_CMSG_CLOEXEC)
			if failed != unix.EINTR {
				break
			}
		}
		if failed == unix.EAGAIN {
			return false
		}
		if failed == nil {
			text, fds = append([]byte(nil), buf[:n]...), descriptors(oob[:oobn])
		}
		return true
	})

	return text, fds, errors.Join(err, failed)
}

func (g *Guest) arrive() {
	select {
	case g.arrived <- struct{}{}:
	default:
	}
}

// descriptors takes the open files out of a control message.
func descriptors(oob []byte) (fds []int) {
	if len(oob) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func (g *Guest) deliver(seq uint32, r wire.Reader, fds []int) {
	errno, text := syscall.Errno(r.Uint32()), r.String()
	g.mu.Lock()
	defer g.mu.Unlock() // until the answer is where giveUp finds it
	answer := g.waiting[seq]
	delete(g.waiting, seq)
	if answer == nil {
		closeAll(fds)
		return // nobody asked, or has given up
	}
	rep := reply{fields: r, fds: fds}
	switch {
	case r.Bad:
		rep.err = errors.New("malformed answer")
	case errno != 0:
		rep.err = fmt.Errorf("%s: %w", text, errno)
	}
	answer <- rep
}

// hangUp fails every request that waits.
func (g *Guest) hangUp(cause error) {
	if cause == nil {
		cause = errors.New("it hung up")
	}
	g.mu.Lock()
	g.closed = cause
	for seq, answer := range g.waiting {
		answer <- reply{err: fmt.Errorf("%w: %w", ErrGone, cause)}
		delete(g.waiting, seq)
	}
	g.mu.Unlock()
	g.arrive()
}

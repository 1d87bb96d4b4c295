package guest

import (
	"net"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pair is a connection to an init, and what the init has of it.
func pair(t *testing.T) (*Guest, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "agent")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[1]) })
	g := &Guest{conn: c.(*net.UnixConn), waiting: map[uint32]chan reply{}, arrived: make(chan struct{}, 1), done: make(chan struct{})}
	go g.read()
	return g, fds[1]
}

// TestDescriptorsOfAHostileInit sends open files where none belong: the agent keeps
// none of them.
func TestDescriptorsOfAHostileInit(t *testing.T) {
	for name, message := range map[string][]byte{"an empty message": nil, "an unknown kind": {200, 1, 0, 0, 0}, "an answer to nothing": {8, 1, 0, 0, 0}} {
		g, init := pair(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := sendWith(init, message, unix.UnixRights(int(w.Fd()))); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if err := unix.Shutdown(init, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		<-g.done
		// The end of file comes when nobody holds the other end any more.
		fds := []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 1000); n != 1 || err != nil {
			t.Errorf("%s: the agent still has the file", name)
		}
		_ = g.Close()
		_ = r.Close()
	}
}

// sendWith is unix.Sendmsg for empty messages, too.
func sendWith(to int, message, rights []byte) error {
	msg := unix.Msghdr{Control: &rights[0]}
	msg.SetControllen(len(rights))
	if len(message) > 0 {
		iov := unix.Iovec{Base: &message[0]}
		iov.SetLen(len(message))
		msg.Iov = &iov
		msg.SetIovlen(1)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(to), uintptr(unsafe.Pointer(&msg)), 0); errno != 0 {
		return errno
	}
	return nil
}

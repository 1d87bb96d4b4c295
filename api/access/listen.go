package access

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"cloudflash/agent"
	"golang.org/x/sys/unix"
)

// SocketGroup is the group whose members may use the Unix socket.
const SocketGroup = "cloudflash"

// ListenUnix makes the agent's socket, mode 0660 and of group cloudflash where
// there is one. A socket that nobody answers is replaced; a live one is an error.
func ListenUnix(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen on %s: another agent answers there", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if gid, ok := socketGroup(); ok {
		err = errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660))
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func socketGroup() (int, bool) {
	g, err := user.LookupGroup(SocketGroup)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.Atoi(g.Gid)
	return gid, err == nil
}

// ListenTCP listens for browsers and remote clients. Without TLS it stays on
// loopback.
func ListenTCP(addr string, config *tls.Config) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: must be HOST:PORT: %w", addr, err)
	}
	ip := net.ParseIP(host)
	if config == nil && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("listen on %s: beyond loopback only with TLS: give --tls-cert and --tls-key, or use 127.0.0.1", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil || config == nil {
		return l, err
	}
	return tls.NewListener(l, config), nil
}

type peerKey struct{}

// ConnContext is for http.Server.ConnContext: it notes who is at the other end of
// a Unix socket. The kernel vouches for that (SO_PEERCRED, unix(7)).
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, identify(u))
}

func peerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(peerKey{}).(Caller)
	return c, ok
}

// identify gives everybody whom the socket's mode has let in, root and members
// of its group, all rights: they could become root by them anyway.
func identify(c *net.UnixConn) Caller {
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{Via: "socket"}
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || credErr != nil {
		return Caller{Via: "socket"}
	}
	caller := Caller{Name: "uid " + strconv.Itoa(int(cred.Uid)), Via: "socket"}
	if cred.Uid == 0 || int(cred.Uid) == os.Geteuid() || inGroup(cred) {
		caller.Role = agent.RoleAdmin
	}
	return caller
}

func inGroup(cred *unix.Ucred) bool {
	gid, ok := socketGroup()
	if !ok {
		return false
	}
	if int(cred.Gid) == gid {
		return true
	}
	u, err := user.LookupId(strconv.Itoa(int(cred.Uid)))
	if err != nil {
		return false
	}
	groups, err := u.GroupIds()
	if err != nil {
		return false
	}
	for _, g := range groups {
		if g == strconv.Itoa(gid) {
			return true
		}
	}
	return false
}

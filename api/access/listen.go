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

	"cloudflash/agent/tokens"

	"golang.org/x/sys/unix"
)

// SocketGroup is the group whose members may use the Unix socket.
const SocketGroup = "cloudflash"

// socketMode lets the group connect; identify checks who it is all the same.
const socketMode = 0o660

// ListenUnix makes the agent's socket, mode 0660 and of group cloudflash where
// there is one. A socket that nobody answers is replaced; a live one, or a file
// that is no socket, is an error.
func ListenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	if err := clearStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if gid, ok := socketGroup(); ok {
		err = os.Chown(path, -1, gid)
	}
	if err := errors.Join(err, os.Chmod(path, socketMode)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return bound(l, maxConnections), nil
}

// clearStale removes the socket of an agent that is dead. Only a refused
// connection proves that (unix(7)): a live agent with a full backlog answers
// EAGAIN.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file that is no socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(errors.New("another agent answers there"), c.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
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
// loopback: tokens must not cross a network in the clear.
func ListenTCP(addr string, config *tls.Config) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: must be HOST:PORT: %w", addr, err)
	}
	if config != nil {
		if len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil {
			return nil, fmt.Errorf("listen on %s: TLS without a certificate", addr)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		return tls.NewListener(bound(l, maxConnections), config), nil
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, beyondLoopback(addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if !isLocal(l.Addr().String()) { // /etc/hosts decides what localhost is
		return nil, errors.Join(beyondLoopback(addr), l.Close())
	}
	return bound(l, maxConnections), nil
}

func beyondLoopback(addr string) error {
	return fmt.Errorf("listen on %s: beyond loopback only with TLS: give --tls-cert and --tls-key, or use 127.0.0.1", addr)
}

type peerKey struct{}

// ConnContext is for http.Server.ConnContext: it notes who is at the other end of
// a Unix socket. The kernel vouches for that (SO_PEERCRED, unix(7)).
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if b, ok := c.(*boundConn); ok {
		c = b.Conn
	}
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

// identify gives root, the agent's own user and members of the socket's group all
// rights: they could become root by them anyway. Anybody else gets no role.
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
	return Caller{Name: "uid " + strconv.Itoa(int(cred.Uid)), Role: roleOf(cred), Via: "socket"}
}

func roleOf(cred *unix.Ucred) string {
	if cred.Uid == 0 || int(cred.Uid) == os.Geteuid() || inGroup(cred) {
		return tokens.RoleAdmin
	}
	return ""
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

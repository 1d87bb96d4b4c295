package access

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "api.sock")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("mode %v", info.Mode())
	}
}

// stale leaves a socket behind as an agent does that is killed.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	stale(t, path)
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestLiveSocketIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	first, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second: %v %v", second, err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first no longer answers: %v", err)
	} else {
		_ = c.Close()
	}
}

// TestBusySocketIsRefused: an agent that does not get round to accepting is
// alive all the same.
func TestBusySocketIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 { // a backlog of 0 holds one
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer c.Close()
	}
	if l, err := ListenUnix(path); err == nil {
		_ = l.Close()
		t.Error("the socket of a busy agent was taken")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link, dir} {
		if l, err := ListenUnix(p); err == nil {
			_ = l.Close()
			t.Errorf("%s was taken for a socket", p)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

func TestTCPStaysOnLoopback(t *testing.T) {
	tests := map[string]struct {
		addr   string
		config *tls.Config
		ok     bool
	}{
		"loopback":           {"127.0.0.1:0", nil, true},
		"localhost":          {"localhost:0", nil, true},
		"everywhere":         {":0", nil, false},
		"everywhere, v4":     {"0.0.0.0:0", nil, false},
		"everywhere, v6":     {"[::]:0", nil, false},
		"elsewhere":          {"192.0.2.1:0", nil, false},
		"a name":             {"example.invalid:0", nil, false},
		"no port":            {"127.0.0.1", nil, false},
		"nothing":            {"", nil, false},
		"everywhere by TLS":  {"0.0.0.0:0", selfSigned(), true},
		"loopback by TLS":    {"127.0.0.1:0", selfSigned(), true},
		"TLS without a cert": {"127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, err := ListenTCP(test.addr, test.config)
			if err == nil {
				_ = l.Close()
			}
			if (err == nil) != test.ok {
				t.Errorf("ok %t, err %v", test.ok, err)
			}
			if !test.ok && test.config == nil && strings.Contains(test.addr, "0.0.0.0") && !strings.Contains(err.Error(), "--tls-cert") {
				t.Errorf("no way out: %v", err)
			}
		})
	}
}

// selfSigned has no certificate but promises one: nobody connects.
func selfSigned() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }}
}

// through serves a over l and sends one request by dial.
func through(t *testing.T, l net.Listener, url string, dial func(context.Context, string, string) (net.Conn, error)) (int, string) {
	t.Helper()
	a := New(newTokens(), nil, false)
	srv := &http.Server{ConnContext: ConnContext, Handler: a.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := FromContext(r.Context())
		_, _ = io.WriteString(w, c.Via+" "+c.Role)
	}))}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	tr := &http.Transport{DialContext: dial}
	t.Cleanup(func() { tr.CloseIdleConnections(); _ = srv.Close(); <-done })
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer drain(resp.Body)
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// TestPeerOfTheSocket needs no token: the kernel says who calls, and this test
// runs as the agent's own user.
func TestPeerOfTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	status, who := through(t, l, "http://cloudflash/api/v1/vms", func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	})
	if status != 200 || who != "socket admin" {
		t.Errorf("%d %s", status, who)
	}
}

func TestTCPHasNoPeer(t *testing.T) {
	l, err := ListenTCP("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if status, who := through(t, l, "http://"+l.Addr().String()+"/api/v1/vms", nil); status != 401 {
		t.Errorf("%d %s", status, who)
	}
}

// TestStrangerOnTheSocket: the mode lets nobody else in, but should it be changed,
// the guard holds.
func TestStrangerOnTheSocket(t *testing.T) {
	r := request("GET", "/api/v1/vms", auth, admin)
	r = r.WithContext(context.WithValue(r.Context(), peerKey{}, Caller{Name: "uid 12345", Via: "socket"}))
	if status, code, _, _ := ask(New(newTokens(), nil, false), r); status != 403 || code != "not_permitted" {
		t.Errorf("%d %s", status, code)
	}
}

func TestIdentifyOfNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if who := identify(c); who.Role != "" {
		t.Errorf("a closed connection is %+v", who)
	}
}

func TestRoleOfAPeer(t *testing.T) {
	const uid = 12345
	for name, cred := range map[string]struct {
		uid  uint32
		want string
	}{"root": {0, "admin"}, "agent's own": {uint32(os.Geteuid()), "admin"}, "stranger": {uid, ""}} {
		t.Run(name, func(t *testing.T) {
			if got := roleOf(&unix.Ucred{Uid: cred.uid, Gid: cred.uid}); got != cred.want {
				t.Errorf("role %q, want %q", got, cred.want)
			}
		})
	}
}

package network_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace of a test's own, held by a process.
type namespace struct {
	t   testing.TB
	pid int
	cmd *exec.Cmd
}

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &namespace{t: t, pid: cmd.Process.Pid, cmd: cmd}
	t.Cleanup(s.kill)
	s.sh("ip link set lo up")
	return s
}

func (s *namespace) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// do runs f on a thread that is in the namespace and ends with it.
func (s *namespace) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread dies with the goroutine
		done <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

// sh runs a shell script in the namespace.
func (s *namespace) sh(script string) string {
	s.t.Helper()
	out, err := s.try(script)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func (s *namespace) try(script string) (string, error) {
	cmd := exec.Command("nsenter", "--net=/proc/"+strconv.Itoa(s.pid)+"/ns/net", "sh", "-ec", script)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// listen listens in the namespace and answers every connection or packet with
// the address it came from.
func (s *namespace) listen(network, addr string) {
	s.t.Helper()
	if err := s.do(func() error { return answer(s.t, network, addr) }); err != nil {
		s.t.Fatal(err)
	}
}

func answer(t testing.TB, network, addr string) error {
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo([]byte(from.String()), from)
			}
		}()
		return nil
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(c.RemoteAddr().String()))
			_ = c.Close()
		}
	}()
	return nil
}

// An answer that is to come has all the time that a busy machine may take. One that
// is not has a second: nothing between two namespaces of a machine takes that long.
const (
	patience = 30 * time.Second
	silence  = time.Second
)

// ask connects and returns what the other side says.
func ask(network, addr string, patience time.Duration) (string, error) {
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if strings.HasPrefix(network, "udp") {
		_, _ = c.Write([]byte("?"))
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 200)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func (s *namespace) ask(network, addr string, patience time.Duration) (answer string, err error) {
	err = s.do(func() error {
		answer, err = ask(network, addr, patience)
		return err
	})
	return answer, err
}

// reaches wants an answer, and gives its host.
func (s *namespace) reaches(network, addr string) string {
	s.t.Helper()
	answer, err := s.ask(network, addr, patience)
	if err != nil {
		s.t.Errorf("%s %s: %v, want an answer", network, addr, err)
		return ""
	}
	host, _, _ := net.SplitHostPort(answer)
	return host
}

// refused wants none of the addresses, which are tried at once, to answer.
func (s *namespace) refused(network string, addrs ...string) {
	s.t.Helper()
	var all sync.WaitGroup
	for _, addr := range addrs {
		all.Go(func() {
			if answer, err := s.ask(network, addr, silence); err == nil {
				s.t.Errorf("%s %s answers %q, want nothing", network, addr, answer)
			} else if !errors.As(err, new(*net.OpError)) {
				s.t.Error(err)
			}
		})
	}
	all.Wait()
}

// sh runs a shell script on the host.
func sh(t testing.TB, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// host is the host with a network, and an outside that it is linked to:
// 192.0.2.1 and 192.0.2.2, 2001:db8::1 and 2001:db8::2; beyond is 198.51.100.1.
type host struct {
	*network.Network
	t       testing.TB
	cfg     network.Config
	outside *namespace
}

func newHost(t testing.TB, change func(*network.Config)) *host {
	t.Helper()
	if os.Getenv("CLOUDFLASH_KERNEL_TESTS") != "1" {
		t.Skip("needs a network namespace or a machine of its own: CLOUDFLASH_KERNEL_TESTS=1")
	}
	h := &host{t: t, outside: newNamespace(t)}
	h.cfg.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	h.cfg.SystemdResolv = filepath.Join(t.TempDir(), "none")
	if err := os.WriteFile(h.cfg.ResolvConf, []byte("nameserver 192.0.2.2\nsearch example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&h.cfg)
	}
	sh(t, fmt.Sprintf(`ip -batch - <<END
link set lo up
link add out0 type veth peer name out1 netns %d
link set out0 up
addr add 192.0.2.1/24 dev out0
addr add 2001:db8::1/64 dev out0 nodad
END`, h.outside.pid))
	t.Cleanup(func() { sh(t, "ip link del out0 2>/dev/null || true") })
	h.outside.sh(`ip -batch - <<END
link set out1 up
addr add 192.0.2.2/24 dev out1
addr add 2001:db8::2/64 dev out1 nodad
addr add 198.51.100.1/32 dev lo
addr add 2001:db8:1::1/128 dev lo
addr add 169.254.169.254/32 dev lo
END`)
	sh(t, `ip -batch - <<END
route replace default via 192.0.2.2
route replace default via 2001:db8::2
route replace 169.254.169.254 via 192.0.2.2
END`)
	h.Network = h.restart()
	t.Cleanup(func() {
		if err := h.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// restart is another agent after the first was killed.
func (h *host) restart() *network.Network {
	h.t.Helper()
	n, err := network.New(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := n.Open(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(n.Close)
	return n
}

func id(slot int) string { return fmt.Sprintf("%010x", 0xc0ffee0000+slot) }

// vm is a VM's namespace, attached.
type vm struct {
	*namespace
	link network.Link
	addr network.Address
}

func (h *host) vm(slot int, mode network.Mode, publish ...network.Publish) *vm {
	h.t.Helper()
	v := &vm{namespace: newNamespace(h.t)}
	v.link = network.Link{ID: id(slot), Slot: slot, Mode: mode, RateBPS: 10e9, Publish: publish, PID: v.pid}
	a, err := h.Attach(h.t.Context(), v.link)
	if err != nil {
		h.t.Fatal(err)
	}
	v.addr = a
	return v
}

func (v *vm) ip4(port int) string {
	return netip.AddrPortFrom(v.addr.IPv4.Addr(), uint16(port)).String()
}
func (v *vm) ip6(port int) string {
	return netip.AddrPortFrom(v.addr.IPv6.Addr(), uint16(port)).String()
}

// state is everything that the host has of links, rules and descriptors.
func state(t testing.TB) string {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to != "anon_inode:[pidfd]" { // of the tests' processes
			count++
		}
	}
	links, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) { // something changed meanwhile
		links, err = netlink.LinkList()
	}
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range links {
		if a := l.Attrs(); a.Name != "ifb0" && a.Name != "ifb1" && !strings.HasPrefix(a.Name, "out") {
			lines = append(lines, fmt.Sprintf("%s: %s mtu %d group %d", a.Name, l.Type(), a.MTU, a.Group))
		}
	}
	slices.Sort(lines)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d fds\n%s\n", count, strings.Join(lines, "\n"))
	for _, e := range network.Elements(t) {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}

// settled is the state once it is as wanted, or half a minute later: connections of
// the tests end in their own time.
func settled(t testing.TB, want string) string {
	t.Helper()
	now := state(t)
	for end := time.Now().Add(30 * time.Second); now != want && time.Now().Before(end); now = state(t) {
		time.Sleep(10 * time.Millisecond)
	}
	return now
}

var errBroken = errors.New("broken by the test")

package network_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"cloudflash/agent/network"
	"golang.org/x/sys/unix"
)

func TestKernelPublish(t *testing.T) {
	h := newHost(t, nil)
	v := h.vm(0, network.NAT,
		network.Publish{HostPort: 8081, GuestPort: 80, Protocol: "tcp"},
		network.Publish{HostPort: 8081, GuestPort: 81, Protocol: "udp"},
		network.Publish{HostPort: 8082, GuestPort: 80, Protocol: "tcp", HostIP: netip.MustParseAddr("192.0.2.1")})
	v.listen("tcp", ":80")
	v.listen("udp4", ":81")
	other := h.vm(1, network.NAT)
	t.Run("from outside", func(t *testing.T) {
		if got := h.outside.reaches("tcp", "192.0.2.1:8081"); got != "192.0.2.2" {
			t.Errorf("came from %s", got)
		}
		h.outside.reaches("tcp", "[2001:db8::1]:8081")
		h.outside.reaches("udp", "192.0.2.1:8081")
		h.outside.reaches("tcp", "192.0.2.1:8082")
		h.outside.refused("tcp", "[2001:db8::1]:8082")
	})
	t.Run("from the host", func(t *testing.T) {
		for _, addr := range []string{"127.0.0.1:8081", "192.0.2.1:8081", "192.0.2.1:8082", "[2001:db8::1]:8081"} {
			if _, err := ask("tcp", addr, patience); err != nil {
				t.Error(err)
			}
		}
		if _, err := ask("udp", "127.0.0.1:8081", patience); err != nil {
			t.Error(err)
		}
		if _, err := ask("tcp", "127.0.0.1:8082", silence); err == nil {
			t.Error("a port of one address answers on another")
		}
	})
	t.Run("not from other VMs", func(t *testing.T) {
		other.refused("tcp", "192.0.2.1:8081", "10.88.0.1:8081")
	})
	attach := func(p ...network.Publish) error {
		l := other.link
		l.Publish = p
		_, err := h.Attach(t.Context(), l)
		return err
	}
	before := state(t)
	t.Run("ports of another VM are refused", func(t *testing.T) {
		for _, p := range []network.Publish{
			{HostPort: 8081, GuestPort: 80, Protocol: "tcp"},
			{HostPort: 8082, GuestPort: 80, Protocol: "tcp"},
			{HostPort: 8081, GuestPort: 80, Protocol: "udp", HostIP: netip.MustParseAddr("127.0.0.1")},
		} {
			err := attach(network.Publish{HostPort: 9000, GuestPort: 1, Protocol: "tcp"}, p)
			var taken *network.PortError
			if !errors.As(err, &taken) || !errors.Is(err, network.ErrPortTaken) || taken.VM != id(0) || taken.HostPort != p.HostPort {
				t.Errorf("%+v: %v", p, err)
			}
		}
		if err := attach(network.Publish{HostPort: 8082, GuestPort: 80, Protocol: "tcp", HostIP: netip.MustParseAddr("127.0.0.1")}); err != nil {
			t.Errorf("the same port on another address: %v", err)
		}
		if err := attach(); err != nil {
			t.Error(err)
		}
	})
	t.Run("ports of processes are refused", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:8083")
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", "[::1]:8084")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []network.Publish{{HostPort: 8083, GuestPort: 1, Protocol: "tcp"}, {HostPort: 8084, GuestPort: 1, Protocol: "udp"}} {
			var taken *network.PortError
			if err := attach(p); !errors.As(err, &taken) || taken.VM != "" || taken.HostPort != p.HostPort {
				t.Errorf("%+v: %v", p, err)
			}
		}
		l.Close()
		u.Close()
	})
	if after := settled(t, before); after != before {
		t.Errorf("refusals left something:\n%s\nbefore:\n%s", after, before)
	}
	t.Run("another agent knows them", func(t *testing.T) {
		n := h.restart()
		l := other.link
		l.Publish = v.link.Publish
		if _, err := n.Attach(t.Context(), l); !errors.Is(err, network.ErrPortTaken) {
			t.Error(err)
		}
		if _, err := n.Attach(t.Context(), v.link); err != nil {
			t.Error(err)
		}
		n.Close()
	})
	t.Run("a port goes with its VM", func(t *testing.T) {
		if err := h.Detach(id(0)); err != nil {
			t.Fatal(err)
		}
		h.outside.refused("tcp", "192.0.2.1:8081")
		if err := attach(v.link.Publish...); err != nil {
			t.Error(err)
		}
	})
}

func TestSystemResolver(t *testing.T) {
	cases := map[string]struct {
		conf, want string
		listen     string // where the resolver is on the host; empty when it is outside
		from       string // whom it hears
	}{
		"outside":             {conf: "nameserver 192.0.2.2", want: "nameserver 192.0.2.2\n", from: "192.0.2.1"},
		"loopback":            {conf: "nameserver 127.0.0.1", want: "nameserver 10.88.0.1\n", listen: "127.0.0.1:53", from: "127.0.0.1"},
		"another loopback":    {conf: "nameserver 127.0.0.2", want: "nameserver 10.88.0.1\n", listen: "127.0.0.2:53", from: "127.0.0.1"},
		"an address of ours":  {conf: "nameserver 192.0.2.1", want: "nameserver 192.0.2.1\n", listen: "192.0.2.1:53", from: "10.88.0.2"},
		"the cloud's":         {conf: "nameserver 169.254.169.254", want: "nameserver 10.88.0.1\n", from: "192.0.2.1"},
		"none is on loopback": {conf: "", want: "nameserver 10.88.0.1\n", listen: "127.0.0.1:53", from: "127.0.0.1"},
	}
	h := newHost(t, nil)
	v := h.vm(0, network.NAT)
	for _, network := range []string{"udp", "tcp"} {
		h.outside.listen(network, "192.0.2.2:53")
		h.outside.listen(network, "169.254.169.254:53")
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(h.cfg.ResolvConf, []byte(c.conf+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := h.ResolvConf()
			if err != nil || got != c.want {
				t.Fatalf("%q %v, want %q", got, err, c.want)
			}
			var direct sync.WaitGroup
			direct.Go(func() { v.refused("udp", "169.254.169.254:53") })
			for _, network := range []string{"udp", "tcp"} {
				if c.listen != "" {
					if err := answer(t, network, c.listen); err != nil {
						t.Fatal(err)
					}
				}
				server := strings.TrimSpace(strings.TrimPrefix(got, "nameserver "))
				if from := v.reaches(network, server+":53"); from != c.from {
					t.Errorf("%s: it hears %s, want %s", network, from, c.from)
				}
			}
			direct.Wait()
		})
	}
	// systemd-resolved binds its stub to lo: a redirect would not reach it.
	t.Run("bound to lo", func(t *testing.T) {
		if err := os.WriteFile(h.cfg.ResolvConf, []byte("nameserver 127.0.0.3\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := h.ResolvConf(); err != nil {
			t.Fatal(err)
		}
		l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") }), err)
		}}
		bound, err := l.Listen(t.Context(), "tcp", "127.0.0.3:53")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { bound.Close() })
		v.refused("tcp", "10.88.0.1:53")
	})
}

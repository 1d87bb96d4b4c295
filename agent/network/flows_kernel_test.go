package network_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"cloudflash/agent/network"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// client is somebody outside who goes on sending from one port.
type client struct{ net.Conn }

func (h *host) client(addr string) client {
	h.t.Helper()
	var c client
	err := h.outside.do(func() (err error) {
		c.Conn, err = net.Dial("udp", addr)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// answered reports whether somebody answers within a time.
func (c client) answered(within time.Duration) bool {
	b := make([]byte, 100)
	for end := time.Now().Add(within); time.Now().Before(end); {
		_, _ = c.Write([]byte("?")) // a port without a listener is an error of the packet before
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(b); err == nil {
			return true
		}
	}
	return false
}

// flowsOf are the tracked connections of an address.
func flowsOf(t *testing.T, ip net.IP) int {
	t.Helper()
	all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range all {
		if slices.ContainsFunc([]net.IP{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP}, ip.Equal) {
			n++
		}
	}
	return n
}

// Who was sending to a port of a VM does not reach who has its address next.
func TestKernelFlowsEndWithTheVM(t *testing.T) {
	h := newHost(t, nil)
	port := network.Publish{HostPort: 8081, GuestPort: 81, Protocol: "udp"}
	h.outside.listen("udp4", "192.0.2.2:5353")
	for name, detach := range map[string]func(vm string){
		"detached": func(vm string) {
			if err := h.Detach(vm); err != nil {
				t.Fatal(err)
			}
		},
		"killed before they were forgotten": func(vm string) {
			killed(h.Network, "flows", func() { _ = h.Detach(vm) })
			h.OnStep(func(string, string) error { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			first := h.vm(0, network.NAT, port)
			first.listen("udp4", ":81")
			first.reaches("udp4", "192.0.2.2:5353")
			c := h.client("192.0.2.1:8081")
			if !c.answered(patience) {
				t.Fatal("the port does not answer")
			}
			ip := net.IP(first.addr.IPv4.Addr().AsSlice())
			if n := flowsOf(t, ip); n < 2 {
				t.Fatalf("%d connections of %v", n, ip)
			}
			detach(first.link.ID)
			first.kill()

			second := newNamespace(t)
			l := network.Link{ID: id(7), Slot: 0, Mode: network.NAT, RateBPS: 10e9, PID: second.pid}
			if _, err := h.Attach(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			second.listen("udp4", ":81")
			if n := flowsOf(t, ip); n != 0 {
				t.Errorf("%d connections are left", n)
			}
			if c.answered(silence) {
				t.Error("the next VM, which publishes nothing, answers")
			}
			if err := h.Detach(l.ID); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who was sending to a port before somebody published it reaches that VM as soon as it does, and connections of a VM
// whose agent starts again go on.
func TestKernelFlowsBeforeAPort(t *testing.T) {
	h := newHost(t, nil)
	c := h.client("192.0.2.1:8082")
	if c.answered(silence) {
		t.Fatal("somebody answers")
	}
	v := h.vm(0, network.NAT, network.Publish{HostPort: 8082, GuestPort: 82, Protocol: "udp"})
	v.listen("udp4", ":82")
	if !c.answered(patience) {
		t.Error("what was sent before keeps the port from being reached")
	}

	ip := net.IP(v.addr.IPv4.Addr().AsSlice())
	n := h.restart()
	if _, err := n.Attach(context.Background(), v.link); err != nil {
		t.Fatal(err)
	}
	if flowsOf(t, ip) == 0 {
		t.Error("the connection ended with the agent")
	}
	n.Close()
}

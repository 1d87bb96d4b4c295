package network_test

import (
	"sync"
	"testing"

	"cloudflash/agent/network"
)

func TestKernelReach(t *testing.T) {
	h := newHost(t, nil)
	h.outside.listen("tcp", ":80")
	h.outside.listen("udp", "192.0.2.2:53")
	if err := answer(t, "tcp", ":8080"); err != nil {
		t.Fatal(err)
	}
	a, b := h.vm(0, network.NAT), h.vm(1, network.NAT)
	c, d := h.vm(2, network.Bridged), h.vm(3, network.Bridged)
	for _, v := range []*vm{a, b, c, d} {
		v.listen("tcp", ":80")
	}
	t.Run("the outside by NAT", func(t *testing.T) {
		for _, v := range []*vm{a, c} {
			if got := v.reaches("tcp", "192.0.2.2:80"); got != "192.0.2.1" {
				t.Errorf("came from %s", got)
			}
			v.reaches("tcp", "198.51.100.1:80")
			if got := v.reaches("tcp", "[2001:db8::2]:80"); got != "2001:db8::1" {
				t.Errorf("came from %s", got)
			}
			v.reaches("tcp", "[2001:db8:1::1]:80")
			v.reaches("udp", "192.0.2.2:53")
		}
	})
	t.Run("VMs are apart", func(t *testing.T) {
		var all sync.WaitGroup
		all.Go(func() { a.refused("tcp", b.ip4(80), b.ip6(80), c.ip4(80), c.ip6(80)) })
		all.Go(func() { c.refused("tcp", b.ip4(80), b.ip6(80)) })
		all.Wait()
		if out, err := a.try("ping -c1 -W1 " + b.addr.IPv4.Addr().String()); err == nil {
			t.Error(out)
		}
	})
	t.Run("VMs in bridge mode are not", func(t *testing.T) {
		if got := c.reaches("tcp", d.ip4(80)); got != c.addr.IPv4.Addr().String() {
			t.Errorf("came from %s", got)
		}
		if got := c.reaches("tcp", d.ip6(80)); got != c.addr.IPv6.Addr().String() {
			t.Errorf("came from %s", got)
		}
	})
	t.Run("services of the host are out of reach", func(t *testing.T) {
		for _, v := range []*vm{a, c} {
			var all sync.WaitGroup
			all.Go(func() {
				v.refused("tcp", "10.88.0.1:8080", "192.0.2.1:8080", "[fd0c:f1a5:c10d::1]:8080", "[2001:db8::1]:8080")
			})
			all.Go(func() { v.refused("udp", "10.88.0.1:53") })
			all.Wait()
			v.sh("ping -c1 -W30 10.88.0.1; ping -c1 -W30 fd0c:f1a5:c10d::1")
		}
	})
	t.Run("the host reaches VMs", func(t *testing.T) {
		for _, v := range []*vm{a, c} {
			for _, at := range []string{v.ip4(80), v.ip6(80)} {
				if _, err := ask("tcp", at, patience); err != nil {
					t.Error(err)
				}
			}
		}
	})
	t.Run("the outside does not, even with a route", func(t *testing.T) {
		h.outside.sh("ip route add 10.88.0.0/16 via 192.0.2.1")
		h.outside.refused("tcp", a.ip4(80))
	})
	t.Run("no metadata services", func(t *testing.T) {
		a.refused("tcp", "169.254.169.254:80") // outside
		if _, err := ask("tcp", "169.254.169.254:80", patience); err != nil {
			t.Error(err) // the host does
		}
		sh(t, "ip addr add 169.254.170.2/32 dev lo")
		a.refused("tcp", "169.254.170.2:8080") // on the host
		if _, err := ask("tcp", "169.254.170.2:8080", patience); err != nil {
			t.Error(err)
		}
		sh(t, "ip addr del 169.254.170.2/32 dev lo")
		a.sh("ip route add 127.1.0.0/16 via 10.88.0.1 && sysctl -qw net.ipv4.conf.all.route_localnet=1")
		a.refused("tcp", "127.1.0.1:8080") // the host's loopback
	})
	t.Run("isolated has loopback only", func(t *testing.T) {
		v := newNamespace(t)
		got, err := h.Attach(t.Context(), network.Link{ID: id(9), Slot: 9, Mode: network.Isolated, PID: v.pid})
		if err != nil || got != (network.Address{}) {
			t.Error(got, err)
		}
		if out := v.sh("ls /proc/sys/net/ipv4/conf"); out != "all\ndefault\nlo" {
			t.Error(out)
		}
	})
}

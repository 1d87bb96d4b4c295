package network_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"cloudflash/agent/network"
	"golang.org/x/sys/unix"
)

// send sends frames from eth0 as root in the VM can, all by one processor: so they
// stay in their order.
func (v *vm) send(frames ...[]byte) {
	v.t.Helper()
	err := v.do(func() error {
		var one unix.CPUSet
		one.Set(0)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return err
		}
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		v.t.Fatal(err)
	}
}

// arriving counts how many of three copies of a frame reach the bridge itself, so
// come through its rules, before one that is sent after them does, which has to.
func (v *vm) arriving(t *testing.T, sent, last []byte) (got int) {
	t.Helper()
	cf0, err := net.InterfaceByName("cf0")
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: cf0.Index, Protocol: all}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}); err != nil {
		t.Fatal(err)
	}
	v.send(sent, sent, sent, last)
	for b := make([]byte, 2048); ; {
		n, from, err := unix.Recvfrom(fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("not even the last frame arrives: %v", err)
		}
		if a := from.(*unix.SockaddrLinklayer); a.Pkttype == unix.PACKET_OUTGOING || n <= 14 {
			continue
		}
		switch {
		case bytes.Equal(b[:n], last):
			return got
		case bytes.HasSuffix(b[:n], sent[18:]): // a tag would be gone
			got++
		}
	}
}

type frame struct {
	dst, src net.HardwareAddr
	kind     uint16
	body     []byte
}

func (f frame) bytes() []byte {
	b := append(append([]byte{}, f.dst...), f.src...)
	return append(binary.BigEndian.AppendUint16(b, f.kind), f.body...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func ipv4(src, dst string) []byte {
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	b := append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0}, append(s[:], d[:]...)...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, 0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0) // UDP without a checksum
}

func ipv6(src, dst string, next byte, payload []byte) []byte {
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	b := []byte{0x60, 0, 0, 0, 0, byte(len(payload)), next, 255}
	return append(append(append(b, s[:]...), d[:]...), payload...)
}

func arp(op byte, mac net.HardwareAddr, ip, target string) []byte {
	s, d := netip.MustParseAddr(ip).As4(), netip.MustParseAddr(target).As4()
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, op}, mac...)
	return append(append(append(b, s[:]...), 0, 0, 0, 0, 0, 0), d[:]...)
}

func nd(kind byte, target string) []byte {
	a := netip.MustParseAddr(target).As16()
	return append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, a[:]...)
}

func TestKernelSpoofing(t *testing.T) {
	h := newHost(t, nil)
	v := h.vm(0, network.NAT)
	victim := h.vm(1, network.NAT)
	own := net.HardwareAddr{0x02, 0xcf, 10, 88, 0, 2}
	foreign := net.HardwareAddr{0x02, 0xcf, 10, 88, 0, 3}
	bridge := net.HardwareAddr{0x02, 0xcf, 10, 88, 0, 1}
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	const gateway, own6, victim6, link6 = "fd0c:f1a5:c10d::1", "fd0c:f1a5:c10d::2", "fd0c:f1a5:c10d::3", "fe80::cf:aff:fe58:2"
	icmp6 := func(src string, body []byte) []byte {
		return frame{bridge, own, 0x86dd, ipv6(src, gateway, 58, body)}.bytes()
	}
	cases := map[string]struct {
		frame []byte
		want  int
	}{
		"own address":                     {frame{bridge, own, 0x0800, ipv4("10.88.0.2", "192.0.2.2")}.bytes(), 1},
		"a neighbour's address":           {frame{bridge, own, 0x0800, ipv4("10.88.0.3", "192.0.2.2")}.bytes(), 0},
		"an outsider's address":           {frame{bridge, own, 0x0800, ipv4("198.51.100.7", "192.0.2.2")}.bytes(), 0},
		"the bridge's address":            {frame{bridge, own, 0x0800, ipv4("10.88.0.1", "192.0.2.2")}.bytes(), 0},
		"no address (DHCP)":               {frame{all, own, 0x0800, ipv4("0.0.0.0", "255.255.255.255")}.bytes(), 0},
		"a neighbour's MAC":               {frame{bridge, foreign, 0x0800, ipv4("10.88.0.2", "192.0.2.2")}.bytes(), 0},
		"a neighbour's MAC and address":   {frame{bridge, foreign, 0x0800, ipv4("10.88.0.3", "192.0.2.2")}.bytes(), 0},
		"the bridge's MAC":                {frame{bridge, bridge, 0x0800, ipv4("10.88.0.2", "192.0.2.2")}.bytes(), 0},
		"to loopback":                     {frame{bridge, own, 0x0800, ipv4("10.88.0.2", "127.0.0.1")}.bytes(), 0},
		"to metadata":                     {frame{bridge, own, 0x0800, ipv4("10.88.0.2", "169.254.169.254")}.bytes(), 0},
		"ARP for itself":                  {frame{all, own, 0x0806, arp(1, own, "10.88.0.2", "10.88.0.1")}.bytes(), 1},
		"ARP for a neighbour":             {frame{all, own, 0x0806, arp(2, own, "10.88.0.3", "10.88.0.1")}.bytes(), 0},
		"ARP for the bridge":              {frame{all, own, 0x0806, arp(2, own, "10.88.0.1", "10.88.0.3")}.bytes(), 0},
		"ARP with a neighbour's MAC":      {frame{all, own, 0x0806, arp(2, foreign, "10.88.0.2", "10.88.0.1")}.bytes(), 0},
		"ARP of another kind":             {frame{all, own, 0x0806, append([]byte{0, 6}, arp(1, own, "10.88.0.2", "10.88.0.1")[2:]...)}.bytes(), 0},
		"own IPv6 address":                {icmp6(own6, []byte{128, 0, 0, 0, 0, 0, 0, 0}), 1},
		"own link-local address":          {icmp6(link6, []byte{128, 0, 0, 0, 0, 0, 0, 0}), 1},
		"a neighbour's IPv6 address":      {icmp6(victim6, []byte{128, 0, 0, 0, 0, 0, 0, 0}), 0},
		"another link-local address":      {icmp6("fe80::1", []byte{128, 0, 0, 0, 0, 0, 0, 0}), 0},
		"advertises itself":               {icmp6(own6, nd(136, own6)), 1},
		"advertises a neighbour":          {icmp6(own6, nd(136, victim6)), 0},
		"advertises the bridge":           {icmp6(link6, nd(136, gateway)), 0},
		"asks for the bridge":             {icmp6(own6, nd(135, gateway)), 1},
		"looks for duplicates of itself":  {icmp6("::", nd(135, own6)), 1},
		"looks for duplicates of another": {icmp6("::", nd(135, gateway)), 0},
		"router advertisement":            {icmp6(link6, nd(134, own6)), 0},
		"redirect":                        {icmp6(link6, nd(137, own6)), 0},
		"to IPv6 metadata":                {frame{bridge, own, 0x86dd, ipv6(own6, "fd00:ec2::254", 17, []byte{0, 1, 0, 1, 0, 8, 0, 0})}.bytes(), 0},
		"hidden by an extension header":   {icmp6(link6, nil), 0}, // replaced below
		"a VLAN tag":                      {frame{bridge, own, 0x8100, append([]byte{0, 5, 8, 0}, ipv4("10.88.0.2", "192.0.2.2")...)}.bytes(), 0},
		"another protocol":                {frame{all, own, 0x88cc, make([]byte, 46)}.bytes(), 0},
		"an 802.3 frame (STP)":            {frame{net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, own, 38, make([]byte, 46)}.bytes(), 0},
	}
	hop := frame{bridge, own, 0x86dd, ipv6(link6, gateway, 0, append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, nd(136, victim6)...))}
	cases["hidden by an extension header"] = struct {
		frame []byte
		want  int
	}{hop.bytes(), 0}
	v.sh("ping -c1 -W30 10.88.0.1 >/dev/null") // neighbours are known from here on
	last := frame{bridge, own, 0x0800, ipv4("10.88.0.2", "192.0.2.9")}.bytes()
	for name, c := range cases {
		if got := v.arriving(t, c.frame, last); got != 3*c.want {
			t.Errorf("%s: %d of 3 frames arrive", name, got)
		}
	}
	// What cannot arrive cannot have poisoned anybody, but see.
	victim.listen("tcp", ":80")
	if _, err := ask("tcp", victim.ip4(80), patience); err != nil {
		t.Error(err)
	}
}

package network

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attr is a netlink attribute.
func attr(kind uint16, value ...[]byte) []byte {
	all := slices.Concat(value...)
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(all)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, all...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func nested(kind uint16, value ...[]byte) []byte { return attr(kind|unix.NLA_F_NESTED, value...) }

func tupleOf(kind uint16, src, dst string, sport, dport uint16) []byte {
	return nested(kind,
		nested(nl.CTA_TUPLE_IP,
			attr(nl.CTA_IP_V4_SRC, netip.MustParseAddr(src).AsSlice()),
			attr(nl.CTA_IP_V4_DST, netip.MustParseAddr(dst).AsSlice())),
		nested(nl.CTA_TUPLE_PROTO,
			attr(nl.CTA_PROTO_NUM, []byte{udp}),
			attr(nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, sport)),
			attr(nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, dport))))
}

// udpFlow is one from 192.0.2.2:40000 to 192.0.2.1:8081, which is 10.88.0.2:81.
func udpFlow() []byte {
	return slices.Concat(
		tupleOf(nl.CTA_TUPLE_ORIG, "192.0.2.2", "192.0.2.1", 40000, 8081),
		tupleOf(nl.CTA_TUPLE_REPLY, "10.88.0.2", "192.0.2.2", 81, 40000),
		attr(nl.CTA_STATUS, []byte{0, 0, 1, 0x86}))
}

func TestParseFlow(t *testing.T) {
	b := udpFlow()
	want := flow{
		orig:  tuple{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1"), udp, 8081},
		reply: tuple{netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("192.0.2.2"), udp, 40000},
	}
	if got := parseFlow(b); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	ours := map[netip.Addr]bool{want.orig.dst: true}
	port := func(at string, n uint16) past {
		a, _ := netip.ParseAddr(at)
		return past{ports: []netip.AddrPort{netip.AddrPortFrom(a, n)}}
	}
	for name, tt := range map[string]struct {
		past past
		has  bool
	}{
		"the VM's address":        {past{addresses: []netip.Addr{want.reply.src}}, true},
		"another address":         {past{addresses: []netip.Addr{netip.MustParseAddr("10.88.0.3")}}, false},
		"the port":                {port("", 8081), true},
		"the port at the address": {port("192.0.2.1", 8081), true},
		"the port at another":     {port("192.0.2.9", 8081), false},
		"another port":            {port("", 8082), false},
		"the source is no port":   {port("", 40000), false},
		"nothing":                 {past{}, false},
	} {
		if got := tt.past.has(want, ours); got != tt.has {
			t.Errorf("%s: %v", name, got)
		}
	}
	if (past{ports: port("", 8081).ports}).has(want, nil) {
		t.Error("a port of somebody beyond the host is the host's")
	}
}

func FuzzParseFlow(f *testing.F) {
	f.Add(udpFlow())
	f.Add([]byte{4, 0, 1, 0x80, 3, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { parseFlow(b) })
}

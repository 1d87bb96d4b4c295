package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// past is what the kernel is to forget of: connections of VMs that have had these
// addresses, and what was sent to these UDP ports of the host. What it tracks goes on being
// let through and translated, whoever has the address or the port by now.
type past struct {
	addresses []netip.Addr
	ports     []netip.AddrPort // the zero address is every one of the host
}

// past is that of elements which come or go.
func (t *table) past(all []element) past {
	var p past
	for _, e := range all {
		switch e.set.Name {
		case t.allowed4.Name:
			p.addresses = append(p.addresses, addrOf(e.key[len(e.key)-net.IPv4len:]))
		case t.allowed6.Name:
			p.addresses = append(p.addresses, addrOf(e.key[len(e.key)-net.IPv6len:]))
		}
		if strings.HasPrefix(e.set.Name, "publish") {
			at, key := e.key[:len(e.key)-8], e.key[len(e.key)-8:] // see published
			if key[0] == udp {
				p.ports = append(p.ports, netip.AddrPortFrom(addrOf(at), binary.BigEndian.Uint16([]byte(key[4:]))))
			}
		}
	}
	return p
}

// addrOf is an address as keys have it, the zero one where there is none.
func addrOf(raw string) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(raw))
	return a
}

// forget makes the kernel forget. It reads all that is tracked: one caller at a time.
func (n *Network) forget(p past) error {
	if len(p.addresses)+len(p.ports) == 0 {
		return nil
	}
	n.tracking.Lock()
	defer n.tracking.Unlock()
	local, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	ours := map[netip.Addr]bool{}
	for _, a := range local {
		if ip, ok := a.(*net.IPNet); ok {
			at, _ := netip.AddrFromSlice(ip.IP)
			ours[at.Unmap()] = true
		}
	}

	families := []uint8{unix.AF_INET}
	if n.ipv6 {
		families = append(families, unix.AF_INET6)
	}
	for _, family := range families {
		err := forgetIn(family, func(f flow) bool { return p.has(f, ours) })
		// EINVAL is a kernel without nf_conntrack_netlink.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("forget connections: %w", err)
		}
	}
	return nil
}

// has reports whether a flow is to be forgotten. Ours are the host's addresses.
func (p past) has(f flow, ours map[netip.Addr]bool) bool {
	for _, a := range []netip.Addr{f.orig.src, f.orig.dst, f.reply.src, f.reply.dst} {
		if slices.Contains(p.addresses, a) {
			return true
		}
	}
	return f.orig.protocol == udp && slices.ContainsFunc(p.ports, func(at netip.AddrPort) bool {
		return at.Port() == f.orig.port && (at.Addr() == f.orig.dst || !at.Addr().IsValid() && ours[f.orig.dst])
	})
}

// flow is a tracked connection, in both directions.
type flow struct{ orig, reply tuple }

type tuple struct {
	src, dst netip.Addr
	protocol byte
	port     uint16 // of dst
}

// forgetIn removes those flows of a family that match. Only they are kept in memory.
func forgetIn(family uint8, match func(flow) bool) error {
	var found [][]byte
	err := conntrack(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, family).ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
		if len(msg) > nl.SizeofNfgenmsg && match(parseFlow(msg[nl.SizeofNfgenmsg:])) {
			found = append(found, slices.Clone(msg[nl.SizeofNfgenmsg:]))
		}
		return true
	})
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) { // what it missed has come since
		return err
	}
	var errs []error
	for _, f := range found {
		req := conntrack(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, family)
		req.AddRawData(f)
		if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// conntrack is a request to the table of tracked connections (ctnetlink).
func conntrack(message, flags int, family uint8) *nl.NetlinkRequest {
	const table = 1 // NFNL_SUBSYS_CTNETLINK of linux/netfilter/nfnetlink.h
	req := nl.NewNetlinkRequest(table<<8|message, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return req
}

// parseFlow takes out of a message what forget looks at; what is not there is zero.
func parseFlow(attributes []byte) (f flow) {
	for kind, value := range each(attributes) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			f.orig = parseTuple(value)
		case nl.CTA_TUPLE_REPLY:
			f.reply = parseTuple(value)
		}
	}
	return f
}

func parseTuple(attributes []byte) (t tuple) {
	for kind, value := range each(attributes) {
		for part, v := range each(value) {
			switch {
			case kind == nl.CTA_TUPLE_IP && (part == nl.CTA_IP_V4_SRC || part == nl.CTA_IP_V6_SRC):
				t.src, _ = netip.AddrFromSlice(v)
			case kind == nl.CTA_TUPLE_IP && (part == nl.CTA_IP_V4_DST || part == nl.CTA_IP_V6_DST):
				t.dst, _ = netip.AddrFromSlice(v)
			case kind == nl.CTA_TUPLE_PROTO && part == nl.CTA_PROTO_NUM && len(v) > 0:
				t.protocol = v[0]
			case kind == nl.CTA_TUPLE_PROTO && part == nl.CTA_PROTO_DST_PORT && len(v) > 1:
				t.port = binary.BigEndian.Uint16(v)
			}
		}
	}
	return t
}

// each are the netlink attributes in b, by kind; what is malformed ends them.
func each(b []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		for len(b) >= syscall.SizeofRtAttr {
			size := int(nl.NativeEndian().Uint16(b))
			kind := int(nl.NativeEndian().Uint16(b[2:])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < syscall.SizeofRtAttr || size > len(b) || !yield(kind, b[syscall.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

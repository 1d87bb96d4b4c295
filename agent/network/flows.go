package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addresses are those that the elements let a VM have.
func (t *table) addresses(all []element) []netip.Addr {
	var found []netip.Addr
	for _, e := range all {
		length := 0
		switch e.set.Name {
		case t.allowed4.Name:
			length = net.IPv4len
		case t.allowed6.Name:
			length = net.IPv6len
		}
		if a, ok := netip.AddrFromSlice([]byte(e.key[len(e.key)-length:])); ok {
			found = append(found, a)
		}
	}
	return found
}

// ports are those of the host that the elements publish for UDP. The kernel remembers what
// was sent to them before, also where nobody has answered.
func (t *table) ports(all []element) []uint16 {
	var found []uint16
	for _, e := range all {
		if !strings.HasPrefix(e.set.Name, "publish") {
			continue
		}
		key := e.key[len(e.key)-8:] // see published
		if key[0] == udp {
			found = append(found, uint16(key[4])<<8|uint16(key[5]))
		}
	}
	return found
}

// forgetFlows makes the kernel forget the connections of VMs that have had these addresses,
// and what was sent to these UDP ports of the host: what it tracks goes on being let
// through and translated, whoever has the address or the port by now.
func (n *Network) forgetFlows(addresses []netip.Addr, ports []uint16) error {
	if len(addresses)+len(ports) == 0 {
		return nil
	}
	local, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	ours := func(ip net.IP) bool {
		return slices.ContainsFunc(local, func(a net.Addr) bool { p, ok := a.(*net.IPNet); return ok && p.IP.Equal(ip) })
	}
	gone := flowsThat(func(f *netlink.ConntrackFlow) bool {
		for _, ip := range []net.IP{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP} {
			if a, ok := netip.AddrFromSlice(ip); ok && slices.Contains(addresses, a.Unmap()) {
				return true
			}
		}
		return f.Forward.Protocol == udp && slices.Contains(ports, f.Forward.DstPort) && ours(f.Forward.DstIP)
	})

	families := []netlink.InetFamily{unix.AF_INET}
	if n.ipv6 {
		families = append(families, unix.AF_INET6)
	}
	var errs []error
	for _, family := range families {
		_, err := n.route.ConntrackDeleteFilters(netlink.ConntrackTable, family, gone)
		// EINVAL is a kernel without nf_conntrack_netlink.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
			errs = append(errs, fmt.Errorf("forget connections: %w", err))
		}
	}
	return errors.Join(errs...)
}

// flowsThat is a filter of tracked connections.
type flowsThat func(*netlink.ConntrackFlow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (match flowsThat) MatchConntrackFlow(f *netlink.ConntrackFlow) bool { return match(f) }

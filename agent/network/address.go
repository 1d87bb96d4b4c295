package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// MaxSlots is how many VMs a host can have by the device groups reserved for them.
const MaxSlots = 4094

// A VM's two links are in a device group of their own. So one call removes both,
// a mark is there from their first moment, and a rule can tell a VM's frames by
// the group of the port they come from.
const (
	groupBase   = 0x0cf1a000
	groupMask   = 0xfffff000
	groupProbe  = groupBase + MaxSlots
	groupBridge = groupBase + MaxSlots + 1
)

func group(slot int) uint32     { return groupBase + uint32(slot) }
func ourGroup(g uint32) bool    { return g&groupMask == groupBase }
func vethName(id string) string { return "cfv" + id }
func ifbName(id string) string  { return "cfi" + id }

// vmID is the form of ids. Names of interfaces hold 15 characters.
var vmID = regexp.MustCompile(`^[0-9a-f]{10}$`)

// linkID is the id of the VM that a link of that name belongs to, or empty.
func linkID(name string) string {
	for _, prefix := range []string{"cfv", "cfi"} {
		if id, ok := strings.CutPrefix(name, prefix); ok && vmID.MatchString(id) {
			return id
		}
	}
	return ""
}

// slots is how many VMs the pool has addresses for: not for the network's own,
// the bridge's and the broadcast address.
func (c Config) slots() int { return min(1<<(32-c.Pool.Bits())-3, MaxSlots) }

// address is where the VM of a slot is: the bridge comes first, then slot 0.
func (c Config) address(slot int) (Address, error) {
	if slot < 0 || slot >= c.slots() {
		return Address{}, &PoolError{Pool: c.Pool, Slot: slot, Size: c.slots()}
	}
	return Address{IPv4: host(c.Pool, slot+2), IPv6: host(c.ULA, slot+2)}, nil
}

// gateway is the address of the bridge.
func (c Config) gateway() Address {
	return Address{IPv4: host(c.Pool, 1), IPv6: host(c.ULA, 1)}
}

// host is the nth address of a network.
func host(p netip.Prefix, n int) netip.Prefix {
	b := p.Addr().AsSlice()
	last := b[len(b)-4:]
	binary.BigEndian.PutUint32(last, binary.BigEndian.Uint32(last)+uint32(n))
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits())
}

// mac is the hardware address that belongs to an IPv4 address: locally
// administered, and no two VMs of a host share one.
func mac(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0xcf, b[0], b[1], b[2], b[3]}
}

// linkLocal is the IPv6 address that the kernel makes from a hardware address
// (RFC 4291, appendix A).
func linkLocal(m net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// all are the addresses there are, IPv4 first.
func (a Address) all() []netip.Prefix {
	if !a.IPv6.IsValid() {
		return []netip.Prefix{a.IPv4}
	}
	return []netip.Prefix{a.IPv4, a.IPv6}
}

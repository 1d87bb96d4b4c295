package network

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	tcp    = unix.IPPROTO_TCP
	udp    = unix.IPPROTO_UDP
	icmp   = unix.IPPROTO_ICMP
	icmpv6 = unix.IPPROTO_ICMPV6
)

// Types of ICMPv6 (RFC 4861).
const (
	routerSolicitation    = 133
	routerAdvertisement   = 134
	neighbourSolicitation = 135
	neighbourAdvertise    = 136
	redirect              = 137
)

var (
	loopback4  = netip.MustParsePrefix("127.0.0.0/8")
	linkLocal4 = netip.MustParsePrefix("169.254.0.0/16") // metadata of most clouds
	metadata6  = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254")}
)

// A chain is a list of rules; a hooked one has a type.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    []match
}

// bridgeChains keep VMs to their own addresses and apart from each other. It
// sees frames after the shaper: those that mirred has taken to the IFB come
// back behind the ingress hook of the netdev family, so that one would see none.
func (t *table) bridgeChains() []chain {
	sender := rule(match{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}}, etherSource.to(reg+4))
	peers := rule(match{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}}, in(t.peers),
		match{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}}, in(t.peers), accept())
	return []chain{
		// -300 is before br_netfilter, which runs the chains of IP at 0 in the same hook.
		{"from-vm", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, []match{
			rule(not(ours(expr.MetaKeyIIFGROUP)), accept()),
			rule(etherType.is(0x08, 0x00), sender, ip4Source.to(reg+6), in(t.allowed4), jump("ipv4")),
			// Ethernet and IPv4; sender as in the frame's header, and in the packet as in the frame's.
			rule(etherType.is(0x08, 0x06), arpHeader.is(0, 1, 8, 0, 6, 4), sender, arpSenderIP.to(reg+6), in(t.allowed4),
				arpSenderMAC.to(reg+4), in(t.allowed4), accept()),
			rule(etherType.is(0x86, 0xdd), jump("ipv6")),
			drop(),
		}},
		{"vm-to-vm", nftables.ChainTypeFilter, nftables.ChainHookForward, -200, []match{
			peers,
			rule(ours(expr.MetaKeyIIFGROUP), drop()),
			rule(ours(expr.MetaKeyOIFGROUP), drop()),
		}},
		{name: "ipv4", rules: []match{
			rule(ip4Dest.within(loopback4), drop()),
			rule(ip4Dest.within(linkLocal4), drop()),
			accept(),
		}},
		{name: "ipv6", rules: []match{
			rule(l4(icmpv6), icmpType.is(routerSolicitation), drop()),
			rule(l4(icmpv6), icmpType.is(routerAdvertisement), drop()),
			rule(l4(icmpv6), icmpType.is(redirect), drop()),
			rule(l4(icmpv6), icmpType.is(neighbourAdvertise), sender, ndTarget.to(reg+6), notIn(t.allowed6), drop()),
			rule(ip6Dest.is(metadata6[0].AsSlice()...), drop()),
			rule(ip6Dest.is(metadata6[1].AsSlice()...), drop()),
			rule(sender, ip6Source.to(reg+6), in(t.allowed6), accept()),
			// Duplicate address detection comes from nobody, and only for the VM's own address.
			rule(l4(icmpv6), icmpType.is(neighbourSolicitation), ip6Source.is(make([]byte, 16)...), sender, ndTarget.to(reg+6), in(t.allowed6), accept()),
			drop(),
		}},
	}
}

// inetChains are the host's side: what VMs may reach of it and through it.
func (t *table) inetChains(r resolvers) []chain {
	bridge := t.cfg.Bridge
	return []chain{
		{"input", nftables.ChainTypeFilter, nftables.ChainHookInput, 0, []match{
			rule(not(iif(bridge)), accept()),
			rule(known(), accept()),
			jump("resolvers"),
			rule(version(unix.NFPROTO_IPV4), l4(icmp), icmpType.is(8), accept()),
			rule(version(unix.NFPROTO_IPV6), l4(icmpv6), icmpType.is(128), accept()),
			rule(version(unix.NFPROTO_IPV6), l4(icmpv6), icmpType.is(neighbourSolicitation), accept()),
			rule(version(unix.NFPROTO_IPV6), l4(icmpv6), icmpType.is(neighbourAdvertise), accept()),
			drop(),
		}},
		{"forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, []match{
			rule(iif(bridge), oif(bridge), jump("peers")),
			rule(iif(bridge), version(unix.NFPROTO_IPV4), not(translated()), ip4Dest.within(linkLocal4), drop()),
			rule(iif(bridge), accept()),
			rule(oif(bridge), known(), accept()),
			rule(oif(bridge), translated(), accept()),
			rule(oif(bridge), drop()),
		}},
		// With br_netfilter, what the bridge forwards comes here, too.
		{name: "peers", rules: []match{
			rule(version(unix.NFPROTO_IPV4), ip4Source.to(reg), in(t.peers4), ip4Dest.to(reg), in(t.peers4), accept()),
			rule(version(unix.NFPROTO_IPV6), ip6Source.to(reg), in(t.peers6), ip6Dest.to(reg), in(t.peers6), accept()),
			rule(version(unix.NFPROTO_IPV6), ip6Dest.within(netip.MustParsePrefix("ff02::/16")), accept()), // neighbour discovery among them
			drop(),
		}},
		{name: "resolvers", rules: resolverRules(r)},
		{"prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100, []match{
			rule(iif(bridge), jump("dns")),
			rule(iif(bridge), accept()),
			rule(local(), jump("published")),
		}},
		{"output", nftables.ChainTypeNAT, nftables.ChainHookOutput, -100, []match{
			rule(version(unix.NFPROTO_IPV6), ip6Dest.is(netip.IPv6Loopback().AsSlice()...), accept()),
			rule(local(), jump("published")),
		}},
		{name: "published", rules: []match{
			rule(version(unix.NFPROTO_IPV4), ip4Dest.to(reg), portTo(reg+1), toVM(t.publish4at, unix.NFPROTO_IPV4)),
			rule(version(unix.NFPROTO_IPV4), portTo(reg), toVM(t.publish4, unix.NFPROTO_IPV4)),
			rule(version(unix.NFPROTO_IPV6), ip6Dest.to(reg), portTo(reg+4), toVM(t.publish6at, unix.NFPROTO_IPV6)),
			rule(version(unix.NFPROTO_IPV6), portTo(reg), toVM(t.publish6, unix.NFPROTO_IPV6)),
		}},
		{name: "dns", rules: t.dnsRules(r)},
		{"resolver-input", nftables.ChainTypeNAT, nftables.ChainHookInput, 100, []match{
			// A resolver on loopback answers nobody else.
			rule(iif(bridge), version(unix.NFPROTO_IPV4), ip4Dest.within(loopback4), match{
				&expr.Immediate{Register: reg, Data: []byte{127, 0, 0, 1}},
				&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg}}),
		}},
		{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100, []match{
			rule(oif(bridge), version(unix.NFPROTO_IPV4), ip4Source.within(loopback4), masquerade()), // host to its 127.0.0.1:port
			rule(oif(bridge), accept()),
			rule(version(unix.NFPROTO_IPV4), ip4Source.within(t.cfg.Pool), masquerade()),
			rule(version(unix.NFPROTO_IPV6), ip6Source.within(t.cfg.ULA), masquerade()),
		}},
	}
}

// portTo puts protocol and port into two registers.
func portTo(r uint32) match {
	return rule(match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r}}, destPort.to(r+1))
}

// toVM sends a packet to the address and port that the map has for the registers.
func toVM(m *nftables.Set, family uint32) match {
	port := uint32(reg + 1)
	if family == unix.NFPROTO_IPV6 {
		port = reg + 4
	}
	return match{
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg, RegProtoMin: port},
	}
}

// resolverRules let VMs ask the resolvers of the host that are on the host.
func resolverRules(r resolvers) []match {
	var all []match
	for _, a := range r.hosts() {
		at := rule(version(unix.NFPROTO_IPV4), ip4Dest.is(a.AsSlice()...))
		if a.Is6() {
			at = rule(version(unix.NFPROTO_IPV6), ip6Dest.is(a.AsSlice()...))
		}
		all = append(all, rule(at, dnsQuery(udp), accept()), rule(at, dnsQuery(tcp), accept()))
	}
	return all
}

// dnsRules take questions to the bridge's address to a resolver that no VM could
// name: one on loopback or at a link-local address.
func (t *table) dnsRules(r resolvers) []match {
	if !r.redirect.IsValid() {
		return nil
	}
	gateway := t.cfg.gateway().IPv4.Addr()
	to := match{
		&expr.Immediate{Register: reg, Data: r.redirect.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg},
	}
	at := rule(version(unix.NFPROTO_IPV4), ip4Dest.is(gateway.AsSlice()...))
	return []match{rule(at, dnsQuery(udp), to), rule(at, dnsQuery(tcp), to)}
}

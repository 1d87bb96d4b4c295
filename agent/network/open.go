package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func (n *Network) openTable(context.Context) error {
	_, r, err := n.readResolvers()
	if err != nil && !errors.Is(err, ErrNoResolver) {
		return err
	}
	return n.table.install(r)
}

// bridge finds ours; nil when there is none.
func (n *Network) bridge() (netlink.Link, error) {
	l, err := n.link(n.cfg.Bridge)
	if l == nil || err != nil {
		return nil, err
	}
	if l.Type() != "bridge" || l.Attrs().Group != groupBridge {
		return nil, fmt.Errorf("%s: %w", n.cfg.Bridge, ErrForeign)
	}
	return l, nil
}

// Owners are Config.Owner of the agents that have made bridges on this machine, whatever
// their names, but for those that have not told.
func Owners() ([]string, error) {
	links, err := netlink.LinkList()
	for range 10 { // while links come and go
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		links, err = netlink.LinkList()
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var owners []string
	for _, l := range links {
		if l.Type() == "bridge" && l.Attrs().Group == groupBridge && l.Attrs().Alias != "" {
			owners = append(owners, l.Attrs().Alias)
		}
	}
	return owners, nil
}

// link is the link of that name; nil when there is none.
func (n *Network) link(name string) (netlink.Link, error) {
	if n.route == nil {
		return nil, errNotOpen
	}
	l, err := n.route.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return l, nil
}

func (n *Network) openBridge(context.Context) error {
	b, err := n.bridge()
	if err != nil {
		return err
	}
	if err := n.poolIsFree(); err != nil {
		return err
	}
	if b == nil { // where there is one, an earlier agent has tried the rest
		if err := n.probe(); err != nil {
			return err
		}
		if b, err = n.newBridge(); err != nil {
			return err
		}
	}
	if b.Attrs().Alias != n.cfg.Owner { // also where it cannot be told: it is another's no more
		if err := n.route.LinkSetAlias(b, n.cfg.Owner); err != nil {
			return fmt.Errorf("name the owner of %s: %w", n.cfg.Bridge, err)
		}
	}
	gateway := n.cfg.gateway()
	for _, p := range []netip.Prefix{gateway.IPv4, gateway.IPv6} {
		if p.Addr().Is6() && !n.ipv6 {
			continue
		}
		if err := n.route.AddrReplace(b, &netlink.Addr{IPNet: ipNet(p), Flags: addrFlags(p)}); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, n.cfg.Bridge, err)
		}
	}
	if err := n.bridgeSettings(); err != nil {
		return err
	}
	if err := n.route.LinkSetUp(b); err != nil {
		return fmt.Errorf("set %s up: %w", n.cfg.Bridge, err)
	}
	return nil
}

// addrFlags: duplicate address detection would keep an IPv6 address from use for
// a second, and nobody else can have ours.
func addrFlags(p netip.Prefix) int {
	if p.Addr().Is6() {
		return unix.IFA_F_NODAD
	}
	return 0
}

func (n *Network) newBridge() (netlink.Link, error) {
	a := netlink.NewLinkAttrs()
	a.Name, a.Group = n.cfg.Bridge, groupBridge
	a.HardwareAddr = mac(n.cfg.gateway().IPv4.Addr()) // its own, or it would be that of a VM and change with them
	snooping := false                                 // would lose neighbour discovery: there is no querier
	b := &netlink.Bridge{LinkAttrs: a, MulticastSnooping: &snooping}
	if err := n.route.LinkAdd(b); err != nil {
		return nil, lacks("bridge", fmt.Errorf("add %s: %w", n.cfg.Bridge, err))
	}
	return b, nil
}

// poolIsFree refuses a pool that other links of the host have routes into.
// Wider routes, such as one for all of 10.0.0.0/8, give way to the bridge's.
func (n *Network) poolIsFree() error {
	routes, err := n.route.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list routes: %w", err)
	}
	bridge := 0
	if b, err := n.link(n.cfg.Bridge); err == nil && b != nil {
		bridge = b.Attrs().Index
	}
	for _, r := range routes {
		if r.Dst == nil || r.LinkIndex == bridge {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		dst := netip.PrefixFrom(a.Unmap(), bits)
		for _, own := range []netip.Prefix{n.cfg.Pool, n.cfg.ULA} {
			if ok && dst.Overlaps(own) && dst.Bits() >= own.Bits() {
				return fmt.Errorf("pool %s: %w: there is a route to %s", own, ErrPoolInUse, dst)
			}
		}
	}
	return nil
}

// probe tries each kind of link and of shaping once, so that a kernel without
// one is found out now and not by the first VM.
func (n *Network) probe() error {
	if err := n.deleteGroup(groupProbe); err != nil { // left by an earlier one
		return err
	}
	a := netlink.NewLinkAttrs()
	a.Name, a.Group = "cfprobe0", groupProbe
	veth := &netlink.Veth{LinkAttrs: a, PeerName: "cfprobe1"}
	if err := n.route.LinkAdd(veth); err != nil {
		return lacks("veth", fmt.Errorf("add %s: %w", a.Name, err))
	}
	b := netlink.NewLinkAttrs()
	b.Name, b.Group = "cfprobe2", groupProbe
	ifb := &netlink.Ifb{LinkAttrs: b}
	err := n.route.LinkAdd(ifb)
	if err != nil {
		err = lacks("ifb", fmt.Errorf("add %s: %w", b.Name, err))
	} else {
		err = n.shape(veth, ifb, 10e6)
	}
	return errors.Join(err, n.deleteGroup(groupProbe))
}

// lacks turns the kernel's ways to say "no such kind" into an UnsupportedError.
func lacks(feature string, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return &UnsupportedError{Feature: feature, Err: err}
	}
	return err
}

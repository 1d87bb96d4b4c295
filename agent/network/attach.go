package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Attach makes the network of a VM what the link says: addresses, limits, ports.
// It may be repeated, with changes or without; connections go on where nothing
// about them changes. On an error, what it made is unmade, and a VM that was
// connected before stays so.
func (n *Network) Attach(ctx context.Context, l Link) (Address, error) {
	a, err := n.attach(ctx, l)
	if err != nil {
		return Address{}, fmt.Errorf("attach %s: %w", l.ID, err)
	}
	return a, nil
}

func (n *Network) attach(ctx context.Context, l Link) (Address, error) {
	if err := l.check(); err != nil {
		return Address{}, err
	}
	if n.route == nil {
		return Address{}, errNotOpen
	}
	if l.Mode == Isolated {
		return Address{}, n.Detach(l.ID)
	}
	a, err := n.cfg.address(l.Slot)
	if err != nil {
		return Address{}, err
	}
	if !n.ipv6 {
		a.IPv6 = Address{}.IPv6
	}
	ns, err := openNamespace(l.PID)
	if err != nil {
		return Address{}, err
	}
	defer ns.Close()
	at := &attaching{Network: n, link: l, addr: a, ns: ns}
	for _, step := range at.steps() {
		err := errors.Join(ctx.Err(), n.step(l.ID, step.name))
		if err == nil {
			err = step.do()
		}
		if err != nil {
			return Address{}, errors.Join(err, at.undo())
		}
	}
	return a, nil
}

// attaching is one call of Attach on its way.
type attaching struct {
	*Network
	link      Link
	addr      Address
	ns        *os.File
	veth, ifb netlink.Link
	elements  []element      // that came or went
	undone    []func() error // how to take back what was done, oldest first
}

type step struct {
	name string
	do   func() error
}

// steps in their order: the rules before the port they are for, the limits
// before anything can flow. The kernel also waits for all processors when it
// gives a limit to a link that is up.
func (at *attaching) steps() []step {
	return []step{
		{"elements", at.admit},
		// Flows of an address that is new to the VM are those of a VM before, whose agent was killed
		// before it had them forgotten.
		{"flows", func() error { return at.forget(at.table.past(at.elements)) }},
		{"veth", at.makeVeth},
		{"ifb", at.makeIFB},
		{"shape", func() error { return at.shape(at.veth, at.ifb, at.link.RateBPS) }},
		{"port", at.plug},
		{"inside", at.configure},
	}
}

func (at *attaching) undo() error {
	var errs []error
	for _, f := range slices.Backward(at.undone) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (at *attaching) admit() error {
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.table == nil {
		return errNotOpen
	}
	add, del, err := at.table.admit(at.link, at.addr)
	if err != nil {
		return err
	}
	undo := func() error { return at.table.change(del, add) }
	at.elements = slices.Concat(add, del)
	at.undone = append(at.undone, func() error {
		at.mu.Lock()
		defer at.mu.Unlock()
		return undo()
	})
	return nil
}

// makeVeth makes the pair, its far end in the VM's namespace, unless it is there.
func (at *attaching) makeVeth() error {
	name := vethName(at.link.ID)
	old, err := at.own(name)
	if err != nil {
		return err
	}
	if old != nil && at.leadsToVM(old) {
		at.veth = old
		return nil
	}
	if old != nil { // to a namespace of an init that is gone
		if err := at.deleteGroup(old.Attrs().Group); err != nil {
			return err
		}
	}
	a := netlink.NewLinkAttrs()
	a.Name, a.Group = name, group(at.link.Slot)
	v := &netlink.Veth{LinkAttrs: a, PeerName: inside, PeerHardwareAddr: mac(at.addr.IPv4.Addr()), PeerNamespace: netlink.NsFd(at.ns.Fd())}
	if err := at.route.LinkAdd(v); err != nil {
		return lacks("veth", fmt.Errorf("add %s: %w", name, err))
	}
	at.undone = append(at.undone, func() error { return at.deleteGroup(a.Group) })
	at.veth = v
	return nil
}

// inside is the name of the VM's end.
const inside = "eth0"

// leadsToVM says whether the far end of a pair is in the VM's namespace and was
// made for this slot.
func (at *attaching) leadsToVM(l netlink.Link) bool {
	id, err := at.route.GetNetNsIdByFd(int(at.ns.Fd()))
	return err == nil && id >= 0 && l.Type() == "veth" && l.Attrs().NetNsID == id && l.Attrs().Group == group(at.link.Slot)
}

func (at *attaching) makeIFB() error {
	name := ifbName(at.link.ID)
	old, err := at.own(name)
	if err != nil {
		return err
	}
	if old != nil && old.Type() == "ifb" && old.Attrs().Group == group(at.link.Slot) {
		at.ifb = old
		return nil
	}
	if old != nil {
		if err := at.route.LinkDel(old); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	a := netlink.NewLinkAttrs()
	a.Name, a.Group = name, group(at.link.Slot)
	at.ifb = &netlink.Ifb{LinkAttrs: a}
	if err := at.route.LinkAdd(at.ifb); err != nil {
		return lacks("ifb", fmt.Errorf("add %s: %w", name, err))
	}
	at.undone = append(at.undone, func() error { return at.deleteGroup(a.Group) })
	return nil
}

// quiet sets a link up without an IPv6 address, about which the kernel would
// tell the neighbours.
func (n *Network) quiet(l netlink.Link) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	if n.ipv6 {
		if err := n.route.LinkSetIP6AddrGenMode(l, none); err != nil {
			return fmt.Errorf("silence %s: %w", l.Attrs().Name, err)
		}
	}
	if err := n.route.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
	}
	return nil
}

// plug makes the near end a port of the bridge. Ports of VMs that may not talk
// to each other are isolated there, too, which the kernel looks at before any rule.
func (at *attaching) plug() error {
	b, err := at.bridge()
	if err == nil && b == nil {
		err = fmt.Errorf("find %s: %w", at.cfg.Bridge, unix.ENODEV)
	}
	if err != nil {
		return err
	}
	if at.veth.Attrs().MasterIndex != b.Attrs().Index {
		if err := at.route.LinkSetMasterByIndex(at.veth, b.Attrs().Index); errors.Is(err, unix.EXFULL) {
			return fmt.Errorf("plug %s into %s: %w: it has 1023 ports", at.veth.Attrs().Name, at.cfg.Bridge, ErrExhausted)
		} else if err != nil {
			return fmt.Errorf("plug %s into %s: %w", at.veth.Attrs().Name, at.cfg.Bridge, err)
		}
	}
	if err := at.route.LinkSetIsolated(at.veth, at.link.Mode != Bridged); err != nil {
		return fmt.Errorf("isolate %s: %w", at.veth.Attrs().Name, err)
	}
	return errors.Join(at.quiet(at.ifb), at.quiet(at.veth))
}

// configure gives the VM's end its addresses and routes, through a socket opened
// in the VM's namespace.
func (at *attaching) configure() error {
	h, err := netlink.NewHandleAt(namespace(at.ns), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter the network namespace of %d: %w", at.link.PID, err)
	}
	defer h.Close()
	eth0, err := h.LinkByName(inside)
	if err != nil {
		return fmt.Errorf("find %s in the VM: %w", inside, err)
	}
	addrs, gateways := at.addr.all(), at.cfg.gateway().all()
	for _, p := range addrs {
		if err := h.AddrReplace(eth0, &netlink.Addr{IPNet: ipNet(p), Flags: addrFlags(p)}); err != nil {
			return fmt.Errorf("add %s in the VM: %w", p, err)
		}
	}
	if err := h.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("set %s up in the VM: %w", inside, err)
	}
	for i := range addrs {
		r := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateways[i].Addr().AsSlice()}
		if err := h.RouteReplace(r); err != nil {
			return fmt.Errorf("add a route by %s in the VM: %w", gateways[i].Addr(), err)
		}
	}
	return nil
}

// openNamespace opens the network namespace of a process, which must not be ours.
func openNamespace(pid int) (*os.File, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, err
	}
	var theirs, own unix.Stat_t
	err = errors.Join(unix.Fstat(int(f.Fd()), &theirs), unix.Stat("/proc/thread-self/ns/net", &own))
	if err == nil && theirs.Ino == own.Ino && theirs.Dev == own.Dev {
		err = fmt.Errorf("process %d: %w", pid, ErrHostNamespace)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

package network

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Detach removes all that a VM has in the network. It may be repeated, and does
// not mind a VM whose processes and namespace are gone.
func (n *Network) Detach(id string) error {
	if !vmID.MatchString(id) {
		return fmt.Errorf("detach: id %q is not ten hexadecimal digits", id)
	}
	if err := n.detach(id); err != nil {
		return fmt.Errorf("detach %s: %w", id, err)
	}
	return nil
}

func (n *Network) detach(id string) error {
	if err := n.step(id, "links"); err != nil {
		return err
	}
	for _, name := range []string{vethName(id), ifbName(id)} {
		l, err := n.own(name)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		if err := n.deleteGroup(l.Attrs().Group); err != nil { // both, as a rule
			return err
		}
	}
	if err := n.step(id, "elements"); err != nil {
		return err
	}
	was, err := n.expel(id)
	if err != nil {
		return err
	}
	if err := n.step(id, "flows"); err != nil {
		return err
	}
	return n.forget(was)
}

// expel removes the elements of a VM, and returns what it had.
func (n *Network) expel(id string) (past, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.table == nil {
		return past{}, errNotOpen
	}
	all := n.table.of(id)
	return n.table.past(all), n.table.change(nil, all)
}

// own is a link of ours; nil when there is none of that name.
func (n *Network) own(name string) (netlink.Link, error) {
	l, err := n.link(name)
	if l == nil || err != nil {
		return nil, err
	}
	if !ourGroup(l.Attrs().Group) {
		return nil, fmt.Errorf("%s: %w", name, ErrForeign)
	}
	return l, nil
}

// deleteGroup removes every link of a device group. It is one call because the
// kernel waits for all processors in each that removes a link, about 20 ms.
func (n *Network) deleteGroup(g uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.Sockets = n.raw
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(g)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete links of group %#x: %w", g, err)
	}
	return nil
}

// Sweep removes what bears our mark and belongs to none of the VMs to keep:
// links by name and device group, elements by the VM they name.
func (n *Network) Sweep(ctx context.Context, keep map[string]bool) error {
	if n.route == nil {
		return errNotOpen
	}
	links, err := n.route.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what it missed goes the next time
		return fmt.Errorf("sweep: list links: %w", err)
	}
	gone := map[string]bool{}
	for _, l := range links {
		a := l.Attrs()
		if id := linkID(a.Name); id != "" && ourGroup(a.Group) && !keep[id] {
			gone[id] = true
		}
	}
	for _, id := range n.known() {
		if !keep[id] {
			gone[id] = true
		}
	}
	var errs []error
	for id := range gone {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		errs = append(errs, n.Detach(id))
	}
	if err := errors.Join(append(errs, n.deleteGroup(groupProbe))...); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// known are the VMs that the sets name.
func (n *Network) known() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []string
	if n.table != nil {
		for _, e := range n.table.have {
			if vmID.MatchString(e.vm) {
				ids = append(ids, e.vm)
			}
		}
	}
	return ids
}

func namespace(f *os.File) netns.NsHandle { return netns.NsHandle(f.Fd()) }

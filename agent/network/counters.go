package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Counters are what a VM has received and sent since it was attached. What it
// sent counts before its limit, as on its own eth0; drops are those of the link,
// not of the limits' queues.
type Counters struct {
	RxBytes, TxBytes, RxPackets, TxPackets, RxDropped, TxDropped uint64
}

// Counters reads those of all VMs in one request, by id. While VMs come and go
// some may be missing.
func (n *Network) Counters() (map[string]Counters, error) {
	b, err := n.bridge()
	if err != nil || b == nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.Sockets = n.raw
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(b.Attrs().Index)))) // only ports of the bridge
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	all := make(map[string]Counters, len(msgs))
	for _, m := range msgs {
		name, c, err := parseLink(m)
		if err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
		if id := linkID(name); id != "" {
			all[id] = c
		}
	}
	return all, nil
}

// parseLink reads name and counters of a message about the host's end of a VM's
// link: what that end has sent, the VM has received.
func parseLink(msg []byte) (string, Counters, error) {
	name, err := attribute(msg, unix.SizeofIfInfomsg, unix.IFLA_IFNAME)
	if err != nil {
		return "", Counters{}, err
	}
	s, err := attribute(msg, unix.SizeofIfInfomsg, unix.IFLA_STATS64)
	if err != nil {
		return "", Counters{}, err
	}
	if len(s) < 8*8 {
		return "", Counters{}, errors.New("malformed answer: short counters")
	}
	at := func(i int) uint64 { return binary.NativeEndian.Uint64(s[8*i:]) }
	// struct rtnl_link_stats64: packets, bytes, errors and drops, receiving before sending.
	return strings.TrimRight(string(name), "\x00"), Counters{
		TxPackets: at(0), RxPackets: at(1), TxBytes: at(2), RxBytes: at(3), TxDropped: at(6), RxDropped: at(7),
	}, nil
}

// attribute finds the first attribute of a kind behind a header. Nested ones
// have bits set above the kind.
func attribute(msg []byte, header int, kind uint16) ([]byte, error) {
	for at := header; at+unix.SizeofRtAttr <= len(msg); {
		length := int(binary.NativeEndian.Uint16(msg[at:]))
		if length < unix.SizeofRtAttr || length > len(msg)-at {
			break
		}
		if binary.NativeEndian.Uint16(msg[at+2:])&typeMask == kind {
			return msg[at+unix.SizeofRtAttr : at+length], nil
		}
		at += (length + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
	}
	return nil, fmt.Errorf("malformed answer: no attribute %d", kind)
}

// typeMask leaves the kind of an attribute (NLA_TYPE_MASK).
const typeMask = 0x3fff

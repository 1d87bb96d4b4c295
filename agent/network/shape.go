package network

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Rates that are accepted, in bits per second.
const (
	MinRate = 64e3
	MaxRate = 400e9
)

func checkRate(bps int64) error {
	if bps < MinRate || bps > MaxRate {
		return fmt.Errorf("rate %d bit/s is not between %d and %d", bps, int64(MinRate), int64(MaxRate))
	}
	return nil
}

// A bucket is a rate as the token bucket filter wants it.
type bucket struct {
	rate   uint64 // bytes per second
	burst  uint32 // in the kernel's ticks of 64 ns, at the rate
	limit  uint32 // bytes that may wait without fq_codel
	target uint32 // microseconds that packets may wait with it
	memory uint32 // bytes that may wait with it
}

const (
	// A burst lasts 8 ms: enough for timers that come late, and less than a
	// hundredth of the first second. TBF cuts segments of 64 KiB that do not
	// fit into it (Linux 3.11), so that it may be smaller than those.
	burstTime = 8 * time.Millisecond
	queueTime = 20 * time.Millisecond
	frame     = 1514
)

func bucketFor(bps int64) bucket {
	rate := uint64(bps) / 8
	bytes := func(d time.Duration) uint64 { return rate * uint64(d/time.Microsecond) / 1e6 }
	// Two frames at least, or at low rates nothing would ever fit.
	burst := max(burstTime, time.Duration(2*frame*uint64(time.Second)/rate))
	return bucket{
		rate:   rate,
		burst:  uint32(burst / 64),
		limit:  uint32(min(max(bytes(queueTime), 10*frame), 256<<20)),
		target: uint32(max(5*time.Millisecond, time.Duration(2*frame*uint64(time.Second)/rate)) / time.Microsecond),
		memory: uint32(min(max(2*bytes(100*time.Millisecond), 256<<10), 64<<20)),
	}
}

// shape limits both directions of a VM, or changes the limits it has.
func (n *Network) shape(veth, ifb netlink.Link, bps int64) error {
	b := bucketFor(bps)
	if err := n.limit(veth, b); err != nil {
		return err
	}
	if err := n.limit(ifb, b); err != nil {
		return err
	}
	return n.redirect(veth, ifb)
}

// Handles of the bucket, and of the queues inside, which take turns. The kernel
// changes the one of the same handle and kind, and replaces one of another.
var (
	root   = netlink.MakeHandle(1, 0)
	inner  = netlink.MakeHandle(1, 1) // where the queue hangs
	codels = [2]uint32{netlink.MakeHandle(2, 0), netlink.MakeHandle(3, 0)}
	fifos  = [2]uint32{netlink.MakeHandle(4, 0), netlink.MakeHandle(5, 0)}
)

// limit puts a token bucket on what a link sends, and a queue inside it.
//
// When the rate falls, so does the burst, and segments that wait may be larger
// than it from then on. TBF would wait for ever for tokens that it has no room
// for (seen on 6.18), so such a queue is replaced by an empty one.
func (n *Network) limit(l netlink.Link, b bucket) error {
	old, err := n.limitOf(l)
	if err != nil && !errors.Is(err, ErrNotAttached) {
		return err
	}
	tbf := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: root, Parent: netlink.HANDLE_ROOT},
		Rate:       b.rate, Buffer: b.burst, Limit: b.limit,
	}
	if err := n.route.QdiscReplace(tbf); err != nil {
		return lacks("sch_tbf", fmt.Errorf("limit %s: %w", l.Attrs().Name, err))
	}
	turn := 0
	if old > 0 {
		q, err := n.queueOf(l)
		if err != nil {
			return err
		}
		if q == codels[1] || q == fifos[1] {
			turn = 1
		}
		if uint64(old) > 8*b.rate {
			turn = 1 - turn
		}
	}
	if err := n.queue(l, turn, b); err != nil {
		return fmt.Errorf("queue on %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// queue makes the queue in a bucket, or changes the one of that turn: fair
// queues with delay control where the kernel has them.
func (n *Network) queue(l netlink.Link, turn int, b bucket) error {
	attrs := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: codels[turn], Parent: inner}
	if !n.droptail.Load() {
		codel := &netlink.FqCodel{QdiscAttrs: attrs, Target: b.target, Interval: max(100_000, 2*b.target),
			Flows: 128, Quantum: frame, MemoryLimit: b.memory, ECN: 1}
		err := n.route.QdiscReplace(codel)
		if errors.Is(err, unix.EINVAL) { // it is there, and the number of flows is for good
			codel.Flows = 0
			err = n.route.QdiscReplace(codel)
		}
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
		n.droptail.Store(true)
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.Sockets = n.raw
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(attrs.LinkIndex), Handle: fifos[turn], Parent: inner})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bfifo")))
	req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(b.limit)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// redirect takes what a VM sends through the IFB. Where that is gone, mirred drops.
func (n *Network) redirect(veth, ifb netlink.Link) error {
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: veth.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	if err := n.route.QdiscAdd(ingress); err != nil && !errors.Is(err, unix.EEXIST) {
		return lacks("sch_ingress", fmt.Errorf("watch %s: %w", veth.Attrs().Name, err))
	}
	all := &netlink.U32{ // cls_matchall would do, but is missing more often
		FilterAttrs: netlink.FilterAttrs{LinkIndex: veth.Attrs().Index, Parent: ingress.Handle, Handle: 0x80000800, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(ifb.Attrs().Index)},
	}
	if err := n.route.FilterReplace(all); err != nil {
		return lacks("one of cls_u32 and act_mirred", fmt.Errorf("redirect %s to %s: %w", veth.Attrs().Name, ifb.Attrs().Name, err))
	}
	return nil
}

// SetRate changes both limits of a VM in place, in bits per second.
func (n *Network) SetRate(id string, bps int64) error {
	if err := checkRate(bps); err != nil {
		return err
	}
	veth, ifb, err := n.links(id)
	if err != nil {
		return fmt.Errorf("set rate of %s: %w", id, err)
	}
	b := bucketFor(bps)
	if err := errors.Join(n.limit(veth, b), n.limit(ifb, b)); err != nil {
		return fmt.Errorf("set rate of %s: %w", id, err)
	}
	return nil
}

// Rate reads both limits of a VM from the kernel, in bits per second: of what it
// receives and of what it sends.
func (n *Network) Rate(id string) (down, up int64, err error) {
	veth, ifb, err := n.links(id)
	if err == nil {
		down, err = n.limitOf(veth)
	}
	if err == nil {
		up, err = n.limitOf(ifb)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("rate of %s: %w", id, err)
	}
	return down, up, nil
}

// links are the two links of a VM.
func (n *Network) links(id string) (veth, ifb netlink.Link, err error) {
	if veth, err = n.own(vethName(id)); err == nil {
		ifb, err = n.own(ifbName(id))
	}
	if err == nil && (veth == nil || ifb == nil) {
		err = ErrNotAttached
	}
	return veth, ifb, err
}

// limitOf is the rate of a link's bucket, in bits per second.
func (n *Network) limitOf(l netlink.Link) (int64, error) {
	msg, err := n.qdisc(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.Attrs().Index), Handle: root})
	if err != nil {
		return 0, fmt.Errorf("limit of %s: %w", l.Attrs().Name, err)
	}
	return parseLimit(msg)
}

// queueOf is the handle of the queue in a link's bucket.
func (n *Network) queueOf(l netlink.Link) (uint32, error) {
	msg, err := n.qdisc(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.Attrs().Index), Parent: inner})
	if errors.Is(err, ErrNotAttached) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("queue of %s: %w", l.Attrs().Name, err)
	}
	return nl.DeserializeTcMsg(msg).Handle, nil
}

// qdisc asks for one qdisc. The library only knows how to list those of every
// link. Without NLM_F_ECHO the kernel tells everybody but who asked.
func (n *Network) qdisc(which *nl.TcMsg) ([]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_ECHO)
	req.Sockets = n.raw
	req.AddData(which)
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%w: %w", ErrNotAttached, err)
	}
	if err == nil && (len(msgs) == 0 || len(msgs[0]) < nl.SizeofTcMsg) {
		err = errors.New("malformed answer: too short")
	}
	if err != nil {
		return nil, err
	}
	return msgs[0], nil
}

// parseLimit finds the rate in a message about a TBF qdisc.
func parseLimit(msg []byte) (int64, error) {
	options, err := attribute(msg, nl.SizeofTcMsg, nl.TCA_OPTIONS)
	if err != nil {
		return 0, err
	}
	params, err := attribute(options, 0, nl.TCA_TBF_PARMS)
	if err != nil || len(params) < 12 {
		return 0, errors.New("malformed answer: no rate")
	}
	rate := uint64(nl.NativeEndian().Uint32(params[8:])) // tc_ratespec.rate
	if wide, err := attribute(options, 0, nl.TCA_TBF_RATE64); err == nil && len(wide) == 8 {
		rate = nl.NativeEndian().Uint64(wide)
	}
	if rate > MaxRate/8 {
		return 0, fmt.Errorf("malformed answer: rate of %d bytes/s", rate)
	}
	return int64(rate * 8), nil
}

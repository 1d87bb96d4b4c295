// Package network connects VMs: a veth pair from each network namespace to the
// bridge of the host, both directions shaped on the host's side, addresses by
// slot, and everything to and from the outside by NAT.
//
//	VM: eth0 ─ veth cfv<id> ─ bridge cf0 ─ routing, NAT ─ outside
//	              │ egress: TBF              (what the VM receives)
//	              └ ingress: mirred ─ IFB cfi<id>, egress: TBF   (what it sends)
//
// Who may talk to whom is decided by two nftables tables named cloudflash, one
// of the bridge family (addresses a VM may use, VM to VM) and one of the inet
// family (VM to host, VM to outside, published ports). Rules are the same for
// any number of VMs; a VM is a handful of set elements, added and removed in
// one transaction. All of it works on while no agent runs.
//
// What the rules allow, with everything else dropped:
//   - a VM sends from its own MAC, IPv4 and IPv6 addresses only, also in ARP and
//     neighbour discovery; no router advertisements, redirects, DHCP or VLAN tags;
//   - to the outside by NAT, but never to 169.254.0.0/16 and the metadata
//     services of clouds; that includes the other networks of the host;
//   - to the host: echo requests and, where the host's resolver needs it, DNS;
//   - VM to VM only where both are in bridge mode;
//   - the host to every VM; the outside to published ports only.
//
// A table can only drop for good: where another firewall of the host (Docker's
// FORWARD policy, firewalld) drops what is accepted here, it is dropped.
// Published ports do not answer VMs, nor on ::1.
//
// Of the host it changes what forwarding needs and no more: ip_forward and
// IPv6's all/forwarding become 1 (with accept_ra=2 where it was 1, or the kernel
// would drop the host's own default route), and stay so; and on the bridge
// route_localnet is 1, for published ports on 127.0.0.1 and resolvers there.
// Frames from VMs to 127.0.0.0/8 are dropped before that could matter. The module
// br_netfilter is neither needed nor in the way.
//
// The kernel lets a bridge have 1023 ports, so that many VMs.
//
// Links of ours bear their name's prefix and a device group of ours, given in
// the call that makes them; set elements bear the id of their VM as a comment.
// Sweep goes by both and touches nothing else.
package network

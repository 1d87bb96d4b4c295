package network

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A match is a part of a rule, written as nft would print it.
type match []expr.Any

// Registers of four bytes; the first four together are the one of 16 bytes.
const (
	reg16 = unix.NFT_REG_1
	reg   = unix.NFT_REG32_00
)

func rule(parts ...match) match { return slices.Concat(parts...) }

func equal(data ...byte) match {
	return match{&expr.Cmp{Op: expr.CmpOpEq, Register: reg16, Data: data}}
}

func meta(key expr.MetaKey, want ...byte) match {
	return append(match{&expr.Meta{Key: key, Register: reg16}}, equal(want...)...)
}

// name is a name of an interface as sets and comparisons hold it.
func name(s string) []byte { return append([]byte(s), make([]byte, unix.IFNAMSIZ-len(s))...) }

func iif(s string) match { return meta(expr.MetaKeyIIFNAME, name(s)...) }
func oif(s string) match { return meta(expr.MetaKeyOIFNAME, name(s)...) }

// not turns the last comparison of a match around.
func not(m match) match {
	m = slices.Clone(m)
	c := *m[len(m)-1].(*expr.Cmp)
	if c.Op == expr.CmpOpEq {
		c.Op = expr.CmpOpNeq
	} else {
		c.Op = expr.CmpOpEq
	}
	m[len(m)-1] = &c
	return m
}

// ours is "the port is a VM's": its device group says so.
func ours(key expr.MetaKey) match {
	return match{
		&expr.Meta{Key: key, Register: reg16},
		&expr.Bitwise{SourceRegister: reg16, DestRegister: reg16, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(groupMask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg16, Data: binaryutil.NativeEndian.PutUint32(groupBase)},
	}
}

// load puts a part of the packet into a register.
func load(r uint32, base expr.PayloadBase, offset, length uint32) match {
	return match{&expr.Payload{DestRegister: r, Base: base, Offset: offset, Len: length}}
}

// Fields: where they begin, and their length.
type field struct {
	base           expr.PayloadBase
	offset, length uint32
}

var (
	etherSource  = field{expr.PayloadBaseLLHeader, 6, 6}
	etherType    = field{expr.PayloadBaseLLHeader, 12, 2} // of a tagged frame, 802.1Q
	arpHeader    = field{expr.PayloadBaseNetworkHeader, 0, 6}
	arpSenderMAC = field{expr.PayloadBaseNetworkHeader, 8, 6}
	arpSenderIP  = field{expr.PayloadBaseNetworkHeader, 14, 4}
	ip4Source    = field{expr.PayloadBaseNetworkHeader, 12, 4}
	ip4Dest      = field{expr.PayloadBaseNetworkHeader, 16, 4}
	ip6Source    = field{expr.PayloadBaseNetworkHeader, 8, 16}
	ip6Dest      = field{expr.PayloadBaseNetworkHeader, 24, 16}
	icmpType     = field{expr.PayloadBaseTransportHeader, 0, 1}
	ndTarget     = field{expr.PayloadBaseTransportHeader, 8, 16}
	destPort     = field{expr.PayloadBaseTransportHeader, 2, 2}
)

func (f field) is(data ...byte) match {
	return append(load(reg16, f.base, f.offset, f.length), equal(data...)...)
}

// within is "the field is in the network".
func (f field) within(p netip.Prefix) match {
	n := ipNet(p)
	return rule(load(reg16, f.base, f.offset, f.length),
		match{&expr.Bitwise{SourceRegister: reg16, DestRegister: reg16, Len: f.length, Mask: n.Mask, Xor: make([]byte, f.length)}},
		equal(n.IP...))
}

func (f field) to(r uint32) match { return load(r, f.base, f.offset, f.length) }

func version(v byte) match { return meta(expr.MetaKeyNFPROTO, v) } // NFPROTO_IPV4 or _IPV6
func l4(proto byte) match  { return meta(expr.MetaKeyL4PROTO, proto) }

// in is "what the registers hold is in the set".
func in(s *nftables.Set) match {
	return match{&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID}}
}

func notIn(s *nftables.Set) match {
	return match{&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: true}}
}

// ct is "the connection has one of the bits".
func ct(key expr.CtKey, bits uint32) match {
	return match{
		&expr.Ct{Key: key, Register: reg16},
		&expr.Bitwise{SourceRegister: reg16, DestRegister: reg16, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg16, Data: make([]byte, 4)},
	}
}

func known() match { return ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED) }

// translated is "the destination is not the one the sender wrote" (IPS_DST_NAT).
func translated() match { return ct(expr.CtKeySTATUS, 1<<5) }

// local is "the destination is an address of the host".
func local() match {
	return append(match{&expr.Fib{Register: reg16, FlagDADDR: true, ResultADDRTYPE: true}},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)...)...)
}

func verdict(k expr.VerdictKind, chain string) match {
	return match{&expr.Verdict{Kind: k, Chain: chain}}
}

func accept() match             { return verdict(expr.VerdictAccept, "") }
func drop() match               { return verdict(expr.VerdictDrop, "") }
func jump(chain string) match   { return verdict(expr.VerdictJump, chain) }
func masquerade() match         { return match{&expr.Masq{}} }
func dnsQuery(proto byte) match { return rule(l4(proto), destPort.is(0, 53)) }

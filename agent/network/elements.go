package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
)

// An element is one entry of a set: a part of what a VM is allowed.
type element struct {
	set        *nftables.Set
	key, value string
	vm         string // whose it is, kept as its comment
}

// place is what no two elements share.
type place struct{ set, key string }

func (e element) place() place { return place{e.set.Name, e.key} }

// of lists the elements of a VM.
func (t *table) of(vm string) []element {
	var all []element
	for _, e := range t.have {
		if e.vm == vm {
			all = append(all, e)
		}
	}
	return all
}

// elements are what the tables must hold for a VM to have this link.
func (t *table) elements(l Link, a Address) []element {
	m := mac(a.IPv4.Addr())
	port := string(name(vethName(l.ID))) + string(m) + "\x00\x00"
	all := []element{{t.allowed4, port + raw(a.IPv4.Addr()), "", l.ID}}
	if a.IPv6.IsValid() {
		all = append(all, element{t.allowed6, port + raw(a.IPv6.Addr()), "", l.ID}, element{t.allowed6, port + raw(linkLocal(m)), "", l.ID})
	}
	if l.Mode == Bridged {
		all = append(all, element{t.peers, string(name(vethName(l.ID))), "", l.ID}, element{t.peers4, raw(a.IPv4.Addr()), "", l.ID})
		if a.IPv6.IsValid() {
			all = append(all, element{t.peers6, raw(a.IPv6.Addr()), "", l.ID})
		}
	}
	for _, p := range l.Publish {
		all = append(all, t.published(l.ID, p, a)...)
	}
	return all
}

func (t *table) published(vm string, p Publish, a Address) []element {
	key, to := string([]byte{p.protocol()})+"\x00\x00\x00"+port(p.HostPort), port(p.GuestPort)
	var all []element
	switch {
	case p.HostIP.Is4():
		all = append(all, element{t.publish4at, raw(p.HostIP) + key, raw(a.IPv4.Addr()) + to, vm})
	case p.HostIP.Is6() && a.IPv6.IsValid():
		all = append(all, element{t.publish6at, raw(p.HostIP) + key, raw(a.IPv6.Addr()) + to, vm})
	case !p.HostIP.IsValid():
		all = append(all, element{t.publish4, key, raw(a.IPv4.Addr()) + to, vm})
		if a.IPv6.IsValid() {
			all = append(all, element{t.publish6, key, raw(a.IPv6.Addr()) + to, vm})
		}
	}
	return all
}

// port is a port as concatenated keys have it: padded to four bytes.
func port(p uint16) string { return string(binary.BigEndian.AppendUint16(nil, p)) + "\x00\x00" }

// raw is an address as keys have it.
func raw(a netip.Addr) string { return string(a.AsSlice()) }

// admit makes the elements of a VM what its link needs, and returns what it added and
// removed for that. The caller holds n.mu.
func (t *table) admit(l Link, a Address) (add, del []element, err error) {
	old, want := t.of(l.ID), t.elements(l, a)
	if err := t.free(l, want); err != nil {
		return nil, nil, err
	}
	add, del = diff(old, want)
	return add, del, t.change(add, del)
}

// diff is what to add and to remove to get from one list to the other.
func diff(old, want []element) (add, del []element) {
	has := func(list []element, e element) bool {
		for _, o := range list {
			if o.place() == e.place() && o.value == e.value {
				return true
			}
		}
		return false
	}
	for _, e := range want {
		if !has(old, e) {
			add = append(add, e)
		}
	}
	for _, e := range old {
		if !has(want, e) {
			del = append(del, e)
		}
	}
	return add, del
}

// free refuses addresses and ports that somebody else has.
func (t *table) free(l Link, want []element) error {
	ip := want[0].key[len(want[0].key)-4:] // of allowed4
	for _, e := range t.have {
		if e.vm != l.ID && e.set.Name == t.allowed4.Name && strings.HasSuffix(e.key, ip) {
			return fmt.Errorf("slot %d: %w: VM %s has it", l.Slot, ErrSlotTaken, e.vm)
		}
	}
	for _, p := range l.Publish {
		if err := t.freePort(l.ID, p); err != nil {
			return err
		}
	}
	return nil
}

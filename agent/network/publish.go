package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

func (p Publish) protocol() byte {
	if p.Protocol == "udp" {
		return udp
	}
	return tcp
}

func checkPublish(all []Publish) error {
	seen := map[string]bool{}
	for _, p := range all {
		if p.HostPort == 0 || p.GuestPort == 0 {
			return errors.New("published port 0: ports are 1 to 65535")
		}
		if p.Protocol != "tcp" && p.Protocol != "udp" {
			return fmt.Errorf("protocol %q of port %d is neither tcp nor udp", p.Protocol, p.HostPort)
		}
		if p.HostIP.Zone() != "" || p.HostIP.Is4In6() {
			return fmt.Errorf("address %s of port %d is not a plain IPv4 or IPv6 address", p.HostIP, p.HostPort)
		}
		key := fmt.Sprint(p.HostPort, p.Protocol, p.HostIP)
		if seen[key] {
			return fmt.Errorf("port %d/%s is listed twice", p.HostPort, p.Protocol)
		}
		seen[key] = true
	}
	return nil
}

// freePort refuses a port of the host that another VM or a process of the host
// has. A port on all addresses and one on a single address collide, as they
// would for processes.
func (t *table) freePort(vm string, p Publish) error {
	mine, suffix := false, string([]byte{p.protocol()})+"\x00\x00\x00"+port(p.HostPort)
	for _, e := range t.have {
		if !strings.HasPrefix(e.set.Name, "publish") || !strings.HasSuffix(e.key, suffix) {
			continue
		}
		at, one := netip.AddrFromSlice([]byte(strings.TrimSuffix(e.key, suffix)))
		if one && p.HostIP.IsValid() && at != p.HostIP {
			continue
		}
		if e.vm != vm {
			return &PortError{Publish: p, VM: e.vm}
		}
		mine = true
	}
	if mine { // it is in force, so a process that binds the port now gets nothing from outside
		return nil
	}
	if err := bindable(p); err != nil {
		return &PortError{Publish: p, Err: err}
	}
	return nil
}

// bindable asks the kernel whether a process has the port, by binding it for a
// moment without listening.
func bindable(p Publish) error {
	var addrs []netip.Addr
	if p.HostIP.IsValid() {
		addrs = append(addrs, p.HostIP)
	} else {
		addrs = append(addrs, netip.IPv4Unspecified(), netip.IPv6Unspecified())
	}
	for _, a := range addrs {
		err := bind(a, p)
		if errors.Is(err, unix.EAFNOSUPPORT) || a == netip.IPv6Unspecified() && errors.Is(err, unix.EADDRNOTAVAIL) {
			continue // no IPv6 here
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func bind(a netip.Addr, p Publish) error {
	kind := unix.SOCK_STREAM
	if p.Protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if a.Is4() {
		if kind == unix.SOCK_STREAM { // connections that wait to be forgotten do not count; listeners still do
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Port: int(p.HostPort), Addr: a.As4()})
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Port: int(p.HostPort), Addr: a.As16()})
}

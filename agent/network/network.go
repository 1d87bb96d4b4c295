package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Config is how the VMs of a host are connected. The zero value has defaults for
// everything.
type Config struct {
	Bridge        string       // cf0
	Pool          netip.Prefix // 10.88.0.0/16; its first address is the bridge's
	ULA           netip.Prefix // fd0c:f1a5:c10d::/64; its first address is the bridge's
	ResolvConf    string       // /etc/resolv.conf
	SystemdResolv string       // /run/systemd/resolve/resolv.conf, read where the former names systemd's stub
	Owner         string       // whose network it is; the bridge carries it as its alias
}

// Mode is whom a VM may talk to.
type Mode string

const (
	Isolated Mode = "isolated" // loopback only
	NAT      Mode = "nat"      // the outside
	Bridged  Mode = "bridge"   // the outside and other VMs in this mode
)

// Publish makes a port of a VM answer on the host.
type Publish struct {
	HostPort, GuestPort uint16
	Protocol            string     // tcp or udp
	HostIP              netip.Addr // one address of the host; the zero value is all of them
}

// Link is what the network of one VM should be.
type Link struct {
	ID      string // of the VM, ten hexadecimal digits
	Slot    int    // 0 to 4093, the VM's alone: decides its addresses
	Mode    Mode
	RateBPS int64 // bits per second, in each direction
	Publish []Publish
	PID     int // a process in the VM's network namespace
}

// Address is where a VM is reached, with the length of its network.
type Address struct {
	IPv4, IPv6 netip.Prefix // IPv6 is zero where the host has none
}

// Network is the bridge with all that hangs on it. Its methods may be called from
// several goroutines, but not at once for the same VM.
type Network struct {
	cfg   Config
	route *netlink.Handle
	raw   map[int]*nl.SocketHandle // the same kind of socket, for what the library does not offer
	ipv6  bool

	mu    sync.Mutex
	table *table

	tracking sync.Mutex // of who reads what the kernel tracks

	droptail atomic.Bool                 // the kernel has no fq_codel
	step     func(id, name string) error // called before every step of Attach and Detach; tests break them there
}

// New checks a configuration. It touches nothing.
func New(cfg Config) (*Network, error) {
	if cfg.Bridge == "" {
		cfg.Bridge = "cf0"
	}
	if !cfg.Pool.IsValid() {
		cfg.Pool = netip.MustParsePrefix("10.88.0.0/16")
	}
	if !cfg.ULA.IsValid() {
		cfg.ULA = netip.MustParsePrefix("fd0c:f1a5:c10d::/64")
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.SystemdResolv == "" {
		cfg.SystemdResolv = "/run/systemd/resolve/resolv.conf"
	}
	if len(cfg.Bridge) >= unix.IFNAMSIZ || !interfaceName.MatchString(cfg.Bridge) || linkID(cfg.Bridge) != "" {
		return nil, fmt.Errorf("bridge %q is not the name of an interface", cfg.Bridge)
	}
	if !cfg.Pool.Addr().Is4() || cfg.Pool.Bits() > 29 || cfg.Pool.Bits() < 8 || cfg.Pool != cfg.Pool.Masked() {
		return nil, fmt.Errorf("pool %s is not an IPv4 network of 8 to 29 bits", cfg.Pool)
	}
	if !cfg.ULA.Addr().Is6() || cfg.ULA.Addr().Is4In6() || cfg.ULA.Bits() > 64 || cfg.ULA != cfg.ULA.Masked() {
		return nil, fmt.Errorf("prefix %s is not an IPv6 network of at most 64 bits", cfg.ULA)
	}
	return &Network{cfg: cfg, step: func(string, string) error { return nil }}, nil
}

var interfaceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`)

// Open makes the bridge, the tables and the settings of the host that forwarding
// needs, or takes over what an earlier agent has left. It may be called again at
// any time and puts back what somebody has flushed. UnsupportedError names a
// module that is missing.
func (n *Network) Open(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.connect(); err != nil {
		return fmt.Errorf("open network: %w", err)
	}
	if n.table == nil {
		n.table = newTable(n.cfg)
	}
	for _, step := range []func(context.Context) error{n.openTable, n.openBridge, n.openHost} {
		if err := errors.Join(ctx.Err(), step(ctx)); err != nil {
			return fmt.Errorf("open network: %w", err)
		}
	}
	return nil
}

// patience is how long the kernel may take for an answer; it gives one unless
// there is a mistake of ours.
const patience = time.Minute

// connect opens the sockets that all later calls use, in the namespace of the host.
func (n *Network) connect() error {
	if n.route != nil {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return err
	}
	if err := errors.Join(h.SetSocketTimeout(patience), s.SetReceiveTimeout(&unix.Timeval{Sec: int64(patience.Seconds())})); err != nil {
		h.Close()
		s.Close()
		return err
	}
	n.ipv6 = hasIPv6()
	n.route, n.raw = h, map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	return nil
}

// Close closes the sockets. Every VM stays connected.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.route == nil {
		return
	}
	n.route.Close()
	n.raw[unix.NETLINK_ROUTE].Close()
	n.route, n.raw = nil, nil
}

// Remove removes every link, the bridge and the tables, as before the first Open,
// for tests and to uninstall. Forwarding stays on.
func (n *Network) Remove(ctx context.Context) error {
	if err := n.Sweep(ctx, nil); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.table == nil {
		return errNotOpen
	}
	b, err := n.bridge()
	if err == nil && b != nil {
		err = n.route.LinkDel(b)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", n.cfg.Bridge, err)
	}
	if err := n.table.remove(); err != nil {
		return err
	}
	n.table = newTable(n.cfg)
	return nil
}

// check refuses what can never be attached.
func (l Link) check() error {
	if !vmID.MatchString(l.ID) {
		return fmt.Errorf("id %q is not ten hexadecimal digits", l.ID)
	}
	if !slices.Contains([]Mode{Isolated, NAT, Bridged}, l.Mode) {
		return fmt.Errorf("mode %q is none of isolated, nat, bridge", l.Mode)
	}
	if l.Mode == Isolated {
		return nil
	}
	if err := checkRate(l.RateBPS); err != nil {
		return err
	}
	return checkPublish(l.Publish)
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/network"
)

// Modes of a VM's network.
const (
	NetworkNAT      = string(network.NAT)      // the outside, by NAT; no other VM, no service of the host
	NetworkIsolated = string(network.Isolated) // loopback only
	NetworkBridge   = string(network.Bridged)  // as nat, and the other VMs in this mode
)

const maxPublish = 64

// withNetworkDefaults fills in what was left out.
func withNetworkDefaults(n Network) Network {
	if n.Mode == "" {
		n.Mode = NetworkNAT
	}
	ports := make([]Port, len(n.Publish))
	for i, p := range n.Publish {
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		ports[i] = p
	}
	n.Publish = ports
	return n
}

func checkNetwork(n Network) error {
	var f fault.List
	if n.Mode != NetworkNAT && n.Mode != NetworkIsolated && n.Mode != NetworkBridge {
		f.Add("/network/mode", nil, nil, "must be nat, isolated or bridge, not %s", fault.Quote(n.Mode))
	}
	if n.Mode == NetworkIsolated && len(n.Publish) > 0 {
		f.Add("/network/publish", nil, nil, "needs a network, an isolated VM has none")
	}
	if len(n.Publish) > maxPublish {
		f.Add("/network/publish", 0, maxPublish, "has %d ports, at most %d are accepted", len(n.Publish), maxPublish)
	}
	seen := map[Port]bool{}
	for i, p := range n.Publish {
		at := fmt.Sprintf("/network/publish/%d", i)
		fault.Within(&f, at+"/host_port", p.HostPort, 1, 65535)
		fault.Within(&f, at+"/guest_port", p.GuestPort, 1, 65535)
		if p.Protocol != "tcp" && p.Protocol != "udp" {
			f.Add(at+"/protocol", nil, nil, "must be tcp or udp, not %s", fault.Quote(p.Protocol))
		}
		if p.HostIP != "" {
			ip, err := netip.ParseAddr(p.HostIP)
			switch {
			case err != nil || ip.Zone() != "" || ip.Is4In6():
				f.Add(at+"/host_ip", nil, nil, "must be an IPv4 or IPv6 address, not %s", fault.Quote(p.HostIP))
			case ip.IsUnspecified():
				f.Add(at+"/host_ip", nil, nil, "%s is not one address: leave it out for all of them", fault.Quote(p.HostIP))
			case ip.IsMulticast(), ip == netip.IPv6Loopback(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
				f.Add(at+"/host_ip", nil, nil, "cannot be %s: no published port answers there", fault.Quote(p.HostIP))
			}
			p.HostIP = ip.String() // however it is written
		}
		p.GuestPort = 0
		if seen[p] {
			f.Add(at+"/host_port", nil, nil, "%d/%s is listed twice", p.HostPort, p.Protocol)
		}
		seen[p] = true
	}
	return f.Err("invalid_network")
}

// link is the network of a VM in the words of package network.
func (v *vm) link(bps int64, pid int) network.Link {
	l := network.Link{ID: v.ID, Slot: v.Slot, Mode: network.Mode(v.Network.Mode), RateBPS: bps, PID: pid}
	for _, p := range v.Network.Publish {
		pub := network.Publish{HostPort: uint16(p.HostPort), GuestPort: uint16(p.GuestPort), Protocol: p.Protocol}
		if p.HostIP != "" {
			pub.HostIP, _ = netip.ParseAddr(p.HostIP) // checked when it was asked for
		}
		l.Publish = append(l.Publish, pub)
	}
	return l
}

func newNetwork(cfg Config, owner string) (*network.Network, error) {
	pool, err := netip.ParsePrefix(cfg.NetworkPool)
	if err != nil {
		return nil, fmt.Errorf("network pool: %w", err)
	}
	ula, err := netip.ParsePrefix(cfg.NetworkULA)
	if err != nil {
		return nil, fmt.Errorf("network ULA: %w", err)
	}
	return network.New(network.Config{Bridge: cfg.Bridge, Pool: pool, ULA: ula, Owner: owner})
}

// openNetwork makes the bridge and the rules. Without them VMs can only be
// isolated; the cause is told to whoever asks for more.
func (a *Agent) openNetwork(ctx context.Context) error {
	err := a.network.Open(ctx)
	if err != nil {
		a.log.Warn("VMs can only be isolated", "err", err)
	}
	a.held.Lock()
	defer a.held.Unlock()
	a.networkErr = err
	return err
}

// connect gives the network namespace of a VM's init its network. A VM that is
// there already does not fail for a port that somebody has taken meanwhile: it
// goes without, until the port is free (keepNetwork).
func (a *Agent) connect(ctx context.Context, v *vm, pid int) error {
	rec := a.record(v)
	link := v.link(rec.Size().BandwidthBPS, pid)
	a.held.Lock()
	without := v.taken
	a.held.Unlock()
	addr, err := a.attach(ctx, link)
	var taken []network.Publish
	var port *network.PortError
	for rec.State != VMCreating && errors.As(err, &port) && slices.Contains(link.Publish, port.Publish) {
		taken = append(taken, port.Publish)
		link.Publish = slices.DeleteFunc(slices.Clone(link.Publish), func(p network.Publish) bool { return p == port.Publish })
		if !slices.Contains(without, port.Publish) {
			a.note(Event{Level: LevelWarn, Kind: "vm.port_taken", VM: v.ID,
				Message: fmt.Sprintf("VM %s goes without port %d/%s of the host: %v", v.Name, port.HostPort, port.Protocol, err)})
		}
		addr, err = a.attach(ctx, link)
	}
	if err != nil {
		return a.networkRefusal(err)
	}
	a.held.Lock()
	defer a.held.Unlock()
	v.address, v.taken = addr, taken
	return nil
}

// attach is Attach once more after Open, should somebody have flushed our rules or
// loaded the module that was missing.
func (a *Agent) attach(ctx context.Context, link network.Link) (network.Address, error) {
	addr, err := a.network.Attach(ctx, link)
	var port *network.PortError
	if err == nil || errors.As(err, &port) {
		return addr, err
	}
	if err := a.openNetwork(ctx); err != nil {
		return addr, err
	}
	return a.network.Attach(ctx, link)
}

func (a *Agent) runNetwork(ctx context.Context) {
	tick := time.NewTicker(a.cfg.UpkeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.keepNetwork(ctx)
		}
	}
}

// keepNetwork connects VMs again whose bridge somebody has deleted, and tries for
// the ports that some go without. It is cheap where nothing is wrong.
func (a *Agent) keepNetwork(ctx context.Context) {
	a.held.Lock()
	lost, told := a.bridge != 0 && a.bridge != bridgeIndex(a.cfg.Bridge), a.networkErr != nil
	a.held.Unlock()
	if lost {
		if !told {
			a.note(Event{Level: LevelWarn, Kind: "network.lost", Message: "bridge " + a.cfg.Bridge + " was deleted; VMs are connected again"})
		}
		if err := a.openNetwork(ctx); err != nil {
			return // tried again
		}
	}
	for _, v := range a.vmList() {
		a.held.Lock()
		g, again := v.guest, v.Network.Mode != NetworkIsolated && (lost || len(v.taken) > 0)
		a.held.Unlock()
		if g == nil || !again || !v.work.TryLock() {
			continue // whoever holds it connects it
		}
		if err := a.connect(ctx, v, g.PID()); err != nil && ctx.Err() == nil {
			a.log.Warn("connect VM again", "vm", v.Name, "err", err)
		}
		v.work.Unlock()
	}
	if lost {
		a.hang()
	}
}

// hang remembers the bridge that all VMs hang on, or are about to.
func (a *Agent) hang() {
	a.held.Lock()
	defer a.held.Unlock()
	a.bridge = bridgeIndex(a.cfg.Bridge)
}

// bridgeIndex is the kernel's number of the bridge, 0 when there is none.
func bridgeIndex(name string) int {
	l, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return l.Index
}

// networkRefusal makes what a person can act on of an error.
func (a *Agent) networkRefusal(err error) error {
	var port *network.PortError
	var pool *network.PoolError
	switch {
	case errors.As(err, &port):
		e := fault.Refuse(fault.ErrConflict, "port_taken", "publish another port of the host", "%v", port)
		if port.VM != "" {
			a.held.Lock()
			if v := a.vms[port.VM]; v != nil {
				e.Detail = fmt.Sprintf("port %d/%s of the host is published by VM %s", port.HostPort, port.Protocol, v.Name)
			}
			a.held.Unlock()
		}
		e.Fields = []fault.Field{{Pointer: "/network/publish", Detail: e.Detail}}
		return e
	case errors.As(err, &pool):
		return fault.Refuse(fault.ErrCapacity, "insufficient_addresses",
			"delete a VM, or give the agent a larger pool: serve --network-pool", "%v", pool)
	case errors.Is(err, network.ErrUnsupported), errors.Is(err, network.ErrForeign), errors.Is(err, network.ErrPoolInUse):
		return &fault.Error{Kind: fault.ErrInvalid, Code: "network_unsupported", Detail: "VMs can only be isolated here: " + err.Error(),
			Hint: "--network isolated; cloudflash host check", Fields: []fault.Field{{Pointer: "/network/mode", Detail: err.Error()}}}
	}
	return err
}

// resolvConf is a VM's /etc/resolv.conf. Without a network it names nobody.
func (a *Agent) resolvConf(v *vm) string {
	if v.Network.Mode == NetworkIsolated {
		return "# this VM has no network\n"
	}
	text, err := a.network.ResolvConf()
	if err != nil {
		a.log.Warn("find resolvers for VM", "vm", v.Name, "err", err)
		return "# " + network.ErrNoResolver.Error() + "\n"
	}
	return text
}

// viewNetwork is the network as the world sees it. The caller has a.held.
func (v *vm) viewNetwork() Network {
	n := withNetworkDefaults(v.Network)
	if v.address.IPv4.IsValid() {
		n.IPv4 = v.address.IPv4.Addr().String()
	}
	if v.address.IPv6.IsValid() {
		n.IPv6 = v.address.IPv6.Addr().String()
	}
	return n
}

// applyBandwidth sets both limits of a VM that is connected.
func (a *Agent) applyBandwidth(v *vm, bps int64) error {
	if v.Network.Mode == NetworkIsolated {
		return nil
	}
	if err := a.network.SetRate(v.ID, bps); err != nil && !errors.Is(err, network.ErrNotAttached) {
		return err
	}
	return nil
}

// bandwidth reads the limit that the kernel has; nil where there is no network.
func (a *Agent) bandwidth(v *vm) (*int64, error) {
	if v.Network.Mode == NetworkIsolated {
		return nil, nil
	}
	down, up, err := a.network.Rate(v.ID)
	if errors.Is(err, network.ErrNotAttached) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	bps := max(down, up)
	return &bps, nil
}

package vm

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
	"cloudflash/agent/state"
)

// link is the network of a VM in the words of package network.
func (v *VM) link(bps int64, pid int) network.Link {
	l := network.Link{
		ID:      v.ID,
		Slot:    v.Slot,
		Mode:    network.Mode(v.Network.Mode),
		RateBPS: bps,
		PID:     pid,
	}

	for _, p := range v.Network.Publish {
		pub := network.Publish{
			HostPort:  uint16(p.HostPort),
			GuestPort: uint16(p.GuestPort),
			Protocol:  p.Protocol,
		}
		if p.HostIP != "" {
			pub.HostIP, _ = netip.ParseAddr(p.HostIP) // checked when it was asked for
		}
		l.Publish = append(l.Publish, pub)
	}
	return l
}

// openNetwork makes the bridge and the rules. Without them VMs can only be
// isolated; the cause is told to whoever asks for more.
func (p *Platform) openNetwork(ctx context.Context) error {
	err := p.network.Open(ctx)
	if err != nil {
		p.log.Warn("VMs can only be isolated", "err", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.networkErr = err
	return err
}

// NetworkErr is why VMs can only be isolated; nil where they can have a network.
func (p *Platform) NetworkErr() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.networkErr
}

// Connect gives the network namespace of a VM's init its network. A VM that is
// there already does not fail for a port that somebody has taken meanwhile: it
// goes without, until the port is free (keepNetwork).
func (l *Lease) Connect(ctx context.Context, pid int) error {
	rec := l.record()
	link := l.link(rec.Size().BandwidthBPS, pid)
	l.mu.Lock()
	without := l.taken
	l.mu.Unlock()

	addr, err := l.p.attach(ctx, link)
	var taken []network.Publish
	var port *network.PortError
	for rec.State != state.VMCreating && errors.As(err, &port) && slices.Contains(link.Publish, port.Publish) {
		taken = append(taken, port.Publish)
		link.Publish = slices.DeleteFunc(slices.Clone(link.Publish), func(p network.Publish) bool {
			return p == port.Publish
		})
		if !slices.Contains(without, port.Publish) {
			l.p.cfg.State.Note(state.Event{
				Level: state.LevelWarn,
				Kind:  "vm.port_taken",
				VM:    l.ID,
				Message: fmt.Sprintf("VM %s goes without port %d/%s of the host: %v",
					l.Name, port.HostPort, port.Protocol, err),
			})
		}
		addr, err = l.p.attach(ctx, link)
	}
	if err != nil {
		return l.p.networkRefusal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.address, l.taken = addr, taken
	return nil
}

// attach is Attach once more after Open, should somebody have flushed our rules or
// loaded the module that was missing.
func (p *Platform) attach(ctx context.Context, link network.Link) (network.Address, error) {
	addr, err := p.network.Attach(ctx, link)
	var port *network.PortError
	if err == nil || errors.As(err, &port) {
		return addr, err
	}
	if err := p.openNetwork(ctx); err != nil {
		return addr, err
	}
	return p.network.Attach(ctx, link)
}

func (p *Platform) runNetwork(ctx context.Context) {
	tick := time.NewTicker(p.cfg.UpkeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.keepNetwork(ctx)
		}
	}
}

// keepNetwork connects VMs again whose bridge somebody has deleted, and tries for
// the ports that some go without. It is cheap where nothing is wrong.
func (p *Platform) keepNetwork(ctx context.Context) {
	index := bridgeIndex(p.cfg.Bridge)
	p.mu.Lock()
	lost, told := p.bridge != 0 && p.bridge != index, p.networkErr != nil
	p.mu.Unlock()

	if lost {
		if !told {
			p.cfg.State.Note(state.Event{
				Level:   state.LevelWarn,
				Kind:    "network.lost",
				Message: "bridge " + p.cfg.Bridge + " was deleted; VMs are connected again",
			})
		}
		if err := p.openNetwork(ctx); err != nil {
			return // tried again
		}
	}

	for _, v := range p.cfg.VMs() {
		p.reconnect(ctx, v, lost)
	}
	if lost {
		p.hang()
	}
}

// reconnect connects a VM again that has lost its bridge, or goes without a port.
func (p *Platform) reconnect(ctx context.Context, v *VM, lost bool) {
	v.mu.Lock()
	g, again := v.guest, v.Network.Mode != NetworkIsolated && (lost || len(v.taken) > 0)
	v.mu.Unlock()
	if g == nil || !again {
		return
	}
	l := v.TryWork()
	if l == nil {
		return // whoever holds it connects it
	}
	defer l.Release()
	if err := l.Connect(ctx, g.PID()); err != nil && ctx.Err() == nil {
		p.log.Warn("connect VM again", "vm", v.Name, "err", err)
	}
}

// hang remembers the bridge that all VMs hang on, or are about to.
func (p *Platform) hang() {
	index := bridgeIndex(p.cfg.Bridge)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bridge = index
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
func (p *Platform) networkRefusal(err error) error {
	var port *network.PortError
	var pool *network.PoolError
	switch {
	case errors.As(err, &port):
		e := fault.Refuse(fault.ErrConflict, "port_taken", "publish another port of the host", "%v", port)
		if port.VM != "" {
			if r := p.cfg.State.View().VM(port.VM); r != nil {
				e.Detail = fmt.Sprintf("port %d/%s of the host is published by VM %s",
					port.HostPort, port.Protocol, r.Name)
			}
		}
		e.Fields = []fault.Field{{Pointer: "/network/publish", Detail: e.Detail}}
		return e
	case errors.As(err, &pool):
		return fault.Refuse(fault.ErrCapacity, "insufficient_addresses",
			"delete a VM, or give the agent a larger pool: serve --network-pool", "%v", pool)
	case errors.Is(err, network.ErrUnsupported),
		errors.Is(err, network.ErrForeign),
		errors.Is(err, network.ErrPoolInUse):
		return &fault.Error{
			Kind:   fault.ErrInvalid,
			Code:   "network_unsupported",
			Detail: "VMs can only be isolated here: " + err.Error(),
			Hint:   "--network isolated; cloudflash host check",
			Fields: []fault.Field{{Pointer: "/network/mode", Detail: err.Error()}},
		}
	}
	return err
}

// resolvConf is a VM's /etc/resolv.conf. Without a network it names nobody.
func (v *VM) resolvConf() string {
	if v.Network.Mode == NetworkIsolated {
		return "# this VM has no network\n"
	}
	text, err := v.p.network.ResolvConf()
	if err != nil {
		v.p.log.Warn("find resolvers for VM", "vm", v.Name, "err", err)
		return "# " + network.ErrNoResolver.Error() + "\n"
	}
	return text
}

// Addressed is the VM's network with the addresses that it has while it is connected.
func (v *VM) Addressed() state.Network {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := NetworkDefaults(v.Network)
	if v.address.IPv4.IsValid() {
		n.IPv4 = v.address.IPv4.Addr().String()
	}
	if v.address.IPv6.IsValid() {
		n.IPv6 = v.address.IPv6.Addr().String()
	}
	return n
}

// applyBandwidth sets both limits of a VM that is connected.
func (l *Lease) applyBandwidth(bps int64) error {
	if l.Network.Mode == NetworkIsolated {
		return nil
	}
	if err := l.p.network.SetRate(l.ID, bps); err != nil && !errors.Is(err, network.ErrNotAttached) {
		return err
	}
	return nil
}

// bandwidth reads the limit that the kernel has; nil where there is no network.
func (l *Lease) bandwidth() (*int64, error) {
	if l.Network.Mode == NetworkIsolated {
		return nil, nil
	}
	down, up, err := l.p.network.Rate(l.ID)
	if errors.Is(err, network.ErrNotAttached) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return new(max(down, up)), nil
}

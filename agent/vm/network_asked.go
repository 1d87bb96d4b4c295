package vm

import (
	"fmt"
	"net/netip"

	"cloudflash/agent/fault"
	"cloudflash/agent/network"
	"cloudflash/agent/state"
)

// Modes of a VM's network.
const (
	NetworkNAT      = string(network.NAT)      // the outside, by NAT; no other VM, no service of the host
	NetworkIsolated = string(network.Isolated) // loopback only
	NetworkBridge   = string(network.Bridged)  // as nat, and the other VMs in this mode
)

const maxPublish = 64

// NetworkDefaults fills in what was left out.
func NetworkDefaults(n state.Network) state.Network {
	if n.Mode == "" {
		n.Mode = NetworkNAT
	}
	ports := make([]state.Port, len(n.Publish))
	for i, p := range n.Publish {
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		ports[i] = p
	}
	n.Publish = ports
	return n
}

// CheckNetwork refuses what no VM can have.
func CheckNetwork(n state.Network) error {
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

	seen := map[state.Port]bool{}
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
			case ip.IsMulticast(),
				ip == netip.IPv6Loopback(),
				ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
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

package vm

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"cloudflash/agent/fault"
	"cloudflash/agent/gpu"
	"cloudflash/agent/network"
	"cloudflash/agent/state"

	"github.com/google/go-cmp/cmp"
)

func TestNetworkChecksNameTheField(t *testing.T) {
	tests := map[string]struct {
		in   state.Network
		want string // pointer of the field that is wrong, or nothing
	}{
		"nothing said":          {state.Network{}, ""},
		"bridge":                {state.Network{Mode: NetworkBridge}, ""},
		"made up":               {state.Network{Mode: "host"}, "/network/mode"},
		"a port":                {state.Network{Publish: []state.Port{{HostPort: 8080, GuestPort: 80}}}, ""},
		"tcp and udp":           {state.Network{Publish: []state.Port{{HostPort: 53, GuestPort: 53}, {HostPort: 53, GuestPort: 53, Protocol: "udp"}}}, ""},
		"on one address":        {state.Network{Publish: []state.Port{{HostIP: "127.0.0.1", HostPort: 1, GuestPort: 65535}}}, ""},
		"port 0":                {state.Network{Publish: []state.Port{{HostPort: 0, GuestPort: 80}}}, "/network/publish/0/host_port"},
		"port 65536":            {state.Network{Publish: []state.Port{{HostPort: 1, GuestPort: 65536}}}, "/network/publish/0/guest_port"},
		"negative":              {state.Network{Publish: []state.Port{{HostPort: -1, GuestPort: 1}}}, "/network/publish/0/host_port"},
		"sctp":                  {state.Network{Publish: []state.Port{{HostPort: 1, GuestPort: 1, Protocol: "sctp"}}}, "/network/publish/0/protocol"},
		"no address":            {state.Network{Publish: []state.Port{{HostIP: "localhost", HostPort: 1, GuestPort: 1}}}, "/network/publish/0/host_ip"},
		"an address with zone":  {state.Network{Publish: []state.Port{{HostIP: "fe80::1%eth0", HostPort: 1, GuestPort: 1}}}, "/network/publish/0/host_ip"},
		"twice":                 {state.Network{Publish: []state.Port{{HostPort: 1, GuestPort: 1}, {HostPort: 1, GuestPort: 2, Protocol: "tcp"}}}, "/network/publish/1/host_port"},
		"published in nowhere":  {state.Network{Mode: NetworkIsolated, Publish: []state.Port{{HostPort: 1, GuestPort: 1}}}, "/network/publish"},
		"more ports than there": {state.Network{Publish: make([]state.Port, maxPublish+1)}, "/network/publish"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := CheckNetwork(NetworkDefaults(tt.in))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *fault.Error
			if !errors.As(err, &e) || !errors.Is(e, fault.ErrInvalid) || e.Fields[0].Pointer != tt.want {
				t.Errorf("%v %+v", err, e)
			}
		})
	}
}

func TestLinkOfAVM(t *testing.T) {
	v := &VM{Identity: Identity{ID: "0123456789", Slot: 7, Network: NetworkDefaults(state.Network{Publish: []state.Port{
		{HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80}, {HostPort: 53, GuestPort: 5353, Protocol: "udp"}}})}}
	want := network.Link{ID: "0123456789", Slot: 7, Mode: network.NAT, RateBPS: 5e6, PID: 42, Publish: []network.Publish{
		{HostPort: 8080, GuestPort: 80, Protocol: "tcp", HostIP: netip.MustParseAddr("127.0.0.1")}, {HostPort: 53, GuestPort: 5353, Protocol: "udp"}}}
	if diff := cmp.Diff(want, v.link(5e6, 42), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAPortThatIsTakenSaysByWhom(t *testing.T) {
	p := bare(t)
	p.add(t, state.VM{ID: "0123456789", Name: "web"})
	err := p.networkRefusal(&network.PortError{Publish: network.Publish{HostPort: 80, Protocol: "tcp"}, VM: "0123456789"})
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != "port_taken" || !strings.Contains(e.Detail, "VM web") {
		t.Errorf("%v", err)
	}
	if err := p.networkRefusal(&network.PoolError{Slot: 9, Size: 5}); !errors.Is(err, fault.ErrCapacity) {
		t.Error(err)
	}
}

// No GPU is promised twice, and a host without any says so.
func TestGPUsAreRefusedWhereThereAreNone(t *testing.T) {
	p := bare(t)
	var err error
	if p.gpus, err = gpu.Discover(context.Background(), gpu.Config{Root: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if ids, err := p.ReserveGPUs(p.cfg.State.View(), 0); ids != nil || err != nil {
		t.Error(ids, err)
	}
	_, err = p.ReserveGPUs(p.cfg.State.View(), 1)
	var e *fault.Error
	if !errors.As(err, &e) || !errors.Is(e, fault.ErrCapacity) || e.Code != "insufficient_gpus" || !strings.Contains(e.Detail, "no GPU here") {
		t.Errorf("%v", err)
	}
	v := &VM{Identity: Identity{Name: "web", GPUs: []string{"GPU-gone"}}}
	if err := v.checkGPUs(); !errors.Is(err, fault.ErrConflict) {
		t.Errorf("a VM without the GPU it was promised: %v", err)
	}
}

func TestPublishedAddresses(t *testing.T) {
	for ip, ok := range map[string]bool{
		"": true, "127.0.0.1": true, "192.0.2.1": true, "2001:db8::1": true,
		"0.0.0.0": false, "::": false, "::1": false, "0:0:0:0:0:0:0:1": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false,
		"1.2.3": false, "fe80::1%eth0": false, "::ffff:1.2.3.4": false,
	} {
		n := state.Network{Mode: NetworkNAT, Publish: []state.Port{{HostIP: ip, HostPort: 80, GuestPort: 80, Protocol: "tcp"}}}
		if err := CheckNetwork(n); (err == nil) != ok {
			t.Errorf("%q: %v", ip, err)
		}
	}
	twice := state.Network{Mode: NetworkNAT, Publish: []state.Port{{HostIP: "2001:db8::1", HostPort: 80, GuestPort: 80, Protocol: "tcp"},
		{HostIP: "2001:db8:0::1", HostPort: 80, GuestPort: 81, Protocol: "tcp"}}}
	if CheckNetwork(twice) == nil {
		t.Error("one address in two spellings is accepted")
	}
}

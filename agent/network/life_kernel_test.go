package network_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"cloudflash/agent/network"
)

// steps are those of Attach.
var steps = []string{"elements", "flows", "veth", "ifb", "shape", "port", "inside"}

func TestSystemFailedAttachLeavesNothing(t *testing.T) {
	h := newHost(t, nil)
	v := newNamespace(t)
	l := network.Link{ID: id(0), Slot: 0, Mode: network.Bridged, RateBPS: 10e6, PID: v.pid,
		Publish: []network.Publish{{HostPort: 8081, GuestPort: 80, Protocol: "tcp"}}}
	before, inside := state(t), v.sh("ip -o addr; ip route")
	for _, broken := range steps {
		h.OnStep(func(_, name string) error {
			if name == broken {
				return errBroken
			}
			return nil
		})
		if _, err := h.Attach(t.Context(), l); !errors.Is(err, errBroken) {
			t.Errorf("at %s: %v", broken, err)
		}
		if after := settled(t, before); after != before {
			t.Errorf("broken at %s, it left\n%s\nbefore:\n%s", broken, after, before)
		}
		if after := v.sh("ip -o addr; ip route"); after != inside {
			t.Errorf("broken at %s, it left in the VM\n%s", broken, after)
		}
	}
	h.OnStep(func(string, string) error { return nil })
	v.sh("ip link add eth0 type ifb") // something real: the VM's end cannot get its name
	if _, err := h.Attach(t.Context(), l); err == nil {
		t.Error("attached in spite of an eth0")
	}
	if after := settled(t, before); after != before {
		t.Errorf("it left\n%s\nbefore:\n%s", after, before)
	}
	v.sh("ip link del eth0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Attach(ctx, l); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := h.Attach(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	// A failed repetition leaves a VM connected.
	attached := state(t)
	for _, broken := range steps {
		h.OnStep(func(_, name string) error {
			if name == broken {
				return errBroken
			}
			return nil
		})
		if _, err := h.Attach(t.Context(), l); !errors.Is(err, errBroken) {
			t.Errorf("at %s: %v", broken, err)
		}
	}
	if after := settled(t, attached); after != attached {
		t.Errorf("failed repetitions changed\n%s\nbefore:\n%s", after, attached)
	}
	h.OnStep(func(string, string) error { return nil })
}

// killed runs f and ends it at a step, as SIGKILL would: nothing is undone.
func killed(n *network.Network, at string, f func()) {
	done := make(chan struct{})
	n.OnStep(func(_, name string) error {
		if name == at {
			runtime.Goexit()
		}
		return nil
	})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func TestSystemKilledBetweenSteps(t *testing.T) {
	h := newHost(t, nil)
	h.outside.listen("tcp", ":80")
	v := newNamespace(t)
	l := network.Link{ID: id(0), Slot: 0, Mode: network.NAT, RateBPS: 10e6, PID: v.pid,
		Publish: []network.Publish{{HostPort: 8081, GuestPort: 80, Protocol: "tcp"}}}
	before := state(t)
	for _, next := range []string{"attach", "detach", "sweep"} {
		for _, at := range append(steps, "after") {
			n := h.restart()
			killed(n, at, func() { _, _ = n.Attach(context.Background(), l) })
			n.Close()
			n = h.restart() // another agent
			switch next {
			case "attach":
				if _, err := n.Attach(t.Context(), l); err != nil {
					t.Errorf("killed at %s: %v", at, err)
				}
				v.reaches("tcp", "192.0.2.2:80")
				for _, part := range []string{"links", "elements", "flows"} { // and killed while it is removed
					n := h.restart()
					killed(n, part, func() { _ = n.Detach(l.ID) })
					n.Close()
				}
				fallthrough
			case "detach":
				m := h.restart()
				if err := errors.Join(m.Detach(l.ID), m.Detach(l.ID)); err != nil {
					t.Errorf("killed at %s: %v", at, err)
				}
				m.Close()
			case "sweep":
				if err := n.Sweep(t.Context(), map[string]bool{id(1): true}); err != nil {
					t.Errorf("killed at %s: %v", at, err)
				}
			}
			n.Close()
			if after := settled(t, before); after != before {
				t.Fatalf("killed at %s, then %s:\n%s\nbefore:\n%s", at, next, after, before)
			}
		}
	}
}

func TestSystemSweep(t *testing.T) {
	h := newHost(t, nil)
	sh(t, fmt.Sprintf(`ip link add cfv%s type ifb; ip link add cfvolume type ifb; ip link add other group %d type ifb`, id(8), 0x0cf1b005))
	t.Cleanup(func() { sh(t, "ip link del cfvolume; ip link del other; ip link del cfv"+id(8)) })
	before := state(t)
	kept := h.vm(1, network.NAT)
	with := state(t)
	gone := h.vm(2, network.Bridged, network.Publish{HostPort: 8081, GuestPort: 80, Protocol: "tcp"})
	dead := h.vm(3, network.NAT)
	dead.kill()
	if err := h.Sweep(t.Context(), map[string]bool{kept.link.ID: true}); err != nil {
		t.Error(err)
	}
	if after := settled(t, with); after != with {
		t.Errorf("%s\nwant\n%s", after, with)
	}
	if gone.sh("ls /sys/class/net >/dev/null; ls /proc/sys/net/ipv4/conf") != "all\ndefault\nlo" {
		t.Error("the VM has an interface still")
	}
	if err := h.Sweep(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if after := settled(t, before); after != before {
		t.Errorf("%s\nwant\n%s", after, before)
	}
	// A link of that name that is not ours is neither taken nor removed.
	v := newNamespace(t)
	if _, err := h.Attach(t.Context(), network.Link{ID: id(8), Slot: 8, Mode: network.NAT, RateBPS: 1e6, PID: v.pid}); !errors.Is(err, network.ErrForeign) {
		t.Error(err)
	}
	if err := h.Detach(id(8)); !errors.Is(err, network.ErrForeign) {
		t.Error(err)
	}
	if after := settled(t, before); after != before {
		t.Errorf("%s\nwant\n%s", after, before)
	}
}

func TestSystemCycles(t *testing.T) {
	h := newHost(t, nil)
	v := newNamespace(t)
	l := network.Link{ID: id(0), Slot: 0, Mode: network.Bridged, RateBPS: 10e6, PID: v.pid,
		Publish: []network.Publish{{HostPort: 8081, GuestPort: 80, Protocol: "tcp"}}}
	before := state(t)
	for range 25 {
		if _, err := h.Attach(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if err := h.Detach(l.ID); err != nil {
			t.Fatal(err)
		}
	}
	if after := settled(t, before); after != before {
		t.Errorf("%s\nbefore:\n%s", after, before)
	}
}

func TestSystemAtOnce(t *testing.T) {
	h := newHost(t, nil)
	before := state(t)
	var wg sync.WaitGroup
	for slot := range 8 {
		v := newNamespace(t)
		wg.Go(func() {
			l := network.Link{ID: id(slot), Slot: slot, Mode: network.NAT, RateBPS: 10e6, PID: v.pid}
			for range 3 {
				if _, err := h.Attach(t.Context(), l); err != nil {
					t.Error(err)
				}
				if _, err := h.ResolvConf(); err != nil {
					t.Error(err)
				}
				if _, err := h.Counters(); err != nil {
					t.Error(err)
				}
				if err := h.Detach(l.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if after := settled(t, before); after != before {
		t.Errorf("%s\nbefore:\n%s", after, before)
	}
}

func TestSystemRefusals(t *testing.T) {
	h := newHost(t, func(c *network.Config) { c.Pool = netip.MustParsePrefix("10.88.0.0/29") })
	a := h.vm(0, network.NAT)
	with := state(t)
	v := newNamespace(t)
	here := exec.Command("sleep", "600") // not this process: its first thread may have gone elsewhere in a test
	if err := here.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = here.Process.Kill(); _ = here.Wait() })
	good := network.Link{ID: id(1), Slot: 1, Mode: network.NAT, RateBPS: 10e6, PID: v.pid}
	for name, c := range map[string]struct {
		change func(*network.Link)
		want   error
	}{
		"the pool ends":        {func(l *network.Link) { l.Slot = 5 }, network.ErrExhausted},
		"the slot is taken":    {func(l *network.Link) { l.Slot = 0 }, network.ErrSlotTaken},
		"the host's namespace": {func(l *network.Link) { l.PID = here.Process.Pid }, network.ErrHostNamespace},
		"no such process":      {func(l *network.Link) { l.PID = 1 << 30 }, os.ErrNotExist},
	} {
		l := good
		c.change(&l)
		if _, err := h.Attach(t.Context(), l); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := settled(t, with); after != with {
		t.Errorf("%s\nbefore:\n%s", after, with)
	}
	if _, err := h.Attach(t.Context(), good); err != nil {
		t.Error(err)
	}
	other, err := network.New(network.Config{Bridge: "cf1", Pool: netip.MustParsePrefix("192.0.2.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Open(t.Context()); !errors.Is(err, network.ErrPoolInUse) {
		t.Error(err)
	}
	_ = a
}

func TestSystemInitIsReplaced(t *testing.T) {
	h := newHost(t, nil)
	h.outside.listen("tcp", ":80")
	v := h.vm(0, network.NAT)
	link := v.link
	next := newNamespace(t)
	link.PID = next.pid
	if _, err := h.Attach(t.Context(), link); err != nil { // the old one still lives
		t.Fatal(err)
	}
	next.reaches("tcp", "192.0.2.2:80")
	v.refused("tcp", "192.0.2.2:80")
	next.kill()
	last := newNamespace(t)
	link.PID, link.Mode = last.pid, network.Bridged
	if _, err := h.Attach(t.Context(), link); err != nil { // the old one is dying
		t.Fatal(err)
	}
	last.reaches("tcp", "192.0.2.2:80")
}

func TestSystemFlushedRulesComeBack(t *testing.T) {
	h := newHost(t, nil)
	h.outside.listen("tcp", ":80")
	v := h.vm(0, network.NAT, network.Publish{HostPort: 8081, GuestPort: 80, Protocol: "tcp"})
	v.listen("tcp", ":80")
	want := state(t)
	network.FlushRuleset(t)
	v.refused("tcp", "192.0.2.2:80")
	if err := h.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.reaches("tcp", "192.0.2.2:80")
	h.outside.reaches("tcp", "192.0.2.1:8081")
	if got := settled(t, want); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for range 3 { // again and again, nothing grows
		if err := h.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := settled(t, want); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestKernelWithBridgeNetfilter(t *testing.T) {
	h := newHost(t, nil)
	h.outside.listen("tcp", ":80")
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		sh(t, "modprobe br_netfilter")
		t.Cleanup(func() { sh(t, "rmmod br_netfilter") })
	} else {
		const calls = "net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables"
		was := sh(t, "sysctl "+calls+" | tr -d ' '")
		t.Cleanup(func() { sh(t, "sysctl -qw "+strings.ReplaceAll(was, "\n", " ")) })
	}
	for _, on := range []string{"1", "0"} {
		sh(t, "sysctl -qw net.bridge.bridge-nf-call-iptables="+on+" net.bridge.bridge-nf-call-ip6tables="+on)
		a, b, c := h.vm(0, network.Bridged, network.Publish{HostPort: 8081, GuestPort: 80, Protocol: "tcp"}), h.vm(1, network.Bridged), h.vm(2, network.NAT)
		for _, v := range []*vm{a, b, c} {
			v.listen("tcp", ":80")
		}
		a.reaches("tcp", b.ip4(80))
		a.reaches("tcp", b.ip6(80))
		a.reaches("tcp", "192.0.2.2:80")
		a.refused("tcp", c.ip4(80))
		c.refused("tcp", a.ip4(80))
		c.reaches("tcp", "192.0.2.2:80")
		c.reaches("tcp", "[2001:db8::2]:80")
		h.outside.reaches("tcp", "192.0.2.1:8081")
		for _, v := range []*vm{a, b, c} {
			if err := h.Detach(v.link.ID); err != nil {
				t.Error(err)
			}
		}
	}
}

// Without a module, Open names it.
func TestKernelLacksModule(t *testing.T) {
	h := newHost(t, nil)
	const modprobe = "/proc/sys/kernel/modprobe"
	loader, err := os.ReadFile(modprobe)
	if errors.Is(err, os.ErrNotExist) {
		t.Log("everything is built in")
	} else if err != nil {
		t.Fatal(err)
	}
	for module, feature := range map[string]string{"ifb": "ifb", "sch_tbf": "sch_tbf", "act_mirred": "one of cls_u32 and act_mirred"} {
		if err := h.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("rmmod", module).CombinedOutput(); err != nil {
			t.Logf("%s stays: %s", module, out)
			continue
		}
		if err := os.WriteFile(modprobe, []byte("/bin/false"), 0); err != nil {
			t.Fatal(err)
		}
		err := h.Open(t.Context())
		if err := os.WriteFile(modprobe, loader, 0); err != nil {
			t.Fatal(err)
		}
		var lacks *network.UnsupportedError
		if !errors.As(err, &lacks) || !errors.Is(err, network.ErrUnsupported) || lacks.Feature != feature {
			t.Errorf("without %s: %v", module, err)
		}
		if err := h.Open(t.Context()); err != nil {
			t.Errorf("with %s again: %v", module, err)
		}
	}
}

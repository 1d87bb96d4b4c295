package network_test

import (
	"fmt"
	"testing"
	"time"

	"cloudflash/agent/network"
)

// These two stand side by side so that one run, on one machine, gives the ratio
// of connecting a VM to the same links, limits, rules, addresses and routes made
// by command-line tools. Both include the end; attach-ns is without it.
// unshare -n -m sh -c 'CLOUDFLASH_KERNEL_TESTS=1 go test -run - -bench Kernel ./agent/network'

func BenchmarkKernelAttach(b *testing.B) {
	h := newHost(b, nil)
	v := newNamespace(b)
	l := network.Link{ID: id(0), Slot: 0, Mode: network.NAT, RateBPS: 100e6, PID: v.pid}
	var attach time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := h.Attach(b.Context(), l); err != nil {
			b.Fatal(err)
		}
		attach += time.Since(began)
		if err := h.Detach(l.ID); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(attach)/float64(b.N), "attach-ns/op")
}

func BenchmarkKernelCommands(b *testing.B) {
	newHost(b, nil)
	v := newNamespace(b)
	attach := fmt.Sprintf(`
nft -f - <<'END'
add element bridge cloudflash allowed4 { cfvb . 02:cf:0a:58:00:02 . 10.88.0.2 }
add element bridge cloudflash allowed6 { cfvb . 02:cf:0a:58:00:02 . fd0c:f1a5:c10d::2, cfvb . 02:cf:0a:58:00:02 . fe80::cf:aff:fe58:2 }
END
ip link add cfvb group 7 type veth peer name eth0 address 02:cf:0a:58:00:02 netns %[1]d
ip link add cfib group 7 type ifb
ip link set cfib up addrgenmode none
tc qdisc add dev cfvb root handle 1: tbf rate 100mbit burst 100kb limit 250kb
tc qdisc add dev cfib root handle 1: tbf rate 100mbit burst 100kb limit 250kb
tc qdisc add dev cfvb ingress
tc filter add dev cfvb parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev cfib
ip link set cfvb master cf0 up addrgenmode none
bridge link set dev cfvb isolated on
nsenter --net=/proc/%[1]d/ns/net ip -batch - <<'END'
address add 10.88.0.2/16 dev eth0
address add fd0c:f1a5:c10d::2/64 dev eth0 nodad
link set eth0 up
route add default via 10.88.0.1
route add default via fd0c:f1a5:c10d::1
END`, v.pid)
	const detach = `
ip link del cfvb
ip link del cfib
nft delete element bridge cloudflash allowed4 '{ cfvb . 02:cf:0a:58:00:02 . 10.88.0.2 }'
nft delete element bridge cloudflash allowed6 '{ cfvb . 02:cf:0a:58:00:02 . fd0c:f1a5:c10d::2, cfvb . 02:cf:0a:58:00:02 . fe80::cf:aff:fe58:2 }'`
	var took time.Duration
	for b.Loop() {
		began := time.Now()
		sh(b, attach)
		took += time.Since(began)
		sh(b, detach)
	}
	b.ReportMetric(float64(took)/float64(b.N), "attach-ns/op")
}

func BenchmarkKernelCounters100(b *testing.B) {
	h := newHost(b, nil)
	v := newNamespace(b) // one namespace for all, each under a name of its own
	for slot := range 100 {
		if _, err := h.Attach(b.Context(), network.Link{ID: id(slot), Slot: slot, Mode: network.NAT, RateBPS: 1e6, PID: v.pid}); err != nil {
			b.Fatal(err)
		}
		v.sh(fmt.Sprintf("ip link set eth0 down; ip link set eth0 name e%d", slot))
	}
	b.ReportAllocs()
	for b.Loop() {
		if all, err := h.Counters(); err != nil || len(all) != 100 {
			b.Fatal(len(all), err)
		}
	}
}

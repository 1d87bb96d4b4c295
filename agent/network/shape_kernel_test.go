package network_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"cloudflash/agent/network"

	"github.com/vishvananda/netlink"
)

// flow is one TCP connection that sends as fast as it can.
type flow struct {
	received atomic.Int64
	sent     net.Conn
	sink     net.Conn
	failed   atomic.Pointer[error]
}

// pour lets one namespace send to another through the VM's link.
func pour(t testing.TB, from, to *namespace, addr string) *flow {
	t.Helper()
	var l net.Listener
	f := &flow{}
	err := to.do(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err == nil {
		err = from.do(func() (err error) {
			f.sent, err = net.DialTimeout("tcp", addr, 30*time.Second)
			return err
		})
	}
	if err == nil {
		f.sink, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	go f.send()
	go f.drain()
	t.Cleanup(f.stop)
	return f
}

func (f *flow) send() {
	b := make([]byte, 256<<10)
	for {
		if _, err := f.sent.Write(b); err != nil {
			f.fail(err)
			return
		}
	}
}

func (f *flow) drain() {
	b := make([]byte, 256<<10)
	for {
		n, err := f.sink.Read(b)
		f.received.Add(int64(n))
		if err != nil {
			f.fail(err)
			return
		}
	}
}

func (f *flow) fail(err error) {
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		f.failed.CompareAndSwap(nil, &err)
	}
}

func (f *flow) stop() {
	_ = f.sent.Close()
	_ = f.sink.Close()
}

// shaped is how many bytes have left the bucket of a direction. The counter of the link
// does not tell: a device that is not served for a while counts later what the bucket
// has let through before (an ifb does so in a tasklet), at another rate perhaps.
func (h *host) shaped(v *vm, direction string) float64 {
	h.t.Helper()
	link, err := netlink.LinkByName(map[string]string{"up": "cfi", "down": "cfv"}[direction] + v.link.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	all, err := netlink.QdiscList(link)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, q := range all {
		if _, ok := q.(*netlink.Tbf); ok && q.Attrs().Statistics != nil {
			return float64(q.Attrs().Statistics.Basic.Bytes)
		}
	}
	h.t.Fatalf("%s has no bucket: %v", link.Attrs().Name, all)
	return 0
}

// follows wants a direction, which is kept full, never to go above a rate, and to
// reach a part of it before long: not in every moment, as others use the machine, too.
func (h *host) follows(direction string, v *vm, rate, part float64) {
	h.t.Helper()
	const window = 250 * time.Millisecond
	burst := 2 * max(rate/8*0.008, 2*1514)
	best, deadline := 0.0, time.Now().Add(30*time.Second)
	for n := 1; ; n++ {
		began, before := time.Now(), h.shaped(v, direction)
		time.Sleep(window)
		got := h.shaped(v, direction) - before
		want := rate / 8 * time.Since(began).Seconds()
		if got > 1.01*want+burst {
			h.t.Errorf("%s at %.0f Mbit/s: %.0f bytes in window %d, which are %.0f", direction, rate/1e6, got, n, want)
			return
		}

		if best = max(best, got/want); n >= 3 && best >= part {
			h.t.Logf("%s: %.3f of %.0f Mbit/s at best, in %d windows", direction, best, rate/1e6, n)
			return
		}
		if time.Now().After(deadline) {
			h.t.Errorf("%s at %.0f Mbit/s: %.3f of it at best in half a minute", direction, rate/1e6, best)
			return
		}
	}
}

func TestKernelRate(t *testing.T) {
	h := newHost(t, nil)
	v := h.vm(0, network.NAT)
	// Downloads come by a published port, as nobody outside may open one by address.
	v.link.Publish = []network.Publish{{HostPort: 5001, GuestPort: 5001, Protocol: "tcp"}}
	for _, droptail := range []bool{false, true} {
		if droptail { // for kernels without fq_codel
			h.DropTail()
			if err := h.Detach(v.link.ID); err != nil {
				t.Fatal(err)
			}
		}
		for _, rate := range []float64{4e6, 30e6} { // an emulator that is busy carries them
			v.link.RateBPS = int64(rate)
			if _, err := h.Attach(t.Context(), v.link); err != nil {
				t.Fatal(err)
			}
			if down, up, err := h.Rate(v.link.ID); err != nil || down != int64(rate) || up != int64(rate) {
				t.Errorf("the kernel has %d down, %d up, %v", down, up, err)
			}
			up := pour(t, v.namespace, h.outside, "192.0.2.2:5000")
			h.follows("up", v, rate, 0.85)
			up.stop()
			down := h.download(v)
			h.follows("down", v, rate, 0.85)
			down.stop()
		}
	}
}

// download is a flow from the outside to a VM by its published port 5001.
func (h *host) download(v *vm) *flow {
	h.t.Helper()
	f := &flow{}
	var l net.Listener
	err := v.do(func() (err error) {
		l, err = net.Listen("tcp4", ":5001")
		return err
	})
	if err == nil {
		err = h.outside.do(func() (err error) {
			f.sent, err = net.DialTimeout("tcp", "192.0.2.1:5001", 30*time.Second)
			return err
		})
	}
	if err == nil {
		f.sink, err = l.Accept()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	_ = l.Close()
	go f.send()
	go f.drain()
	h.t.Cleanup(f.stop)
	return f
}

func TestKernelFullRate(t *testing.T) {
	h := newHost(t, nil)
	v := h.vm(0, network.NAT, network.Publish{HostPort: 5001, GuestPort: 5001, Protocol: "tcp"})
	if down, up, err := h.Rate(v.link.ID); err != nil || down != 10e9 || up != 10e9 {
		t.Errorf("the kernel has %d down, %d up, %v", down, up, err)
	}
	const rate = 1e9
	for direction, begin := range map[string]func() *flow{
		"up":   func() *flow { return pour(t, v.namespace, h.outside, "192.0.2.2:5000") },
		"down": func() *flow { return h.download(v) },
	} {
		f := begin()
		bare := 0.0
		for range 4 { // a connection takes a while to find its rate
			began, before := time.Now(), h.shaped(v, direction)
			time.Sleep(250 * time.Millisecond)
			bare = max(bare, (h.shaped(v, direction)-before)*8/time.Since(began).Seconds())
		}
		t.Logf("%s: %.0f Mbit/s at 10 Gbit/s", direction, bare/1e6)

		if err := h.SetRate(v.link.ID, rate); err != nil {
			t.Fatal(err)
		}
		part := 0.0
		if bare > 2*rate { // where the machine carries it
			part = 0.88
		}
		h.follows(direction, v, rate, part)
		f.stop()
		if err := h.SetRate(v.link.ID, 10e9); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKernelSetRate(t *testing.T) {
	h := newHost(t, nil)
	v := h.vm(0, network.NAT, network.Publish{HostPort: 5001, GuestPort: 5001, Protocol: "tcp"})
	for direction, begin := range map[string]func() *flow{
		"up":   func() *flow { return pour(t, v.namespace, h.outside, "192.0.2.2:5000") },
		"down": func() *flow { return h.download(v) },
	} {
		f := begin()
		for _, rate := range []float64{20e6, 5e6, 40e6} {
			if err := h.SetRate(v.link.ID, int64(rate)); err != nil {
				t.Fatal(err)
			}
			h.follows(direction, v, rate, 0.5) // a queue that is stuck never does
		}
		if _, err := h.Attach(t.Context(), v.link); err != nil { // again, with the rate it had at first
			t.Fatal(err)
		}
		if down, up, err := h.Rate(v.link.ID); err != nil || down != v.link.RateBPS || up != v.link.RateBPS {
			t.Errorf("the kernel has %d down, %d up, %v", down, up, err)
		}
		if err := f.failed.Load(); err != nil {
			t.Errorf("%s: %v", direction, *err)
		}
		f.stop()
	}
	if err := h.SetRate(id(5), 1e6); !errors.Is(err, network.ErrNotAttached) {
		t.Error(err)
	}
}

func TestKernelRateHoldsForRootInTheVM(t *testing.T) {
	h := newHost(t, nil)
	v := h.vm(0, network.NAT)
	if err := h.SetRate(v.link.ID, 10e6); err != nil {
		t.Fatal(err)
	}
	v.sh(`tc qdisc replace dev eth0 root pfifo limit 10000; tc qdisc add dev eth0 ingress; tc qdisc del dev eth0 ingress
ip link set eth0 down; ip link set eth0 mtu 9000; ip link set eth0 up; ip route replace default via 10.88.0.1`)
	pour(t, v.namespace, h.outside, "192.0.2.2:5000")
	h.follows("up", v, 10e6, 0.5)
}

func TestKernelCounters(t *testing.T) {
	h := newHost(t, nil)
	v, idle := h.vm(0, network.NAT), h.vm(1, network.NAT)
	before, err := h.Counters()
	if err != nil {
		t.Fatal(err)
	}
	f := pour(t, v.namespace, h.outside, "192.0.2.2:5000")
	for deadline := time.Now().Add(30 * time.Second); f.received.Load() < 4<<20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes have arrived in half a minute", f.received.Load())
		}
	}
	f.stop()
	after, err := h.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != 2 {
		t.Errorf("%v", after)
	}
	sent, got := after[v.link.ID].TxBytes-before[v.link.ID].TxBytes, f.received.Load()
	if int64(sent) < got || after[v.link.ID].TxPackets == before[v.link.ID].TxPackets {
		t.Errorf("%d bytes sent, %d arrived", sent, got)
	}
	if rx := after[v.link.ID].RxBytes - before[v.link.ID].RxBytes; rx == 0 || rx > sent {
		t.Errorf("%d bytes received, %d sent", rx, sent)
	}
	if rx := after[idle.link.ID].TxBytes - before[idle.link.ID].TxBytes; rx > 10000 {
		t.Errorf("the idle one has sent %d bytes", rx)
	}
}

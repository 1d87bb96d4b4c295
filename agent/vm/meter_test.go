package vm

import (
	"testing"

	"cloudflash/agent/network"
	"cloudflash/agent/state"

	"pgregory.net/rapid"
)

// Whatever becomes of the links of a VM, what it is said to have sent and received does
// not go back, and nothing that was seen is left out.
func TestTrafficDoesNotGoBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c traffic
		var link, seen, want uint64
		for range rapid.IntRange(1, 50).Draw(t, "looks") {
			all := map[string]network.Counters{"web": {RxBytes: link, TxBytes: link}}
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0: // a new link, which has counted less than the last was seen to have
				link = rapid.Uint64Range(0, max(seen, 1)-1).Draw(t, "new")
				if seen > 0 {
					want, seen = want+link, link
					all["web"] = network.Counters{RxBytes: link, TxBytes: link}
				}
			case 1:
				delete(all, "web")
			default:
				more := rapid.Uint64Range(0, 1000).Draw(t, "more")
				link = seen + more
				want, seen = want+more, link
				all["web"] = network.Counters{RxBytes: link, TxBytes: link}
			}
			c.count(all, "web")
			if got := c.before.Plus(c.last).ReceivedBytes; seen > 0 && got != want {
				t.Fatalf("%d bytes, want %d", got, want)
			}
		}
	})
}

func TestTrafficOfEarlierLinksIsStored(t *testing.T) {
	p := bare(t)
	r := state.VM{ID: "web", Name: "web", State: state.VMRunning}
	p.add(t, r)
	v := p.VM(&r)
	v.keepTraffic(state.Traffic{ReceivedBytes: 5})
	if got := v.record().Traffic.ReceivedBytes; got != 5 {
		t.Errorf("%d bytes are stored", got)
	}
	if again := p.VM(v.record()); again.traffic.before.ReceivedBytes != 5 {
		t.Errorf("a new agent begins at %+v", again.traffic)
	}
}

func TestOneLeaseAtATime(t *testing.T) {
	p := bare(t)
	v := p.VM(&state.VM{ID: "web"})
	l := v.Work()
	if v.TryWork() != nil {
		t.Error("two have the lease")
	}
	l.Release()
	again := v.TryWork()
	if again == nil {
		t.Fatal("nobody gets the lease that was released")
	}
	defer again.Release()
	defer func() {
		if recover() == nil {
			t.Error("a lease is released twice")
		}
	}()
	l.Release()
}

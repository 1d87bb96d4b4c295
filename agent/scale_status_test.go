package agent

import (
	"fmt"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
)

// BenchmarkStatus is of a host that has run for long: it remembers as many cloudlets
// that have ended as it ever does. Everybody waits for each of these.
func BenchmarkStatus(b *testing.B) {
	a := fakeVMs(b, 1000)
	for i := range keepCloudlets {
		id := fmt.Sprint("c", i)
		var c cloudlet
		c.ID, c.VM, c.State = id, fmt.Sprint("vm", i%1000), CloudletSucceeded
		a.cloudlets[id] = &c
	}
	a.scaleRound(a.followAll(), false)
	b.Run("status", func(b *testing.B) {
		for b.Loop() {
			a.ScalingStatus()
		}
	})
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			a.mu.Lock()
			a.viewVMs()
			a.mu.Unlock()
		}
	})
}

func TestActiveCloudletsAreCountedForAllVMs(t *testing.T) {
	a, v := scalingAgent(t)
	for i, state := range []CloudletState{CloudletQueued, CloudletRunning, CloudletStarting, CloudletSucceeded} {
		id := fmt.Sprint("c", i)
		var c cloudlet
		c.ID, c.VM, c.State = id, v.ID, state
		a.cloudlets[id] = &c
	}
	if all := a.viewVMs(); len(all) != 1 || all[0].Cloudlets != 2 || all[0].Cloudlets != a.view(v).Cloudlets {
		t.Errorf("%+v", all)
	}
}

func TestRefusedLimitsAreTriedLessAndLessOften(t *testing.T) {
	var f follower
	now, waits := time.Unix(1e9, 0), ""
	for range 9 {
		f.failed(autoscale.Storage, now, true)
		waits += fmt.Sprint(f.wait[autoscale.Storage].Sub(now), " ")
	}
	if waits != "10s 20s 40s 1m20s 2m40s 5m20s 10m0s 10m0s 10m0s " {
		t.Error(waits)
	}
	f.failed(autoscale.Storage, now, false)
	f.failed(autoscale.Storage, now, true)
	if got := f.wait[autoscale.Storage].Sub(now); got != failAgain {
		t.Errorf("%v after one that was not refused", got)
	}
}

package agent

import (
	"fmt"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/state"
)

// BenchmarkStatus is of a host that has run for long: it remembers as many cloudlets
// that have ended as it ever does. Everybody waits for each of these.
func BenchmarkStatus(b *testing.B) {
	a := fakeVMs(b, 1000)
	a.must(b, func(tx *state.Tx) {
		for i := range state.KeepEnded {
			tx.PutCloudlet(cloudletRecord{ID: fmt.Sprint("c", i), VM: fmt.Sprint("vm", i%1000), State: CloudletSucceeded})
		}
	})
	a.scaleRound(a.followAll(), false)
	b.Run("status", func(b *testing.B) {
		for b.Loop() {
			a.ScalingStatus()
		}
	})
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			a.VMs()
		}
	})
}

func TestActiveCloudletsAreCountedForAllVMs(t *testing.T) {
	a, v := scalingAgent(t)
	a.must(t, func(tx *state.Tx) {
		for i, s := range []CloudletState{CloudletQueued, CloudletRunning, CloudletStarting, CloudletSucceeded} {
			tx.PutCloudlet(cloudletRecord{ID: fmt.Sprint("c", i), VM: v.ID, State: s})
		}
	})
	one, err := a.VM(v.ID)
	if all := a.VMs(); err != nil || len(all) != 1 || all[0].Cloudlets != 2 || one.Cloudlets != 2 {
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

package agent

import (
	"fmt"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

// BenchmarkStatus is of a host that has just begun, and of one that has run for long: it
// remembers as many cloudlets that have ended as it ever does.
func BenchmarkStatus(b *testing.B) {
	for _, ended := range []int{0, state.KeepEnded} {
		a := fakeVMs(b, 1000)
		a.parent = new(cgroup.Parent)
		a.must(b, func(tx *state.Tx) {
			for i := range ended {
				tx.PutCloudlet(cloudletRecord{ID: fmt.Sprint("c", i), VM: fmt.Sprint("vm", i%1000), State: CloudletSucceeded})
			}
		})
		a.scaleRound(a.followAll(), false)
		for name, do := range map[string]func(){
			"status":   func() { a.ScalingStatus() },
			"vms":      func() { a.VMs() },
			"snapshot": func() { a.publish(time.Now()) },
			"idle":     func() { a.watchIdle(time.Now()) },
		} {
			b.Run(fmt.Sprintf("ended=%d/%s", ended, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					do()
				}
			})
		}
	}
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

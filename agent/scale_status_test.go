package agent

import (
	"fmt"
	"os"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

// captured is a slice whose files stand still.
type captured string

func (d captured) OpenReader() (*cgroup.Reader, error) { return cgroup.OpenReader(string(d)) }

// fakeVMs are running VMs whose slices are files on disk: all is done for them that a
// second costs, but what the kernel takes to make the numbers.
func fakeVMs(b testing.TB, n int) *Agent {
	b.Helper()
	dir := b.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../cgroup/testdata/6.12")); err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{"cgroup.procs": "", "memory.swap.current": "4096\n"} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	a := bare(b)
	a.meter = meter.New(meter.Config{StateDir: b.TempDir()})
	b.Cleanup(a.meter.Close)
	for i := range n {
		v := a.add(b, vmRecord{
			ID:    fmt.Sprint("vm", i),
			Name:  fmt.Sprint("vm", i),
			State: VMRunning,
			Spec:  Spec{CPUs: 0.5, MemoryBytes: 64 * mib, StorageBytes: gib, BandwidthBPS: 100e6, PIDs: 100},
		})
		p, err := a.meter.VM(v.ID, captured(dir))
		if err != nil {
			b.Fatal(err)
		}
		v.runs(new(guest.Guest), p)
		l := v.Work()
		l.Took(autoscale.CPU, 0.5, 0)
		l.Took(autoscale.Memory, 64*float64(mib), 57*float64(mib))
		l.Took(autoscale.Storage, float64(gib), 0)
		l.Took(autoscale.Bandwidth, 100e6, 0)
		l.Release()
	}
	a.meter.Pass(time.Now())
	return a
}

// BenchmarkStatus is of a host that has just begun, and of one that has run for long: it
// remembers as many cloudlets that have ended as it ever does.
func BenchmarkStatus(b *testing.B) {
	for _, ended := range []int{0, state.KeepEnded} {
		a := fakeVMs(b, 1000)
		a.scaling = a.newScaling()
		a.must(b, func(tx *state.Tx) {
			for i := range ended {
				tx.PutCloudlet(cloudletRecord{ID: fmt.Sprint("c", i), VM: fmt.Sprint("vm", i%1000), State: CloudletSucceeded})
			}
		})
		a.scaling.Round()
		for name, do := range map[string]func(){
			"status":   func() { a.ScalingStatus() },
			"vms":      func() { a.VMs() },
			"snapshot": func() { a.publish(); a.Snapshot() },
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

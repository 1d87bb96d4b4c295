package agent

import (
	"fmt"
	"os"
	"testing"
	"time"

	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/cgroup"

	"golang.org/x/sys/unix"
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
	a.scaling = newScaling()
	a.meter = meter.New(meter.Config{StateDir: b.TempDir()})
	b.Cleanup(a.meter.Close)
	for i := range n {
		v := a.add(b, vmRecord{
			ID:    fmt.Sprint("vm", i),
			Name:  fmt.Sprint("vm", i),
			State: VMRunning,
			Spec:  Spec{CPUs: 0.5, MemoryBytes: 64 * mib, StorageBytes: gib, BandwidthBPS: 100e6, PIDs: 100},
		})
		v.guest = new(guest.Guest)
		v.limits = Limits{CPUs: new(0.5), MemoryBytes: new(64 * mib), MemoryHighBytes: new(57 * mib), StorageBytes: new(gib), BandwidthBPS: new(int64(100e6))}
		var err error
		if v.probe, err = a.meter.VM(v.ID, captured(dir)); err != nil {
			b.Fatal(err)
		}
	}
	a.meter.Pass(time.Now())
	return a
}

// BenchmarkScaling is what the loop takes: each second for so many VMs, and for the
// looks of the fast path, of which there are at most 200 in a second however many VMs
// are saturated.
func BenchmarkScaling(b *testing.B) {
	cpu := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for _, n := range []int{50, 1000} {
		b.Run(fmt.Sprintf("vms=%d/second", n), func(b *testing.B) {
			a := fakeVMs(b, n)
			b.ReportAllocs()
			used := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				a.meter.Pass(time.Now()) // counted by the meter's own benchmark
				began := cpu()
				b.StartTimer()
				a.scaleRound(a.followAll(), false)
				a.seeEffects()
				used += cpu() - began
			}
			b.ReportMetric(100*used.Seconds()/float64(b.N), "%core")
		})
		b.Run(fmt.Sprintf("vms=%d/fast", n), func(b *testing.B) {
			a := fakeVMs(b, n)
			a.scaleRound(a.followAll(), false)
			began := cpu()
			for b.Loop() {
				a.scaling.mu.Lock()
				for _, f := range a.scaling.followers {
					f.looks = wakeLooks
				}
				a.scaling.mu.Unlock()
				a.scaleRound(a.hottest(), true)
			}
			perSecond := (cpu() - began) / time.Duration(b.N) * (time.Second / hotEvery)
			b.ReportMetric(100*perSecond.Seconds(), "%core")
		})
	}
}

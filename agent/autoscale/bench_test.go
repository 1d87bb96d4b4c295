package autoscale_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"golang.org/x/sys/unix"
)

// BenchmarkSecond is one second of so many VMs, each with its own load, decisions
// carried out. %core is CPU time, whatever else the machine does meanwhile.
func BenchmarkSecond(b *testing.B) {
	for _, n := range []int{50, 1000} {
		b.Run(fmt.Sprint(n, "VMs"), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			spec := autoscale.Limits{autoscale.CPU: 2, autoscale.Memory: 1 << 30, autoscale.Bandwidth: 1e8, autoscale.WriteBPS: 1e8, autoscale.Storage: 1e10}
			vms := make([]*vm, n)
			for i := range vms {
				vms[i] = newVM(b, spec, nil)
			}
			level := make([]float64, n)
			second := func() {
				for i, v := range vms {
					if rng.IntN(60) == 0 {
						level[i] = 3 * rng.Float64() * rng.Float64()
					}
					v.sample.MemoryBytes = int64((0.2 + 0.1*rng.Float64()) * (1 << 30))
					v.sample.WorkingSetBytes, v.sample.UnreclaimableBytes = v.sample.MemoryBytes, v.sample.MemoryBytes
					v.sample.SentBytes += int64(rng.IntN(1e6))
					v.look(time.Second, level[i]*(0.9+0.2*rng.Float64()))
					v.all = v.all[:0]
				}
			}
			for range 900 { // histories are full
				second()
			}
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				second()
			}
			b.ReportMetric((cpuTime(b)-before).Seconds()/float64(b.N)*100, "%core")
		})
	}
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

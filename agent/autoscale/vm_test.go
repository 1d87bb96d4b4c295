package autoscale_test

import (
	"math"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
)

const mib = 1 << 20

// vm is a simulated VM: what it wants, and counters as the kernel would keep them.
type vm struct {
	*autoscale.Scaler
	t      testing.TB
	sample autoscale.Sample
	limits autoscale.Limits
	high   float64
	all    []autoscale.Decision
	keep   bool // decisions are not applied
}

func policy(spec autoscale.Limits) autoscale.Policy {
	return autoscale.Default(spec, autoscale.Limits{autoscale.CPU: 0.1, autoscale.Memory: 32 * mib}, autoscale.Limits{autoscale.CPU: 32})
}

func newVM(t testing.TB, spec autoscale.Limits, change func(*autoscale.Policy)) *vm {
	t.Helper()
	p := policy(spec)
	if change != nil {
		change(&p)
	}
	s, err := autoscale.NewScaler("vm-1", p)
	if err != nil {
		t.Fatal(err)
	}
	v := &vm{Scaler: s, t: t, limits: spec, sample: autoscale.Sample{At: time.Unix(1e9, 0)}}
	s.Observe(&v.sample, v.limits, v.high, nil)
	return v
}

// run lets the VM want so many cores for a time, looked at every dt.
func (v *vm) run(d, dt time.Duration, cores func(i int) float64) (decisions []autoscale.Decision) {
	for i := range int(d / dt) {
		decisions = append(decisions, v.look(dt, cores(i))...)
	}
	return decisions
}

// look lets dt go by in which the VM wants so many cores.
func (v *vm) look(dt time.Duration, cores float64) []autoscale.Decision {
	sec, limit := dt.Seconds(), v.limits[autoscale.CPU]
	periods := int64(math.Round(10 * sec))
	v.sample.At = v.sample.At.Add(dt)
	v.sample.Periods += periods
	if limit > 0 && cores > limit {
		v.sample.ThrottledPeriods += periods
		v.sample.CPUStalledSeconds += sec * (1 - limit/cores)
		v.sample.CPUWaitingSeconds += sec * (1 - limit/cores)
		cores = limit
	}
	v.sample.CPUSeconds += cores * sec
	return v.observe()
}

func (v *vm) observe() []autoscale.Decision {
	got := v.Observe(&v.sample, v.limits, v.high, nil)
	for _, d := range got {
		if d.Status == autoscale.Proposed && !v.keep && !d.DryRun {
			v.limits[d.Resource] = d.To
			if d.Resource == autoscale.Memory {
				v.high = d.HighTo
			}
			v.Applied(d, v.sample.At, d.To)
		}
	}
	v.all = append(v.all, got...)
	return got
}

func steady(cores float64) func(int) float64 { return func(int) float64 { return cores } }

func cpuVM(t testing.TB, cores float64) *vm {
	return newVM(t, autoscale.Limits{autoscale.CPU: cores}, nil)
}

package autoscale_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"pgregory.net/rapid"
)

// TestDecisionsKeepTheRules throws anything at a Scaler, counters that make no sense
// included.
func TestDecisionsKeepTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := autoscale.Limits{autoscale.CPU: rapid.Float64Range(0.1, 32).Draw(t, "cores"), autoscale.Memory: rapid.Float64Range(32*mib, 64<<30).Draw(t, "bytes"),
			autoscale.Bandwidth: rapid.Float64Range(1e6, 1e10).Draw(t, "bits"), autoscale.WriteBPS: 100 * mib, autoscale.Storage: 1 << 30}
		p := policy(spec)
		p.SLA = rapid.IntRange(1, 3).Draw(t, "sla")
		s, err := autoscale.NewScaler("vm", p)
		if err != nil {
			t.Fatal(err)
		}
		twin, _ := autoscale.NewScaler("vm", p)
		limits, high := spec, 0.9*spec[autoscale.Memory]
		var sm autoscale.Sample
		sm.At = time.Unix(1e9, 0)
		shrunk := map[autoscale.Resource]time.Time{}
		for range rapid.IntRange(1, 200).Draw(t, "samples") {
			anything(t, &sm, limits)
			got := s.Observe(&sm, limits, high, nil)
			if again := twin.Observe(&sm, limits, high, nil); fmt.Sprint(got) != fmt.Sprint(again) {
				t.Fatalf("the same samples gave %v and %v", got, again)
			}
			for _, d := range got {
				check(t, d, p.Rules[d.Resource], limits[d.Resource], high, float64(sm.MemoryBytes))
				if d.Status != autoscale.Proposed || rapid.IntRange(0, 9).Draw(t, "refused") == 0 {
					continue
				}
				if last, ok := shrunk[d.Resource]; ok && d.Action == autoscale.Shrink && d.Signal != autoscale.ByBounds && d.At.Sub(last) < p.Rules[d.Resource].Cooldown && d.At.After(last) {
					t.Fatalf("%v after %v", d.String(), d.At.Sub(last))
				}
				if d.Action == autoscale.Shrink {
					shrunk[d.Resource] = d.At
				}
				limits[d.Resource] = d.To
				if d.Resource == autoscale.Memory {
					high = d.HighTo
				}
				s.Applied(d, sm.At, d.To)
				twin.Applied(d, sm.At, d.To)
			}
		}
	})
}

// anything moves a sample on, mostly forward.
func anything(t *rapid.T, sm *autoscale.Sample, limits autoscale.Limits) {
	step := rapid.SampledFrom([]time.Duration{time.Second, time.Second, time.Second, 100 * time.Millisecond, 20 * time.Second, time.Minute, -time.Hour, 0, 9 * time.Hour}).Draw(t, "step")
	sm.At = sm.At.Add(step)
	dt := max(step.Seconds(), 0)
	part := func(name string) float64 { return rapid.Float64Range(0, 1.2).Draw(t, name) }
	sm.CPUSeconds += limits[autoscale.CPU] * part("cpu") * dt
	sm.Periods += int64(10 * dt)
	sm.ThrottledPeriods += int64(10 * dt * part("throttled"))
	sm.CPUStalledSeconds += dt * part("stalled")
	sm.MemoryBytes = int64(limits[autoscale.Memory] * part("memory"))
	sm.WorkingSetBytes = int64(float64(sm.MemoryBytes) * part("working set"))
	sm.UnreclaimableBytes = int64(float64(sm.WorkingSetBytes) * part("unreclaimable"))
	sm.MemoryHighEvents += rapid.Int64Range(-1, 3).Draw(t, "high")
	sm.OOMKills += rapid.SampledFrom([]int64{0, 0, 0, 0, 0, 1}).Draw(t, "oom")
	sm.Refaults += rapid.SampledFrom([]int64{0, 0, 100000}).Draw(t, "refaults")
	sm.MemoryWaitingSeconds += rapid.SampledFrom([]float64{0, 0, 0.5}).Draw(t, "waiting") * dt
	sm.SentBytes += int64(limits[autoscale.Bandwidth] / 8 * part("sent") * dt)
	sm.WrittenBytes += int64(limits[autoscale.WriteBPS] * part("written") * dt)
	sm.IOWaitingSeconds += dt * part("io")
	sm.StorageBytes = int64(limits[autoscale.Storage] * part("stored"))
	sm.NoPressure = rapid.IntRange(0, 20).Draw(t, "psi") == 0
	sm.NoCPU = rapid.IntRange(0, 20).Draw(t, "cpu.stat") == 0
	sm.NoMemory = rapid.IntRange(0, 20).Draw(t, "memory.stat") == 0
}

func check(t *rapid.T, d autoscale.Decision, rule autoscale.Rule, limit, high, current float64) {
	if d.Action == autoscale.Drift {
		return
	}
	bad := func(what string) { t.Fatalf("%s: %s (%+v)", what, d.String(), d) }
	memory := d.Resource == autoscale.Memory
	switch {
	case math.IsNaN(d.To) || math.IsInf(d.To, 0) || d.To <= 0:
		bad("no size")
	case d.From != limit:
		bad("not from the limit")
	case d.To > rule.Max*1.001+4096 && d.Up():
		bad("above the bound")
	case d.To < rule.Min*0.999 && d.Action == autoscale.Shrink:
		bad("below the bound")
	case !memory && d.Up() && d.To <= limit:
		bad("grows to less")
	case !memory && d.Action == autoscale.Shrink && d.To >= limit:
		bad("shrinks to more")
	case d.Action == autoscale.Shrink && d.Signal != autoscale.ByBounds && d.To < limit*(1-rule.Step)*0.999:
		bad("more than a step")
	case d.Reason() == "" || d.VM != "vm" || d.At.IsZero():
		bad("says too little")
	}
	if !memory {
		return
	}
	switch {
	case d.HighTo <= 0 || d.HighTo > d.To:
		bad("high above max")
	case d.Action == autoscale.Shrink && d.To < min(1.19*current, limit):
		bad("max below what is in use")
	case d.Action == autoscale.Shrink && d.To > limit:
		bad("shrinks to more")
	case d.Up() && d.To < limit:
		bad("grows to less")
	case d.Up() && d.Signal != autoscale.ByBounds && d.HighTo < min(high, limit)*0.98:
		bad("high grows to less")
	}
}

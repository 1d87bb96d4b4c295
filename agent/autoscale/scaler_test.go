package autoscale_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
)

func TestGrowsAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		cores  float64
		signal autoscale.Signal
		to     float64
	}{
		"below 80 % nothing grows":          {cores: 0.79},
		"at 80 % the target is 70 %":        {0.8, autoscale.ByUsage, 0.8 / 0.7},
		"throttled, by what pressure says":  {1.2, autoscale.ByThrottled, 1.2 / 0.7},
		"no more than twice in a second":    {3.5, autoscale.ByThrottled, 2},
		"just above the limit is throttled": {1.01, autoscale.ByThrottled, 1.01 / 0.7},
	} {
		t.Run(name, func(t *testing.T) {
			v := cpuVM(t, 1)
			got := v.run(time.Second, time.Second, steady(c.cores))
			if c.signal == "" {
				if len(got) > 0 {
					t.Fatalf("got %v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Signal != c.signal || !near(got[0].To, c.to, 0.001) || got[0].Action != autoscale.Grow {
				t.Errorf("got %+v, want %v to %v", got, c.signal, c.to)
			}
		})
	}
}

func near(a, b, part float64) bool { return a-b <= part*b && b-a <= part*b }

func TestDemandStepIsMetWithinAFewFastLooks(t *testing.T) {
	v := newVM(t, autoscale.Limits{autoscale.CPU: 0.5}, func(p *autoscale.Policy) { p.Rules[autoscale.CPU].Max = 8 })
	v.run(10*time.Second, time.Second, steady(0.25))
	looks := 0
	for at := time.Duration(0); v.limits[autoscale.CPU] < 2; at += v.Next() {
		dt := v.Next()
		if looks == 0 {
			dt = 100 * time.Millisecond // the end of the second in which it began
		}
		v.run(dt, dt, steady(2))
		if looks++; looks > 4 {
			t.Fatalf("limit is %v after %d looks", v.limits[autoscale.CPU], looks)
		}
	}
	if looks > 3 {
		t.Errorf("%d looks", looks)
	}
	if v.run(time.Second, 100*time.Millisecond, steady(2)); v.Next() != time.Second {
		t.Errorf("still looks every %v", v.Next())
	}
}

func TestBurstsShorterThanAPeriodAreThrottledNotUsage(t *testing.T) {
	v := cpuVM(t, 1)
	v.sample.At = v.sample.At.Add(time.Second)
	v.sample.CPUSeconds += 0.4
	v.sample.Periods += 10
	v.sample.ThrottledPeriods += 4
	v.sample.CPUStalledSeconds += 0.1
	got := v.observe()
	if len(got) != 1 || got[0].Signal != autoscale.ByThrottled || !near(got[0].To, 1+0.4-0.18, 0.001) {
		t.Errorf("got %+v", got)
	}
}

func TestWaitingForTheHostIsNoNeed(t *testing.T) {
	v := cpuVM(t, 1)
	for range 30 {
		v.sample.At = v.sample.At.Add(time.Second)
		v.sample.CPUSeconds += 0.5
		v.sample.Periods += 10
		v.sample.CPUWaitingSeconds += 0.9
		v.sample.CPUStalledSeconds += 0.5
		if got := v.observe(); len(got) > 0 {
			t.Fatalf("got %v", got)
		}
	}
}

func TestShrinksAfterTheCooldown(t *testing.T) {
	v := cpuVM(t, 4)
	v.limits[autoscale.CPU] = 4
	got := v.run(59*time.Second, time.Second, steady(0.2))
	if len(got) > 0 {
		t.Fatalf("before the cooldown: %v", got)
	}
	got = v.run(2*time.Second, time.Second, steady(0.2))
	if len(got) != 1 || got[0].Action != autoscale.Shrink || got[0].Signal != autoscale.ByIdle || !near(got[0].To, 3.2, 0.001) {
		t.Fatalf("after the cooldown: %+v", got)
	}
	v.run(58*time.Second, time.Second, steady(0.2))
	if n := len(v.all); n != 1 {
		t.Errorf("%d changes within the next cooldown", n)
	}
	v.run(20*time.Minute, time.Second, steady(0.2))
	if got := v.limits[autoscale.CPU]; got != 1 { // a quarter of the spec
		t.Errorf("limit = %v, want the lower bound 1", got)
	}
}

func TestShrinksToThePeakOfAWindowAndStays(t *testing.T) {
	v := cpuVM(t, 4)
	v.run(20*time.Minute, time.Second, steady(2))
	if got := v.limits[autoscale.CPU]; !near(got, 2*1.15, 0.02) {
		t.Errorf("limit = %v, want 2.3", got)
	}
	if n := len(v.all); n != 1 {
		t.Errorf("%d changes: %v", n, v.all)
	}
}

func TestNothingFlapsOnSteadyNoise(t *testing.T) {
	for name, c := range map[string]struct {
		deviation float64
		most      int // reversals in two hours
	}{"5 %": {0.05, 1}, "10 %": {0.1, 2}, "20 %": {0.2, 4}, "40 %": {0.4, 12}} {
		for seed := range uint64(8) {
			rng := rand.New(rand.NewPCG(seed, 1))
			v := cpuVM(t, 2)
			const hours = 2
			v.run(hours*time.Hour, time.Second, func(int) float64 { return max(1+c.deviation*rng.NormFloat64(), 0) })
			turns := 0
			for i := 1; i < len(v.all); i++ {
				if v.all[i].Up() != v.all[i-1].Up() && v.all[i].At.Sub(v.all[i-1].At) <= 10*time.Minute {
					turns++
				}
			}
			if turns > c.most {
				t.Errorf("noise of %s, seed %d: %d reversals in %d hours", name, seed, turns, hours)
			}
		}
	}
}

func TestALittleMoreHasToLast(t *testing.T) {
	for name, c := range map[string]struct {
		cores  float64
		dt     time.Duration
		within time.Duration // of which it grows, 0 is never
	}{
		"a second of nine tenths":         {2.1, time.Second, 0},
		"a second just below the limit":   {2.29, 2 * time.Second, 3 * time.Second},
		"a little more than the limit":    {2.4, 100 * time.Millisecond, 1200 * time.Millisecond},
		"much more, at once":              {3, 100 * time.Millisecond, 100 * time.Millisecond},
		"much more, after a usual second": {3, time.Second, time.Second},
	} {
		v := cpuVM(t, 4)
		v.run(20*time.Minute, time.Second, steady(2)) // the limit is 2.3
		v.all = nil
		began := v.sample.At
		for len(v.all) == 0 && v.sample.At.Sub(began) < time.Minute {
			v.look(c.dt, c.cores)
		}
		switch took := v.sample.At.Sub(began); {
		case c.within == 0 && len(v.all) > 0:
			t.Errorf("%s: %+v after %v", name, v.all, took)
		case c.within > 0 && (len(v.all) == 0 || took > c.within):
			t.Errorf("%s: grew after %v, want %v", name, took, c.within)
		}
	}

	v := cpuVM(t, 4)
	v.run(20*time.Minute, time.Second, steady(2))
	v.all = nil
	v.run(5*time.Minute, 200*time.Millisecond, func(i int) float64 { // a blip every ten seconds
		if i%50 < 3 {
			return 2.4
		}
		return 1.9
	})
	if len(v.all) > 0 {
		t.Errorf("blips: %+v", v.all)
	}
}

func TestAShrinkThatHurtIsTakenBackAndRemembered(t *testing.T) {
	v := cpuVM(t, 4)
	spike := func(i int) float64 { // 20 s of 3 cores, every 8 minutes
		if i%480 < 20 {
			return 3
		}
		return 0.5
	}
	v.run(4*time.Hour, time.Second, spike)
	late := slices.DeleteFunc(v.all, func(d autoscale.Decision) bool { return d.At.Before(time.Unix(1e9, 0).Add(time.Hour)) })
	if len(late) > 6 {
		t.Errorf("%d changes in the last three hours: spikes every 8 minutes should be held on to", len(late))
	}
	_, learned := v.Held(autoscale.CPU)
	if learned < 8*time.Minute {
		t.Errorf("learned to hold for %v", learned)
	}

	v = cpuVM(t, 4)
	v.run(62*time.Second, time.Second, steady(0.3))
	shrunk := v.limits[autoscale.CPU]
	if shrunk >= 4 {
		t.Fatal("did not shrink")
	}
	got := v.run(time.Second, time.Second, steady(3.9))
	if len(got) != 1 || got[0].Action != autoscale.Rollback || got[0].To < 4 {
		t.Errorf("got %+v, want a rollback to 4 or more", got)
	}
}

func TestWithoutPressureGrowthIsGuessed(t *testing.T) {
	v := cpuVM(t, 1)
	v.sample.NoPressure = true
	v.run(20*time.Second, time.Second, steady(3.5))
	if v.limits[autoscale.CPU] < 3.5 {
		t.Errorf("limit = %v", v.limits[autoscale.CPU])
	}
}

func TestDriftIsSeenAndForgets(t *testing.T) {
	v := cpuVM(t, 4)
	v.run(61*time.Second, time.Second, steady(0.2))
	v.limits[autoscale.CPU] = 2
	got := v.run(time.Second, time.Second, steady(0.2))
	if len(got) != 1 || got[0].Action != autoscale.Drift || got[0].To != 2 || !strings.Contains(got[0].Reason(), "2.00 cores where 3.20 cores") {
		t.Fatalf("got %+v", got)
	}
	if got = v.run(50*time.Second, time.Second, steady(0.2)); len(got) > 0 {
		t.Errorf("within a cooldown of it: %v", got)
	}
	v.limits[autoscale.CPU] = 100
	got = v.run(time.Second, time.Second, steady(0.2))
	if len(got) != 2 || got[1].Signal != autoscale.ByBounds || got[1].To != 16 {
		t.Errorf("outside of the bounds: %+v", got)
	}
}

func TestClocksAndGaps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"set back an hour": -time.Hour, "no time": 0, "asleep for a day": 24 * time.Hour, "a minute late": time.Minute} {
		t.Run(name, func(t *testing.T) {
			v := cpuVM(t, 4)
			v.run(50*time.Second, time.Second, steady(0.2))
			v.sample.At = v.sample.At.Add(jump)
			v.sample.CPUSeconds += 1000 // whatever was counted meanwhile
			if got := v.observe(); len(got) > 0 {
				t.Fatalf("got %v", got)
			}
			if got := v.run(55*time.Second, time.Second, steady(0.2)); len(got) > 0 {
				t.Errorf("evidence of before the jump was used: %v", got)
			}
			if got := v.run(10*time.Second, time.Second, steady(0.2)); len(got) != 1 {
				t.Errorf("no shrink a minute after: %v", got)
			}
		})
	}
}

func TestNothingIsDoneOnWhatIsNotKnown(t *testing.T) {
	v := cpuVM(t, 4)
	v.run(55*time.Second, time.Second, steady(0.2))
	v.sample.NoCPU = true
	v.run(time.Hour, time.Second, steady(3.9))
	v.sample.NoCPU = false
	if got := v.run(55*time.Second, time.Second, steady(0.2)); len(got)+len(v.all) > 0 {
		t.Errorf("got %v", v.all)
	}
}

func TestTheBudgetStopsShrinkingFirst(t *testing.T) {
	v := newVM(t, autoscale.Limits{autoscale.CPU: 1}, func(p *autoscale.Policy) {
		p.PerMinute, p.PerHour = 4, 12
		p.Rules[autoscale.CPU].Cooldown, p.Rules[autoscale.CPU].Window = time.Second, time.Second
		p.Rules[autoscale.CPU].Min, p.Rules[autoscale.CPU].Max = 0.1, 32
	})
	rng := rand.New(rand.NewPCG(1, 1))
	v.run(6*time.Hour, time.Second, func(int) float64 { return 20 * rng.Float64() * rng.Float64() * rng.Float64() })
	for i, d := range v.all {
		hour, last := 0, autoscale.Decision{}
		for _, before := range v.all[:i] {
			if before.Status != autoscale.Proposed {
				continue
			}
			burst := before.Up() && last.Up() && before.At.Sub(last.At) <= 5*time.Second
			if last = before; !burst && d.At.Sub(before.At) < time.Hour {
				hour++
			}
		}
		if d.Up() && last.Up() && d.At.Sub(last.At) <= 5*time.Second {
			continue // one more step of a change that was counted
		}
		if d.Status == autoscale.Proposed && (hour >= 12 || (!d.Up() && hour >= 6)) {
			t.Fatalf("change %d is number %d of its hour: %v", i, hour+1, d.String())
		}
	}
}

func TestRecommendModeChangesNothingAndSaysItOnce(t *testing.T) {
	v := newVM(t, autoscale.Limits{autoscale.CPU: 1}, func(p *autoscale.Policy) { p.Rules[autoscale.CPU].Mode = autoscale.Recommend })
	v.run(10*time.Minute, time.Second, steady(2))
	if len(v.all) == 0 || len(v.all) > 10 {
		t.Errorf("%d proposals in ten minutes", len(v.all))
	}
	for _, d := range v.all {
		if !d.DryRun {
			t.Errorf("%v is none of a dry run", d)
		}
	}
}

func TestFlows(t *testing.T) {
	v := newVM(t, autoscale.Limits{autoscale.Bandwidth: 100e6, autoscale.WriteBPS: 10 * mib, autoscale.Storage: 1 << 30}, nil)
	step := func(bits, written float64, waiting float64, stored int64) []autoscale.Decision {
		v.sample.At = v.sample.At.Add(time.Second)
		v.sample.SentBytes += int64(bits / 8)
		v.sample.WrittenBytes += int64(written)
		v.sample.IOWaitingSeconds += waiting
		v.sample.StorageBytes = stored
		return v.observe()
	}
	if got := step(50e6, 5*mib, 0.9, 1<<29); len(got) > 0 {
		t.Errorf("half of all limits: %v", got)
	}
	if got := step(50e6, 9.9*mib, 0, 1<<29); len(got) > 0 {
		t.Errorf("near the cap and nothing waits: %v", got)
	}
	got := step(95e6, 9.9*mib, 0.5, 1<<29+1<<28+1<<27)
	var kinds []string
	for _, d := range got {
		kinds = append(kinds, d.Resource.String())
	}
	if want := "storage_bytes bandwidth_bps wbps"; strings.Join(kinds, " ") != want {
		t.Errorf("grew %v, want %s", kinds, want)
	}
}

func TestWhatWasOffIsNoEvidence(t *testing.T) {
	v := newVM(t, autoscale.Limits{autoscale.CPU: 4}, func(p *autoscale.Policy) { p.Rules[autoscale.CPU].Mode = autoscale.Off })
	v.run(time.Hour, time.Second, steady(2))
	if err := v.SetPolicy(policy(autoscale.Limits{autoscale.CPU: 4})); err != nil {
		t.Fatal(err)
	}
	if got := v.run(50*time.Second, time.Second, steady(0.1)); len(got) > 0 {
		t.Errorf("got %v", got)
	}
}

func TestAThousandSaturatedVMs(t *testing.T) {
	const n = 1000
	vms := make([]*vm, n)
	for i := range vms {
		vms[i] = newVM(t, autoscale.Limits{autoscale.CPU: 1}, func(p *autoscale.Policy) { p.SLA = 1 + i%3 })
		vms[i].keep = true
	}
	free := autoscale.Limits{autoscale.CPU: 100}
	sum := float64(n)
	for range 30 {
		var wishes []autoscale.Decision
		byID := map[string]*vm{}
		for i, v := range vms {
			for _, d := range v.look(time.Second, 3) {
				d.VM = strconv.Itoa(i)
				byID[d.VM] = v
				wishes = append(wishes, d)
			}
		}
		for _, d := range autoscale.Arrange(wishes, nil, autoscale.Room{All: autoscale.Limits{autoscale.CPU: 1100}, Free: free}) {
			if v := byID[d.VM]; d.Status == autoscale.Granted {
				sum += d.To - d.From
				free[autoscale.CPU] -= d.To - d.From
				v.limits[autoscale.CPU] = d.To
				v.Applied(d, v.sample.At, d.To)
			}
		}
	}
	if sum > 1100.001 {
		t.Errorf("%v cores promised of 1100", sum)
	}
	for i, v := range vms {
		if v.limits[autoscale.CPU] > 1 && 1+i%3 != 3 {
			t.Fatalf("class %d got more before class 3 had enough", 1+i%3)
		}
		if v.Next() != time.Second && v.limits[autoscale.CPU] == 1 {
			t.Fatalf("looks every %v at what the host has no room for", v.Next())
		}
	}
}

// Work that was withheld does not go away: it is wanted later, on top.
func TestABacklogIsWorkedOffWithoutOvershoot(t *testing.T) {
	v := newVM(t, autoscale.Limits{autoscale.CPU: 0.5}, func(p *autoscale.Policy) { p.Rules[autoscale.CPU].Max = 32 })
	const threads, arrives = 4, 1.0
	backlog, most, late := 30.0, 0.0, 0
	for i := range 3600 {
		want := min(threads, arrives+backlog)
		backlog = max(backlog+arrives-min(want, v.limits[autoscale.CPU]), 0)
		changes := v.look(time.Second, want)
		most = max(most, v.limits[autoscale.CPU])
		if i > 1800 {
			late += len(changes)
		}
	}
	if backlog > 1e-9 || most > threads/0.7*1.01 || late > 2 {
		t.Errorf("backlog of %v, at most %v cores, %d changes in the last half hour", backlog, most, late)
	}
	if got := v.limits[autoscale.CPU]; got > 1.5 {
		t.Errorf("limit = %v for a load of %v", got, arrives)
	}
}

// A dry run says what it would do once, though each look finds another number.
func TestDryRunDoesNotRepeatItself(t *testing.T) {
	v := newVM(t, autoscale.Limits{autoscale.CPU: 1}, func(p *autoscale.Policy) { p.Rules[autoscale.CPU].Mode = autoscale.Recommend })
	v.run(30*time.Second, 100*time.Millisecond, func(i int) float64 { return 1.2 + 0.15*float64(i*7%10) })
	if n := len(v.all); n == 0 || n > 4 {
		t.Errorf("%d decisions in 30 s of demand between 1.2 and 2.55 cores: %v", n, v.all)
	}
	told := len(v.all)
	v.run(3*time.Minute, time.Second, steady(0.05))
	if n := len(v.all) - told; n == 0 || n > 4 {
		t.Errorf("%d decisions in three minutes without load: %v", n, v.all[told:])
	}
}

// The kernel counts operations and bytes in ones, and io.max refuses 1: a limit of a fraction
// would be read back as another.
func TestLimitsAreWholeNumbers(t *testing.T) {
	for _, spec := range []float64{2, 3, 7, 10, 1000} {
		v := newVM(t, autoscale.Limits{autoscale.ReadIOPS: spec}, func(p *autoscale.Policy) { p.PerMinute, p.PerHour = 600, 3600 })
		ops := func(n float64) {
			v.sample.At = v.sample.At.Add(time.Second)
			v.sample.ReadOps += int64(n)
			v.sample.IOWaitingSeconds += 0.5
			for _, d := range v.observe() {
				if d.Action == autoscale.Drift {
					t.Errorf("spec %v: %v", spec, d.String())
				}
			}
			if n := v.limits[autoscale.ReadIOPS]; n < 2 || n != math.Trunc(n) {
				t.Fatalf("spec %v: limit %v", spec, n)
			}
		}
		for range 1200 {
			ops(0)
		}
		if v.limits[autoscale.ReadIOPS] > max(spec/4+1, 2) {
			t.Errorf("spec %v: limit %v after 20 idle minutes", spec, v.limits[autoscale.ReadIOPS])
		}
		for range 60 {
			ops(v.limits[autoscale.ReadIOPS])
		}
		if v.limits[autoscale.ReadIOPS] < 3.9*spec {
			t.Errorf("spec %v: limit %v after a busy minute", spec, v.limits[autoscale.ReadIOPS])
		}
	}
}

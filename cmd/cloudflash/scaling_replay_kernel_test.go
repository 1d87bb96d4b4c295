package main

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/autoscale/replay"
	"cloudflash/cmd/cloudflash/systemtest"
)

// replays are demands of one VM, a value for each second, of at most peak cores.
func replays(t *testing.T, length int, peak float64) []replay.Trace {
	t.Helper()
	n := seed(t)
	all := replay.Synthetic(n)
	made := all[slices.IndexFunc(all, func(x replay.Trace) bool { return x.Name == "bursts of seconds, 1 s" })]
	out := []replay.Trace{made}
	dir := os.Getenv("CLOUDFLASH_TRACES")
	if dir != "" {
		rec, err := replay.Load(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			t.Logf("no recorded traces, only a made-up one is replayed: %v", err)
		case err != nil:
			t.Fatal(err)
		default:
			from := int(n % 5000) // of 11,508 minutes, any
			rec.Alibaba.Demand = rec.Alibaba.Demand[from:]
			out = append(out, rec.Alibaba, rec.PlanetLab[int(n)%len(rec.PlanetLab)])
		}
	}
	for i := range out {
		out[i].Demand = fitted(out[i].Demand, length, peak)
	}
	return out
}

// fitted makes a demand as long and as high as it is to be. One that is too short is
// begun again.
func fitted(demand []float64, length int, peak float64) []float64 {
	for len(demand) < length {
		demand = append(demand, demand...)
	}
	demand = slices.Clone(demand[:length])
	most := slices.Max(demand)
	for i := range demand {
		demand[i] *= peak / most
	}
	return demand
}

// subject is a VM that a trace is replayed in.
type subject struct {
	s      *systemtest.Agent
	name   string
	v      agent.VM
	quota  *systemtest.Trail
	before sight
	began  time.Time
}

// sight is what the kernel counts.
type sight struct {
	cpu, events                       map[string]float64
	waiting, stalled, memory, memFull float64
}

func (x *subject) look() sight {
	s := x.s
	return sight{
		cpu:     s.Counters(x.v, "cpu.stat"),
		events:  s.Counters(x.v, "memory.events"),
		waiting: s.Stalled(x.v, "cpu.pressure", "some"),
		stalled: s.Stalled(x.v, "cpu.pressure", "full"),
		memory:  s.Stalled(x.v, "memory.pressure", "some"),
		memFull: s.Stalled(x.v, "memory.pressure", "full"),
	}
}

func newSubject(s *systemtest.Agent, name string, cpus float64, policy agent.PolicyLayer, demand []float64) *subject {
	s.T.Helper()
	x := &subject{s: s, name: name, v: s.Create(name, cpus, 64, policy)}
	path := trace(s, x.v, demand)
	x.quota = s.Follow(x.v, "cpu.max")
	time.Sleep(2 * time.Second)
	x.began, x.before = time.Now(), x.look()
	s.Submit(name, "burn-"+name, "burn", "--trace", path)
	return x
}

// tell prints what has happened to the VM, by the kernel's counters.
func (x *subject) tell() (throttled float64, b burnt) {
	s := x.s
	now, wall := x.look(), time.Since(x.began).Seconds()
	s.Cancel("burn-" + x.name)
	b = burntBy(s, "burn-"+x.name)
	grown := func(after, before map[string]float64, key string) float64 { return after[key] - before[key] }
	used := grown(now.cpu, x.before.cpu, "usage_usec") / 1e6
	throttled = grown(now.cpu, x.before.cpu, "throttled_usec") / 1e6 / wall
	var kernel []time.Duration
	resizes := 0
	for _, d := range s.Decisions(x.v.ID) {
		if d.Resource == "cpus" && d.Result == agent.DecisionApplied {
			resizes++
			kernel = append(kernel, time.Duration(d.KernelSeconds*float64(time.Second)))
		}
	}
	share := func(a, b float64) float64 { return 100 * (a - b) / wall }
	s.T.Logf("%-22s slack %5.1f %%, throttled %5.2f %% of the time, %5.2f %% of periods, backlog at most %6.2f CPU s of %.1f, PSI cpu some %5.2f full %5.2f, memory some %.2f full %.2f %%, OOM kills %.0f, %d resizes, %d reversals, look to kernel %s",
		x.name, 100*(1-used/held(x.quota, x.began)), 100*throttled, 100*grown(now.cpu, x.before.cpu,
			"nr_throttled")/max(grown(now.cpu, x.before.cpu, "nr_periods"), 1), b.BacklogPeak, b.Wanted,
		share(now.waiting, x.before.waiting), share(now.stalled, x.before.stalled), share(now.memory, x.before.memory), share(now.memFull, x.before.memFull),
		grown(now.events, x.before.events, "oom_kill"), resizes, x.quota.Reversals(time.Time{}), spread(kernel))
	s.T.Logf("%-22s cpu.max %v", "", x.quota)
	return throttled, b
}

// held is a limit over time, summed up to now.
func held(tr *systemtest.Trail, from time.Time) (sum float64) {
	all := append(tr.All(), systemtest.Reading{At: time.Now()})
	for i := range len(all) - 1 {
		if d := all[i+1].At.Sub(later(all[i].At, from)); d > 0 {
			sum += all[i].Value * d.Seconds()
		}
	}
	return sum
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// The same demand in three VMs at once: one that has its peak all the time, one that
// has its mean, and one that begins there and is scaled. CLOUDFLASH_REPLAY_SECONDS is
// how long, CLOUDFLASH_TRACES a folder of recorded traces.
func TestLongScalingReplay(t *testing.T) {
	length := 60
	if n, err := strconv.Atoi(os.Getenv("CLOUDFLASH_REPLAY_SECONDS")); err == nil {
		length = n
	}
	const peak = 0.5
	for _, tr := range replays(t, length, peak) {
		t.Run(tr.Name, func(t *testing.T) {
			sum := 0.0
			for _, v := range tr.Demand {
				sum += v
			}
			mean := max(sum/float64(length), 0.1)
			t.Logf("%s, %d s, a value each second, mean %.3f and peak %.2f cores, load %s", tr.Name, length, mean, peak, load1())
			s := newScaled(t)
			fixed := rules(agent.RuleChange{Mode: new("off")})
			all := []*subject{newSubject(s, "static-peak", peak, fixed, tr.Demand), newSubject(s, "static-mean", mean, fixed, tr.Demand),
				newSubject(s, "ours", mean, agent.PolicyLayer{}, tr.Demand)}
			time.Sleep(time.Duration(length)*time.Second + 500*time.Millisecond)
			atMean, _ := all[1].tell()
			atPeak, _ := all[0].tell()
			ours, _ := all[2].tell()
			if ours > max(atMean, 0.05) {
				t.Errorf("throttled %.1f %% of the time, %.1f %% at the mean, %.1f %% at the peak%s", 100*ours, 100*atMean,
					100*atPeak, told(s.Events(all[2].v.ID, "")))
			}
		})
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/policy"
	"cloudflash/cmd/cloudflash/systemtest"

	"golang.org/x/sys/unix"
)

// Autoscaling as the kernel has it: an agent that scales, demand that burn makes,
// and the control files, which are read from the outside.

// newScaled is an agent that scales.
func newScaled(t *testing.T, flags ...string) *systemtest.Agent {
	t.Helper()
	return systemtest.Start(t, append([]string{"--autoscale", "auto", "--upkeep-every", "500ms"}, flags...)...)
}

// soak is whether the long form of a test is asked for.
func soak() bool { return os.Getenv("CLOUDFLASH_SOAK") != "" }

// seed of what is drawn: CLOUDFLASH_SEED, or another one every time. It is printed.
func seed(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("CLOUDFLASH_SEED"), 10, 64)
	if err != nil {
		n = rand.Uint64N(1e6)
	}
	t.Logf("CLOUDFLASH_SEED=%d", n)
	return n
}

// load1 tells figures of a quiet machine from others.
func load1() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Fields(string(b))[0]
}

// rules is a policy that has the same rule for everything.
func rules(rule agent.RuleChange) agent.PolicyLayer {
	return agent.PolicyLayer{Rules: map[string]agent.RuleChange{policy.RuleAll: rule}}
}

// brisk shrinks after seconds.
func brisk(cooldown, window float64) agent.PolicyLayer {
	return rules(agent.RuleChange{CooldownSeconds: &cooldown, WindowSeconds: &window})
}

// saturate wants more of a VM's CPU than there is.
func saturate(s *systemtest.Agent, vm, name string) {
	s.T.Helper()
	s.Submit(vm, name, "burn", "--cpus", "2", "--seconds", "3600")
}

// burnt is what burn says at its end.
type burnt struct {
	Began       time.Time
	Seconds     float64
	CPUSeconds  float64 `json:"cpu_seconds"`
	Wanted      float64 `json:"wanted_cpu_seconds"`
	Backlog     float64 `json:"backlog_cpu_seconds"`
	BacklogPeak float64 `json:"backlog_peak_cpu_seconds"`
	MemoryBytes int64   `json:"memory_bytes"`
}

func burntBy(s *systemtest.Agent, name string) burnt {
	s.T.Helper()
	var b burnt
	out := s.Out("cloudlet", "logs", name)
	if err := json.Unmarshal([]byte(out), &b); err != nil {
		s.T.Fatalf("burn says %q: %v", out, err)
	}
	return b
}

// trace puts a demand into a VM, and returns where burn finds it there.
func trace(s *systemtest.Agent, v agent.VM, cores []float64) string {
	s.T.Helper()
	var b bytes.Buffer
	for _, c := range cores {
		fmt.Fprintf(&b, "%.4f\n", c)
	}
	if err := os.WriteFile(filepath.Join(s.StateDir, "vms", v.ID, "data", "trace"), b.Bytes(), 0o644); err != nil {
		s.T.Fatal(err)
	}
	return "/data/trace"
}

// awaitedTrace is a trace that burn reads from a pipe: taken is closed once it has, and so has begun.
func awaitedTrace(s *systemtest.Agent, v agent.VM, cores []float64) (path string, taken <-chan struct{}) {
	s.T.Helper()
	inVM := trace(s, v, cores)
	file := filepath.Join(s.StateDir, "vms", v.ID, inVM)
	lines, err := os.ReadFile(file)
	if err != nil {
		s.T.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		s.T.Fatal(err)
	}
	if err := unix.Mkfifo(file, 0o644); err != nil {
		s.T.Fatal(err)
	}

	read := make(chan struct{})
	go func() {
		defer close(read)
		if err := os.WriteFile(file, lines, 0o644); err != nil { // waits for a reader
			s.T.Error(err)
		}
	}()
	return inVM, read
}

// reaches waits until a limit is so much or more, as near as the agent takes it: for the last half percent it changes
// nothing.
func reaches(t *testing.T, limit *systemtest.Trail, least float64) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("it was %v", limit)
		}
	}()
	systemtest.Until(t, fmt.Sprintf("the limit is %v", least), func() bool { return limit.Now() >= nearly*least })
}

const nearly = 0.99

// A VM that is to be saturated has so many cores, and grows to so many: four times its size is what the default allows,
// and little enough that a processor which is emulated, and shared with other VMs, can give it.
const (
	modest = 0.1
	grown  = 4 * modest
)

// followMemory follows both limits of a VM's memory.
func followMemory(s *systemtest.Agent, v agent.VM) (high, most *systemtest.Trail) {
	s.T.Helper()
	return s.Follow(v, "memory.high"), s.Follow(v, "memory.max")
}

// told writes events for a log.
func told(events []agent.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\n  %s %s %s", e.At.Format("05.000"), e.Kind, e.Message)
	}
	return b.String()
}

// spread writes the middle and the end of times.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	all = slices.Sorted(slices.Values(all))
	at := func(p float64) time.Duration {
		return all[int(math.Ceil(p*float64(len(all))))-1].Round(time.Millisecond)
	}
	return fmt.Sprintf("p50 %v, p95 %v, max %v (%d)", at(0.5), at(0.95), at(1), len(all))
}

// Demand steps to 2 cores in a VM that is limited. How long does it take until the kernel has a larger quota, and until
// it has all that is wanted or allowed?
func TestSystemScalingStep(t *testing.T) {
	step(t, demandStep{steps: 2, tries: 2, size: modest, base: 0.2 * modest, calm: 35})
}

// CLOUDFLASH_STEP_FROM is where the demand begins: an emulator beside other work is seldom at rest with more.
func TestLongScalingStep(t *testing.T) {
	d := demandStep{steps: 20, tries: 30, size: 0.5, base: 0.1, calm: 60}
	if f, err := strconv.ParseFloat(os.Getenv("CLOUDFLASH_STEP_FROM"), 64); err == nil {
		d.base = f
	}
	step(t, d)
}

type demandStep struct {
	steps int // that count
	tries int
	size  float64 // cores, of the VM
	base  float64 // cores, before the step
	calm  int     // tenths of a second before it
}

func step(t *testing.T, d demandStep) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 1))
	size, base := d.size, d.base
	var larger, enough, inAgent []time.Duration
	signals, restless, starved := map[string]int{}, 0, 0
	for i := 0; len(larger) < d.steps && i < d.tries; i++ {
		name := fmt.Sprintf("step%d", i)
		v := s.Create(name, size, 64, rules(agent.RuleChange{Mode: new("off")})) // until burn has started, which takes more
		quota := s.Follow(v, "cpu.max")
		before := d.calm + rng.IntN(10) // at any time between two looks
		cores := append(slices.Repeat([]float64{base}, before), slices.Repeat([]float64{2}, 600)...)
		demand, begun := awaitedTrace(s, v, cores)
		s.Submit(name, "c"+name, "burn", "--trace", demand, "--step", "100ms", "--drop")
		<-begun
		setPolicy(s, name, agent.PolicyLayer{})
		// All it may have is four times its size, or the host. What an emulator that is busy does not let
		// it use, it does not get: a tenth is the dead band.
		most := 0.9 * min(4*size, float64(hostCPUs(t)))
		limit, since := 0.0, time.Now()
		systemtest.Until(t, "the VM has all it may, or all that it is given", func() bool {
			if now := quota.Now(); now != limit {
				limit, since = now, time.Now()
			}
			return limit >= most || limit > size && time.Since(since) > 15*time.Second
		})
		s.Cancel("c" + name)
		stepped := burntBy(s, "c"+name).Began.Add(time.Duration(before) * 100 * time.Millisecond)
		first, ok := quota.When(time.Time{}, func(q float64) bool { return q > size })
		full, all := quota.When(stepped, func(q float64) bool { return q >= most })
		switch {
		case !ok:
			t.Errorf("step %d was not answered: cpu.max %v%s", i, quota, told(s.Events(v.ID, "")))
		case limit < most:
			starved++ // on a busy machine the VM gets less than its limit, which needs no more then
			t.Logf("step %d: its limit stays at %.2f", i, limit)
		case first.Before(stepped) || !all:
			restless++ // on a busy machine a quarter of a core does not get by with half of one
			t.Logf("step %d: had grown %.1f s before", i, stepped.Sub(first).Seconds())
		default:
			larger, enough = append(larger, first.Sub(stepped)), append(enough, full.Sub(stepped))
			t.Logf("step %d: %v, %v", i, first.Sub(stepped).Round(time.Millisecond), full.Sub(stepped).Round(time.Millisecond))
		}
		grew := slices.DeleteFunc(s.Decisions(v.ID),
			func(d agent.Decision) bool { return d.Resource != "cpus" || d.Result != agent.DecisionApplied })
		for _, d := range grew {
			inAgent = append(inAgent, time.Duration(d.KernelSeconds*float64(time.Second)))
		}
		if len(grew) > 0 {
			signals[grew[0].Signal]++
		}
		s.MustRemove(name)
	}
	t.Logf("%d steps of demand from %.2f to 2 cores at a limit of %.1f, load %s; %d more VMs had grown before, %d did not get 2 cores",
		len(larger), base, size, load1(), restless, starved)
	t.Logf("from the step to a larger cpu.max: %s", spread(larger))
	t.Logf("to what is wanted or allowed:      %s", spread(enough))
	t.Logf("from the agent's look to the kernel: %s; first signal %v", spread(inAgent), signals)
}

// setPolicy sets that of a VM.
func setPolicy(s *systemtest.Agent, vm string, own agent.PolicyLayer) {
	s.T.Helper()
	systemtest.Must[policy.Policy](s, "PUT", "/api/v1/autoscale/policy?vm="+vm, own)
}

func hostCPUs(t *testing.T) int {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	return set.Count()
}

// steady draws a demand around a mean, a value for each second.
func steady(rng *rand.Rand, n int, mean, deviation float64) []float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = max(mean+deviation*rng.NormFloat64(), 0.02)
	}
	return all
}

// Load that is noisy and goes nowhere does not make the limit swing.
func TestLongScalingSteady(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 2))
	const length = 330 // seconds
	v := s.Create("steady", 0.5, 64, agent.PolicyLayer{})
	quota := s.Follow(v, "cpu.max")
	before := s.Counters(v, "cpu.stat")
	s.Submit("steady", "noise", "burn", "--trace", trace(s, v, steady(rng, length, 0.5, 0.15)))
	time.Sleep(time.Duration(length)*time.Second + time.Second)
	after := s.Counters(v, "cpu.stat")
	s.Cancel("noise")
	b := burntBy(s, "noise")
	t.Logf("demand of 0.5 ± 0.15 cores for %.0f s, load %s: cpu.max %v", b.Seconds, load1(), quota)
	t.Logf("%d reversals, throttled in %.1f %% of the periods, %.2f of %.2f CPU seconds done, backlog at most %.2f s",
		quota.Reversals(time.Time{}),
		100*(after["nr_throttled"]-before["nr_throttled"])/(after["nr_periods"]-before["nr_periods"]), b.CPUSeconds, b.Wanted, b.BacklogPeak)
	if quota.Reversals(time.Time{}) > 1 {
		t.Errorf("more than one%s", told(s.Events(v.ID, "")))
	}
}

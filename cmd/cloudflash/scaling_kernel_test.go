package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent"
	"golang.org/x/sys/unix"
)

// Autoscaling as the kernel has it: an agent that scales, demand that burn makes,
// and the control files, which are read from the outside.

func newScaled(t *testing.T, flags ...string) *shell {
	t.Helper()
	return newShell(t, append([]string{"--autoscale", "auto"}, flags...)...)
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
	return agent.PolicyLayer{Rules: map[string]agent.RuleChange{agent.RuleAll: rule}}
}

// brisk shrinks after seconds.
func brisk(cooldown, window float64) agent.PolicyLayer {
	return rules(agent.RuleChange{CooldownSeconds: &cooldown, WindowSeconds: &window})
}

// vm makes a VM.
func (s *shell) vm(name string, cpus float64, memoryMiB int64, policy agent.PolicyLayer) agent.VM {
	s.t.Helper()
	v, err := call[agent.VM](s.daemon, "POST", "/api/v1/vms", map[string]any{"name": name, "cpus": cpus, "memory_bytes": memoryMiB << 20,
		"storage_bytes": 64 << 20, "autoscale": policy})
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// remove deletes a VM and waits until it is gone.
func (s *shell) remove(name string) {
	s.t.Helper()
	op, err := call[agent.Operation](s.daemon, "DELETE", "/api/v1/vms/"+name+"?grace=0s", nil)
	for err == nil && op.State == agent.OperationRunning {
		op, err = call[agent.Operation](s.daemon, "GET", "/api/v1/operations/"+op.ID+"?wait=30s", nil)
	}
	if err != nil || op.State != agent.OperationSucceeded {
		s.t.Fatalf("delete %s: %v %s %s", name, err, op.State, op.Error)
	}
}

// submit starts a cloudlet and waits until it runs.
func (s *shell) submit(vm, name string, argv ...string) {
	s.t.Helper()
	c, err := call[agent.Cloudlet](s.daemon, "POST", "/api/v1/cloudlets", map[string]any{"vm": vm, "name": name, "argv": argv})
	for end := time.Now().Add(time.Minute); err == nil && (c.State == agent.CloudletQueued || c.State == agent.CloudletStarting); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("cloudlet %s is %s %s", name, c.State, c.Reason)
		}
		c, err = call[agent.Cloudlet](s.daemon, "GET", "/api/v1/cloudlets/"+c.ID, nil)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// saturate wants more of a VM's CPU than there is.
func (s *shell) saturate(vm, name string) {
	s.t.Helper()
	s.submit(vm, name, "burn", "--cpus", "2", "--seconds", "3600")
}

// cancel ends a cloudlet and returns when it has ended.
func (s *shell) cancel(name string) time.Time {
	s.t.Helper()
	_, _, _ = s.run("cloudlet", "cancel", name)
	_, _, _ = s.run("cloudlet", "wait", name)
	c := show[agent.Cloudlet](s, "cloudlet", name)
	if c.FinishedAt == nil {
		s.t.Fatalf("cloudlet %s is %s", name, c.State)
	}
	return *c.FinishedAt
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

func (s *shell) burnt(name string) burnt {
	s.t.Helper()
	var b burnt
	out := s.out("cloudlet", "logs", name)
	if err := json.Unmarshal([]byte(out), &b); err != nil {
		s.t.Fatalf("burn says %q: %v", out, err)
	}
	return b
}

// trace puts a demand into a VM, and returns where burn finds it there.
func (s *shell) trace(v agent.VM, cores []float64) string {
	s.t.Helper()
	var b bytes.Buffer
	for _, c := range cores {
		fmt.Fprintf(&b, "%.4f\n", c)
	}
	if err := os.WriteFile(filepath.Join(s.state, "vms", v.ID, "data", "trace"), b.Bytes(), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return "/data/trace"
}

func (s *shell) slice(v agent.VM, file string) string {
	return filepath.Join(s.parent, "vms", v.ID, file)
}

// decisions about a VM, oldest first.
func (s *shell) decisions(vm string) []agent.Decision {
	s.t.Helper()
	all, err := call[list[agent.Decision]](s.daemon, "GET", "/api/v1/autoscale/events?limit=1000&vm="+vm, nil)
	if r := (refused{}); errors.As(err, &r) && r.status == http.StatusNotFound {
		return nil // of a VM that is gone and that nothing was decided about
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return all.Items
}

// events of a kind about a VM; an empty one is all.
func (s *shell) events(v agent.VM, kind string) []agent.Event {
	s.t.Helper()
	all, err := call[list[agent.Event]](s.daemon, "GET", "/api/v1/events?limit=1000", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return slices.DeleteFunc(all.Items, func(e agent.Event) bool {
		return e.VM != v.ID || !strings.HasPrefix(e.Kind, kind)
	})
}

func told(events []agent.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\n  %s %s %s", e.At.Format("05.000"), e.Kind, e.Message)
	}
	return b.String()
}

// trail is what a control file has held, each value with when it was seen first.
type trail struct {
	mu   sync.Mutex
	seen []reading
	stop chan struct{}
	done chan struct{}
}

type reading struct {
	at    time.Time
	value float64
}

// follow reads a control file every two milliseconds, until the test ends.
func follow(t *testing.T, path string) *trail {
	t.Helper()
	return followEvery(t, path, 2*time.Millisecond)
}

func followEvery(t *testing.T, path string, pause time.Duration) *trail {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	tr := &trail{stop: make(chan struct{}), done: make(chan struct{})}
	first, err := readLimit(fd)
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	tr.seen = []reading{{time.Now(), first}}
	go func() {
		defer close(tr.done)
		defer unix.Close(fd)
		for {
			select {
			case <-tr.stop:
				return
			case <-time.After(pause):
			}
			v, err := readLimit(fd)
			if err != nil {
				return // the VM is gone
			}
			tr.note(v)
		}
	}()
	t.Cleanup(tr.end)
	return tr
}

func (tr *trail) end() {
	select {
	case <-tr.done:
	case tr.stop <- struct{}{}:
		<-tr.done
	}
}

func (tr *trail) note(v float64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if v != tr.seen[len(tr.seen)-1].value {
		tr.seen = append(tr.seen, reading{time.Now(), v})
	}
}

// readLimit reads a limit: a number, "max", or quota and period.
func readLimit(fd int) (float64, error) {
	var b [64]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return 0, err
	}
	first, second, two := strings.Cut(strings.TrimSpace(string(b[:n])), " ")
	if first == "max" {
		return math.Inf(1), nil
	}
	v, err := strconv.ParseFloat(first, 64)
	if err == nil && two {
		var period float64
		period, err = strconv.ParseFloat(second, 64)
		v /= period
	}
	return v, err
}

// all is what was seen up to now.
func (tr *trail) all() []reading {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.seen)
}

func (tr *trail) now() float64 { all := tr.all(); return all[len(all)-1].value }

// when is when a value was first there that is as wanted.
func (tr *trail) when(after time.Time, wanted func(float64) bool) (time.Time, bool) {
	for _, r := range tr.all() {
		if r.at.After(after) && wanted(r.value) {
			return r.at, true
		}
	}
	return time.Time{}, false
}

// reversals is how often growing and shrinking alternate from then on.
func (tr *trail) reversals(from time.Time) (n int) {
	all, last := tr.all(), 0.0
	for i := 1; i < len(all); i++ {
		if all[i].at.Before(from) {
			continue
		}
		d := all[i].value - all[i-1].value
		if d*last < 0 {
			n++
		}
		last = d
	}
	return n
}

func (tr *trail) String() string {
	var b strings.Builder
	all := tr.all()
	for _, r := range all {
		fmt.Fprintf(&b, " %.1fs:%.4g", r.at.Sub(all[0].at).Seconds(), r.value)
	}
	return strings.TrimSpace(b.String())
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

// controlFile reads all numbers of a flat-keyed control file, such as memory.stat.
func controlFile(t *testing.T, path string) map[string]float64 {
	t.Helper()
	return cpuStat(t, path)
}

// stalled reads the total of a kind of PSI, in seconds.
func stalled(t *testing.T, path, kind string) float64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == kind {
			us, err := strconv.ParseFloat(strings.TrimPrefix(f[4], "total="), 64)
			if err != nil {
				t.Fatal(err)
			}
			return us / 1e6
		}
	}
	t.Fatalf("no %q in %s: %s", kind, path, b)
	return 0
}

// Demand steps from 0.1 (CLOUDFLASH_SOAK: 0.25) to 2 cores in a VM that is limited to 0.5. How long does
// it take until the kernel has a larger quota, and until it has all that is wanted
// or allowed? CLOUDFLASH_SOAK takes 50 steps, CLOUDFLASH_STEP_FROM is where they begin.
func TestSystemScalingStep(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 1))
	steps, tries, base := 6, 6, 0.1
	if soak() {
		steps, tries, base = 50, 100, 0.25
	}
	if f, err := strconv.ParseFloat(os.Getenv("CLOUDFLASH_STEP_FROM"), 64); err == nil {
		base = f // an emulator beside other work is seldom at rest with more
	}
	var larger, enough, inAgent []time.Duration
	signals, restless := map[string]int{}, 0
	for i := 0; len(larger) < steps && i < tries; i++ {
		name := fmt.Sprintf("step%d", i)
		v := s.vm(name, 0.5, 64, rules(agent.RuleChange{Mode: new("off")})) // until burn has started, which takes more
		quota := follow(t, s.slice(v, "cpu.max"))
		before := 60 + rng.IntN(10) // tenths of a second: at any time between two looks
		cores := append(slices.Repeat([]float64{base}, before), slices.Repeat([]float64{2}, 600)...)
		s.submit(name, "c"+name, "burn", "--trace", s.trace(v, cores), "--step", "100ms", "--drop")
		time.Sleep(3 * time.Second)
		s.policy(name, agent.PolicyLayer{})
		// All it may have is four times its size, or the host. What an emulator that is busy does not let
		// it use, it does not get: a tenth is the dead band.
		most := 0.9 * min(4*0.5, float64(hostCPUs(t)))
		for end := time.Now().Add(time.Minute); quota.now() < most && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
		s.cancel("c" + name)
		stepped := s.burnt("c" + name).Began.Add(time.Duration(before) * 100 * time.Millisecond)
		first, ok := quota.when(time.Time{}, func(q float64) bool { return q > 0.5 })
		full, all := quota.when(stepped, func(q float64) bool { return q >= most })
		switch {
		case !ok || quota.now() < most:
			t.Errorf("step %d was not answered: cpu.max %v%s", i, quota, told(s.events(v, "")))
		case first.Before(stepped) || !all:
			restless++ // on a busy machine a quarter of a core does not get by with half of one
			t.Logf("step %d: had grown %.1f s before", i, stepped.Sub(first).Seconds())
		default:
			larger, enough = append(larger, first.Sub(stepped)), append(enough, full.Sub(stepped))
			t.Logf("step %d: %v, %v", i, first.Sub(stepped).Round(time.Millisecond), full.Sub(stepped).Round(time.Millisecond))
		}
		grew := slices.DeleteFunc(s.decisions(v.ID), func(d agent.Decision) bool { return d.Resource != "cpus" || d.Result != agent.DecisionApplied })
		for _, d := range grew {
			inAgent = append(inAgent, time.Duration(d.KernelSeconds*float64(time.Second)))
		}
		if len(grew) > 0 {
			signals[grew[0].Signal]++
		}
		s.remove(name)
	}
	t.Logf("%d steps of demand from %.2f to 2 cores at a limit of 0.5, load %s; %d more VMs had grown before", len(larger), base, load1(), restless)
	t.Logf("from the step to a larger cpu.max: %s", spread(larger))
	t.Logf("to what is wanted or allowed:      %s", spread(enough))
	t.Logf("from the agent's look to the kernel: %s; first signal %v", spread(inAgent), signals)
}

// policy sets that of a VM.
func (s *shell) policy(vm string, own agent.PolicyLayer) {
	s.t.Helper()
	if _, err := call[agent.Policy](s.daemon, "PUT", "/api/v1/autoscale/policy?vm="+vm, own); err != nil {
		s.t.Fatal(err)
	}
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

// Load that is noisy and goes nowhere does not make the limit swing. CLOUDFLASH_SOAK
// looks on for 11 minutes.
func TestLongScalingSteady(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 2))
	length := 90
	if soak() {
		length = 660
	}
	v := s.vm("steady", 0.5, 64, agent.PolicyLayer{})
	quota := follow(t, s.slice(v, "cpu.max"))
	before := controlFile(t, s.slice(v, "cpu.stat"))
	s.submit("steady", "noise", "burn", "--trace", s.trace(v, steady(rng, length, 0.5, 0.15)))
	time.Sleep(time.Duration(length)*time.Second + time.Second)
	after := controlFile(t, s.slice(v, "cpu.stat"))
	s.cancel("noise")
	b := s.burnt("noise")
	t.Logf("demand of 0.5 ± 0.15 cores for %.0f s, load %s: cpu.max %v", b.Seconds, load1(), quota)
	t.Logf("%d reversals, throttled in %.1f %% of the periods, %.2f of %.2f CPU seconds done, backlog at most %.2f s", quota.reversals(time.Time{}),
		100*(after["nr_throttled"]-before["nr_throttled"])/(after["nr_periods"]-before["nr_periods"]), b.CPUSeconds, b.Wanted, b.BacklogPeak)
	if most := 1 + length/600; quota.reversals(time.Time{}) > most {
		t.Errorf("more than %d%s", most, told(s.events(v, "")))
	}
}

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
)

// write changes a control file behind the agent's back.
func (s *shell) write(v agent.VM, file, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.slice(v, file), []byte(text), 0); err != nil {
		s.t.Fatal(err)
	}
}

// quiet fails when there are events of a kind.
func (s *shell) quiet(v agent.VM, kind string) {
	s.t.Helper()
	if got := s.events(v, kind); len(got) > 0 {
		s.t.Errorf("told of%s", told(got))
	}
}

// Somebody writes a limit by hand: that is told once, not fought, and autoscaling
// goes on from there.
func TestSystemScalingByHand(t *testing.T) {
	s := newScaled(t)
	idle, busy := s.vm("calm", 0.25, 64, agent.PolicyLayer{}), s.vm("busy", 0.25, 64, agent.PolicyLayer{})
	time.Sleep(7 * time.Second) // the limits have been read back
	s.write(idle, "cpu.max", "80000 100000")
	s.write(idle, "memory.max", strconv.Itoa(96<<20))
	untouched := follow(t, s.slice(idle, "cpu.max"))
	quota := follow(t, s.slice(busy, "cpu.max"))
	s.saturate("busy", "load")
	until(t, "the busy VM has all it may", func() bool { return quota.now() >= 1 })
	time.Sleep(7 * time.Second)
	s.write(busy, "cpu.max", "30000 100000")
	at := time.Now()
	until(t, "the busy VM grows again", func() bool { _, ok := quota.when(at, func(q float64) bool { return q > 0.3 }); return ok })
	until(t, "to all it may", func() bool { return quota.now() >= 1 })
	t.Logf("busy: %v; idle: %v", quota, untouched)
	drifts := s.events(idle, "autoscale.drift")
	t.Logf("idle:%s", told(drifts))
	if len(drifts) != 2 {
		t.Errorf("%d drifts of the idle VM%s", len(drifts), told(s.events(idle, "")))
	}
	if len(untouched.all()) > 1 {
		t.Errorf("the limit that was written by hand was changed: %v%s", untouched, told(s.events(idle, "")))
	}
	if n := len(s.events(busy, "autoscale.drift")); n != 1 {
		t.Errorf("%d drifts of the busy VM%s", n, told(s.events(busy, "")))
	}
}

// VMs are deleted while the loop decides about them.
func TestSystemScalingDeletedMeanwhile(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 3))
	cycle := func(i int) agent.VM {
		name := fmt.Sprintf("v%d", i)
		v := s.vm(name, 0.5, 64, agent.PolicyLayer{})
		s.saturate(name, "c"+name)
		time.Sleep(time.Duration(rng.IntN(800)) * time.Millisecond)
		s.remove(name)
		return v
	}
	cycle(0)
	time.Sleep(8 * time.Second)
	before := s.counts()
	var gone []agent.VM
	for i := range 12 {
		gone = append(gone, cycle(i+1))
	}
	time.Sleep(8 * time.Second)
	decided, failed := 0, 0
	for _, v := range gone {
		for _, d := range s.decisions(v.ID) {
			decided++
			if d.Result == agent.DecisionFailed {
				failed++
				if !strings.Contains(d.Why, "deleted meanwhile") {
					t.Errorf("%s: %s", v.Name, d.Why)
				}
			}
		}
		for _, e := range s.events(v, "") {
			if e.Level == agent.LevelError {
				t.Errorf("%s: %s %s", v.Name, e.Kind, e.Message)
			}
		}
		if _, err := os.Stat(s.slice(v, "cgroup.procs")); err == nil {
			t.Errorf("%s is there", v.Name)
		}
	}
	after := s.counts()
	t.Logf("%d decisions about %d VMs, %d failed because of the deletion; before %v, after %v", decided, len(gone), failed, before, after)
	for what, n := range after {
		if n > before[what]+slackOf(what) {
			t.Errorf("%d %s, there were %d", n, what, before[what])
		}
	}
}

// A frozen VM uses nothing, and loses nothing for it.
func TestSystemScalingFrozen(t *testing.T) {
	s := newScaled(t)
	v := s.vm("ice", 0.25, 64, brisk(2, 3))
	quota := follow(t, s.slice(v, "cpu.max"))
	s.saturate("ice", "load")
	until(t, "the VM has all it may", func() bool { return quota.now() >= 1 })
	s.out("vm", "freeze", "ice")
	working, most := follow(t, s.slice(v, "memory.high")), follow(t, s.slice(v, "memory.max"))
	time.Sleep(15 * time.Second)
	if quota.now() < 1 || len(working.all()) > 1 || len(most.all()) > 1 {
		t.Errorf("a frozen VM was resized: cpu.max %v, memory.high %v, memory.max %v%s", quota, working, most, told(s.events(v, "")))
	}
	s.out("vm", "thaw", "ice")
	time.Sleep(10 * time.Second)
	if quota.now() < 1 {
		t.Errorf("a busy VM that was frozen was shrunk: %v%s", quota, told(s.events(v, "")))
	}
	s.cancel("load")
	until(t, "the VM shrinks when it is idle", func() bool { return quota.now() < 1 })
	t.Logf("cpu.max %v", quota)
	s.quiet(v, "autoscale.")
}

// The agent is killed around its decisions. What was decided holds when it is back:
// nothing falls back to the spec.
func TestSystemScalingKilled(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 4))
	for i := range 6 {
		name := fmt.Sprintf("k%d", i)
		v := s.vm(name, 0.25, 64, agent.PolicyLayer{})
		quota := follow(t, s.slice(v, "cpu.max"))
		s.saturate(name, "c"+name)
		if i%2 == 0 { // right after a decision, or just anywhere
			for end := time.Now().Add(30 * time.Second); quota.now() == 0.25 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		} else {
			time.Sleep(time.Duration(rng.IntN(600)) * time.Millisecond)
		}
		s.daemon.kill()
		had := quota.now()
		s.start()
		s.ready()
		until(t, "the VM has all it may", func() bool { return quota.now() >= 1 })
		if n := quota.reversals(time.Time{}); n > 0 {
			t.Errorf("killed at %.2f cores: %v%s", had, quota, told(s.events(v, "")))
		}
		s.quiet(v, "autoscale.")
		t.Logf("killed at %.2f cores: %v", had, quota)
		s.remove(name)
	}
}

// Without pressure the loop polls, and says so.
func TestKernelScalingWithoutPressure(t *testing.T) {
	s := newScaled(t)
	v := s.vm("blind", 0.25, 64, brisk(3, 5))
	if status := s.status(); status.Wakeups != "events" {
		t.Errorf("wakeups by %s: %s", status.Wakeups, status.Note)
	}
	all := filepath.Join(s.parent, "vms", "cgroup.pressure") // of all slices together
	hide := func(value string) {
		s.write(v, "cgroup.pressure", value)
		if err := os.WriteFile(all, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	s.daemon.kill()
	hide("0")
	s.start()
	s.ready()
	until(t, "the status says that it polls", func() bool { return s.status().Wakeups == "polling" })
	t.Logf("note: %s", s.status().Note)
	quota := follow(t, s.slice(v, "cpu.max"))
	at := time.Now()
	s.saturate("blind", "load")
	until(t, "the VM has all it may", func() bool { return quota.now() >= 1 })
	first, _ := quota.when(at, func(q float64) bool { return q > 0.25 })
	s.cancel("load")
	until(t, "the VM shrinks when it is idle", func() bool { return quota.now() < 1 })
	t.Logf("first larger after %v, cpu.max %v", first.Sub(at).Round(time.Millisecond), quota)
	hide("1")
	until(t, "it is told of again", func() bool { return s.status().Wakeups == "events" })
	s.quiet(v, "autoscale.")
}

func (s *shell) status() agent.ScalingStatus {
	s.t.Helper()
	status, err := call[agent.ScalingStatus](s.daemon, "GET", "/api/v1/autoscale/status", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

// scaled is how one resource of a VM stands.
func (s *shell) scaled(vm, resource string) agent.Scaled {
	s.t.Helper()
	for _, v := range s.status().VMs {
		for _, r := range v.Resources {
			if v.VMName == vm && r.Resource == resource {
				return r
			}
		}
	}
	s.t.Fatalf("no %s of %s in the status", resource, vm)
	return agent.Scaled{}
}

// A host without headroom: what cannot be granted is told once, nothing flaps, and
// is granted when there is room.
func TestSystemScalingFullHost(t *testing.T) {
	s := newScaled(t, "--overcommit-cpu", "0.5") // as if it had half as many processors, so that one VM can use all it has
	n := float64(hostCPUs(t)) / 2
	half := 0.9 * n / 2 // the host keeps a tenth for itself
	v, other := s.vm("a", half, 64, agent.PolicyLayer{}), s.vm("b", half, 64, agent.PolicyLayer{})
	quota := follow(t, s.slice(v, "cpu.max"))
	s.saturate("a", "load")
	until(t, "it is deferred", func() bool { return s.scaled("a", "cpus").State == "deferred" })
	time.Sleep(20 * time.Second)
	if got := s.scaled("a", "cpus").State; got != "deferred" {
		t.Errorf("later it is %s", got)
	}
	if got := s.events(v, "autoscale."); len(got) != 1 || got[0].Kind != "autoscale.deferred" || len(quota.all()) != 1 {
		t.Errorf("deferred: cpu.max %v%s", quota, told(s.events(v, "")))
	} else {
		t.Logf("deferred:%s", told(got))
	}
	s.remove("b")
	_ = other
	until(t, "it grows when there is room", func() bool { return quota.now() > half })
	t.Logf("cpu.max %v", quota)
	s.remove("a")

	v = s.vm("big", 0.9*n, 64, agent.PolicyLayer{})
	quota = follow(t, s.slice(v, "cpu.max"))
	s.saturate("big", "more")
	until(t, "it is infeasible", func() bool { return s.scaled("big", "cpus").State == "infeasible" })
	time.Sleep(20 * time.Second)
	if got := s.events(v, "autoscale."); len(got) != 1 || got[0].Kind != "autoscale.infeasible" || len(quota.all()) != 1 {
		t.Errorf("infeasible: cpu.max %v%s", quota, told(s.events(v, "")))
	} else {
		t.Logf("infeasible:%s", told(got))
	}
}

// A dry run decides, tells, and changes nothing.
func TestSystemScalingDryRun(t *testing.T) {
	s := newScaled(t, "--autoscale", "recommend")
	v := s.vm("dry", 0.5, 64, brisk(3, 5))
	quota, working, most := follow(t, s.slice(v, "cpu.max")), follow(t, s.slice(v, "memory.high")), follow(t, s.slice(v, "memory.max"))
	s.saturate("dry", "load")
	until(t, "it is recommended", func() bool { return len(s.events(v, "autoscale.recommended")) > 0 })
	time.Sleep(15 * time.Second)
	s.cancel("load")
	time.Sleep(15 * time.Second)
	got := s.events(v, "autoscale.")
	t.Logf("in 30 s:%s", told(got))
	if len(quota.all())+len(working.all())+len(most.all()) > 3 || len(got) > 15 {
		t.Errorf("cpu.max %v, memory.high %v, memory.max %v", quota, working, most)
	}
	s.quiet(v, "vm.scaled")
}

// What a user asks for while the loop is at work counts, and is no drift. Turned off,
// limits are what was asked for.
func TestSystemScalingUserWins(t *testing.T) {
	s := newScaled(t)
	v := s.vm("web", 0.5, 128, agent.PolicyLayer{})
	quota, working, most := follow(t, s.slice(v, "cpu.max")), follow(t, s.slice(v, "memory.high")), follow(t, s.slice(v, "memory.max"))
	s.saturate("web", "load")
	until(t, "the VM grows", func() bool { return quota.now() > 0.5 })
	at := time.Now()
	s.out("vm", "set", "web", "--cpus", "0.3")
	if _, ok := quota.when(at, func(q float64) bool { return q == 0.3 }); !ok {
		t.Errorf("vm set: %v", quota)
	}
	until(t, "it grows to four times the new size", func() bool { return quota.now() == 1.2 })
	s.out("vm", "set", "web", "--memory", "100MiB")
	time.Sleep(7 * time.Second)
	s.quiet(v, "autoscale.")
	s.policy("web", rules(agent.RuleChange{Mode: new("off")}))
	until(t, "limits are the spec's", func() bool { return quota.now() == 0.3 && most.now() == 100<<20 && working.now() > 1<<60 })
	time.Sleep(7 * time.Second)
	t.Logf("cpu.max %v; memory.high %v; memory.max %v", quota, working, most)
	if quota.now() != 0.3 {
		t.Errorf("it goes on when turned off: %v%s", quota, told(s.events(v, "")))
	}
	s.quiet(v, "autoscale.drift")
}

// Many VMs are saturated at once. A quota of a hundredth core, by hand, lets two
// processors saturate so many. CLOUDFLASH_SOAK takes 100.
func TestLongScalingManyAtOnce(t *testing.T) {
	s := newScaled(t)
	n := 16
	if soak() {
		n = 100
	}
	var vms []agent.VM
	for i := range n {
		v := s.vm(fmt.Sprintf("m%d", i), 0.4, 32, agent.PolicyLayer{}) // a quarter of it is the least it may have
		s.write(v, "cpu.max", "1000 100000")
		s.submit(v.Name, "c"+v.Name, "sh", "-c", "while :; do :; done")
		s.write(v, "cpu.max", "1000 100000")
		vms = append(vms, v)
	}
	time.Sleep(10 * time.Second)
	var quotas []*trail
	began, used := time.Now(), s.processTime()
	for _, v := range vms {
		s.write(v, "cpu.max", "1000 100000")
		quotas = append(quotas, followEvery(t, s.slice(v, "cpu.max"), 50*time.Millisecond))
	}
	var answered []time.Duration
	for end := began.Add(time.Minute); len(answered) < n && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		answered = answered[:0]
		for _, q := range quotas {
			if at, ok := q.when(began, func(v float64) bool { return v >= 0.1 }); ok {
				answered = append(answered, at.Sub(began))
			}
		}
	}
	time.Sleep(10 * time.Second)
	took := time.Since(began).Seconds()
	t.Logf("%d of %d VMs have their quota back: %s; the agent took %.1f %% of a core over %.0f s; load %s", len(answered), n, spread(answered), 100*(s.processTime()-used)/took, took, load1())
	flaps := 0
	for _, q := range quotas {
		flaps = max(flaps, q.reversals(time.Time{}))
	}
	if len(answered) < n || flaps > 1 {
		t.Errorf("%d were answered, one with %d reversals%s", len(answered), flaps, told(s.events(vms[0], "")))
	}
	for _, v := range vms {
		for _, e := range s.events(v, "autoscale.") {
			if !slices.Contains([]string{"autoscale.drift", "autoscale.deferred"}, e.Kind) {
				t.Errorf("%s: %s %s", v.Name, e.Kind, e.Message)
			}
		}
	}
}

// processTime is the CPU time of the agent, in seconds.
func (s *shell) processTime() float64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks float64
	for _, field := range f[11:13] { // utime and stime, proc_pid_stat(5)
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		ticks += n
	}
	return ticks / 100
}

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
	"cloudflash/agent/scaling"
	"cloudflash/cmd/cloudflash/systemtest"
)

// quiet fails when there are events of a kind.
func quiet(s *systemtest.Agent, v agent.VM, kind string) {
	s.T.Helper()
	if got := s.Events(v.ID, kind); len(got) > 0 {
		s.T.Errorf("told of%s", told(got))
	}
}

// Somebody writes a limit by hand: that is told once, not fought, and autoscaling
// goes on from there.
func TestSystemScalingByHand(t *testing.T) {
	s := newScaled(t)
	idle, busy := s.Create("calm", modest, 64, agent.PolicyLayer{}), s.Create("busy", modest, 64, agent.PolicyLayer{})
	quota := s.Follow(busy, "cpu.max")
	saturate(s, "busy", "load")
	reaches(t, quota, grown)

	// A limit that was changed before autoscaling has looked at a VM is taken for what it was: of an idle VM the first
	// look may be late. That it knows the limits shows when it notices a change.
	drifts := func() int { return len(s.Events(idle.ID, "autoscale.drift")) }
	some := 0
	systemtest.Until(t, "a change of the idle VM is noticed", func() bool {
		some++
		s.Write(idle, "cpu.max", []string{"20000 100000", "25000 100000"}[some%2])
		s.Looks(1)
		return drifts() > 0
	})
	s.Looks(3)
	known := drifts()

	s.Write(idle, "cpu.max", "30000 100000") // within its bounds
	s.Write(idle, "memory.max", strconv.Itoa(96<<20))
	s.Write(busy, "cpu.max", "15000 100000")
	at := time.Now()
	untouched := s.Follow(idle, "cpu.max")
	systemtest.Until(t, "the busy VM grows again", func() bool {
		_, ok := quota.When(at,
			func(q float64) bool { return q > 0.15 })
		return ok
	})
	reaches(t, quota, grown)
	systemtest.Until(t, "both changes of the idle VM are noticed", func() bool {
		return drifts() == known+2
	})
	t.Logf("busy: %v; idle: %v%s", quota, untouched, told(s.Events(idle.ID, "")))

	if len(untouched.All()) > 1 {
		t.Errorf("the limit that was written by hand was changed: %v%s", untouched, told(s.Events(idle.ID, "")))
	}
	if n := len(s.Events(busy.ID, "autoscale.drift")); n != 1 {
		t.Errorf("%d drifts of the busy VM%s", n, told(s.Events(busy.ID, "")))
	}
}

// VMs are deleted while the loop decides about them.
func TestSystemScalingDeletedMeanwhile(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 3))
	cycle := func(i int) agent.VM {
		name := fmt.Sprintf("v%d", i)
		v := s.Create(name, 0.5, 64, agent.PolicyLayer{})
		saturate(s, name, "c"+name)
		time.Sleep(time.Duration(rng.IntN(800)) * time.Millisecond)
		s.MustRemove(name)
		return v
	}
	cycle(0)
	before := s.Rest()
	var gone []agent.VM
	for i := range 6 {
		gone = append(gone, cycle(i+1))
	}
	s.NoMore(before)
	decided, failed := 0, 0
	for _, v := range gone {
		for _, d := range s.Decisions(v.ID) {
			decided++
			if d.Result == agent.DecisionFailed {
				failed++
				if !strings.Contains(d.Why, "deleted meanwhile") {
					t.Errorf("%s: %s", v.Name, d.Why)
				}
			}
		}
		goneWithoutErrors(s, v)
	}
	t.Logf("%d decisions about %d VMs, %d failed because of the deletion", decided, len(gone), failed)
}

// goneWithoutErrors checks that a VM was deleted, and that no error was told of it.
func goneWithoutErrors(s *systemtest.Agent, v agent.VM) {
	s.T.Helper()
	if _, err := os.Stat(s.Slice(v, "cgroup.procs")); err == nil {
		s.T.Errorf("%s is there", v.Name)
	}
	for _, e := range s.Events(v.ID, "") {
		if e.Level == agent.LevelError {
			s.T.Errorf("%s: %s %s", v.Name, e.Kind, e.Message)
		}
	}
}

// A frozen VM uses nothing, and loses nothing for it.
func TestSystemScalingFrozen(t *testing.T) {
	s := newScaled(t)
	v := s.Create("ice", modest, 64, brisk(1, 1))
	quota := s.Follow(v, "cpu.max")
	saturate(s, "ice", "load")
	reaches(t, quota, grown)
	s.Out("vm", "freeze", "ice")
	working, most := followMemory(s, v)
	s.Looks(7) // six that show no use are evidence for a shrink
	if quota.Now() < nearly*grown || len(working.All()) > 1 || len(most.All()) > 1 {
		t.Errorf("a frozen VM was resized: cpu.max %v, memory.high %v, memory.max %v%s", quota, working, most, told(s.Events(v.ID, "")))
	}
	s.Out("vm", "thaw", "ice")
	s.Looks(3)
	if quota.Now() < nearly*grown {
		t.Errorf("a busy VM that was frozen was shrunk: %v%s", quota, told(s.Events(v.ID, "")))
	}
	s.Cancel("load")
	systemtest.Until(t, "the VM shrinks when it is idle", func() bool { return quota.Now() < nearly*grown })
	t.Logf("cpu.max %v", quota)
	quiet(s, v, "autoscale.")
}

// The agent is killed around its decisions. What was decided holds when it is back:
// nothing falls back to the spec.
func TestSystemScalingKilled(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 4))
	rounds := 3
	if soak() {
		rounds = 12
	}
	for i := range rounds {
		name := fmt.Sprintf("k%d", i)
		v := s.Create(name, modest, 64, agent.PolicyLayer{})
		quota := s.Follow(v, "cpu.max")
		saturate(s, name, "c"+name)
		if i%2 == 0 { // right after a decision, or just anywhere
			for end := time.Now().Add(30 * time.Second); quota.Now() == modest && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		} else {
			time.Sleep(time.Duration(rng.IntN(600)) * time.Millisecond)
		}
		s.Kill()
		had := quota.Now()
		s.Start()
		reaches(t, quota, grown)
		if n := quota.Reversals(time.Time{}); n > 0 {
			t.Errorf("killed at %.2f cores: %v%s", had, quota, told(s.Events(v.ID, "")))
		}
		quiet(s, v, "autoscale.")
		t.Logf("killed at %.2f cores: %v", had, quota)
		s.MustRemove(name)
	}
}

// Without pressure the loop polls, and says so.
//
// It takes 20 to 40 s: the agent starts twice, and then looks only once a second.
func TestSystemScalingWithoutPressure(t *testing.T) {
	s := newScaled(t)
	v := s.Create("blind", modest, 64, brisk(1, 1))
	if status := status(s); status.Wakeups != "events" {
		t.Errorf("wakeups by %s: %s", status.Wakeups, status.Note)
	}
	all := filepath.Join(s.Parent, "vms", "cgroup.pressure") // of all slices together
	hide := func(value string) {
		s.Write(v, "cgroup.pressure", value)
		if err := os.WriteFile(all, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
	hide("0")
	s.Start()
	systemtest.Until(t, "the status says that it polls", func() bool { return status(s).Wakeups == "polling" })
	t.Logf("note: %s", status(s).Note)
	quota := s.Follow(v, "cpu.max")
	at := time.Now()
	saturate(s, "blind", "load")
	reaches(t, quota, grown)
	first, _ := quota.When(at, func(q float64) bool { return q > modest })
	s.Cancel("load")
	systemtest.Until(t, "the VM shrinks when it is idle", func() bool { return quota.Now() < nearly*grown })
	t.Logf("first larger after %v, cpu.max %v", first.Sub(at).Round(time.Millisecond), quota)
	hide("1")
	systemtest.Until(t, "it is told of again", func() bool { return status(s).Wakeups == "events" })
	quiet(s, v, "autoscale.")
}

func status(s *systemtest.Agent) agent.ScalingStatus {
	s.T.Helper()
	return systemtest.Must[agent.ScalingStatus](s, "GET", "/api/v1/autoscale/status", nil)
}

// scaled is how one resource of a VM stands.
func scaled(s *systemtest.Agent, vm, resource string) scaling.Scaled {
	s.T.Helper()
	for _, v := range status(s).VMs {
		for _, r := range v.Resources {
			if v.VMName == vm && r.Resource == resource {
				return r
			}
		}
	}
	s.T.Fatalf("no %s of %s in the status", resource, vm)
	return scaling.Scaled{}
}

// A host without headroom: what cannot be granted is told once, nothing flaps, and
// is granted when there is room.
func TestSystemScalingFullHost(t *testing.T) {
	s := newScaled(t, "--overcommit-cpu", "0.5") // as if it had half as many processors, so that one VM can use all it has
	n := float64(hostCPUs(t)) / 2
	half := 0.9 * n / 2 // the host keeps a tenth for itself
	v, other := s.Create("a", half, 64, agent.PolicyLayer{}), s.Create("b", half, 64, agent.PolicyLayer{})
	quota := s.Follow(v, "cpu.max")
	saturate(s, "a", "load")
	systemtest.Until(t, "it is deferred", func() bool { return scaled(s, "a", "cpus").State == "deferred" })
	s.Looks(4)
	if got := scaled(s, "a", "cpus").State; got != "deferred" {
		t.Errorf("later it is %s", got)
	}
	if got := s.Events(v.ID, "autoscale."); len(got) != 1 || got[0].Kind != "autoscale.deferred" || len(quota.All()) != 1 {
		t.Errorf("deferred: cpu.max %v%s", quota, told(s.Events(v.ID, "")))
	} else {
		t.Logf("deferred:%s", told(got))
	}
	s.MustRemove("b")
	_ = other
	systemtest.Until(t, "it grows when there is room", func() bool { return quota.Now() > half })
	t.Logf("cpu.max %v", quota)
	s.MustRemove("a")

	v = s.Create("big", 0.9*n, 64, agent.PolicyLayer{})
	quota = s.Follow(v, "cpu.max")
	saturate(s, "big", "more")
	systemtest.Until(t, "it is infeasible", func() bool { return scaled(s, "big", "cpus").State == "infeasible" })
	s.Looks(4)
	if got := s.Events(v.ID, "autoscale."); len(got) != 1 || got[0].Kind != "autoscale.infeasible" || len(quota.All()) != 1 {
		t.Errorf("infeasible: cpu.max %v%s", quota, told(s.Events(v.ID, "")))
	} else {
		t.Logf("infeasible:%s", told(got))
	}
}

// A dry run decides, tells, and changes nothing.
func TestSystemScalingDryRun(t *testing.T) {
	s := newScaled(t, "--autoscale", "recommend")
	v := s.Create("dry", 0.5, 64, brisk(1, 1))
	quota := s.Follow(v, "cpu.max")
	working, most := followMemory(s, v)
	saturate(s, "dry", "load")
	systemtest.Until(t, "it is recommended", func() bool { return len(s.Events(v.ID, "autoscale.recommended")) > 0 })
	s.Looks(4)
	s.Cancel("load")
	systemtest.Until(t, "it would shrink", func() bool {
		return slices.ContainsFunc(s.Events(v.ID, "autoscale.recommended"),
			func(e agent.Event) bool { return e.Data["to"].(float64) < e.Data["from"].(float64) })
	})
	s.Looks(2)
	got := s.Events(v.ID, "autoscale.")
	t.Logf("recommended:%s", told(got))
	if len(quota.All())+len(working.All())+len(most.All()) > 3 || len(got) > 15 {
		t.Errorf("cpu.max %v, memory.high %v, memory.max %v", quota, working, most)
	}
	quiet(s, v, "vm.scaled")
}

// What a user asks for while the loop is at work counts, and is no drift. Turned off,
// limits are what was asked for.
func TestSystemScalingUserWins(t *testing.T) {
	s := newScaled(t)
	v := s.Create("web", 0.2, 128, agent.PolicyLayer{})
	quota := s.Follow(v, "cpu.max")
	working, most := followMemory(s, v)
	saturate(s, "web", "load")
	systemtest.Until(t, "the VM grows", func() bool { return quota.Now() > 0.2 })
	at := time.Now()
	s.Out("vm", "set", "web", "--cpus", "0.1")
	if _, ok := quota.When(at, func(q float64) bool { return q == modest }); !ok {
		t.Errorf("vm set: %v", quota)
	}
	systemtest.Until(t, "it grows to four times the new size", func() bool { return quota.Now() >= nearly*grown })
	s.Out("vm", "set", "web", "--memory", "100MiB")
	s.Looks(2)
	quiet(s, v, "autoscale.")
	setPolicy(s, "web", rules(agent.RuleChange{Mode: new("off")}))
	systemtest.Until(t, "limits are the spec's",
		func() bool { return quota.Now() == modest && most.Now() == 100<<20 && working.Now() > 1<<60 })
	s.Looks(3)
	t.Logf("cpu.max %v; memory.high %v; memory.max %v", quota, working, most)
	if quota.Now() != modest {
		t.Errorf("it goes on when turned off: %v%s", quota, told(s.Events(v.ID, "")))
	}
	quiet(s, v, "autoscale.drift")
}

// Many VMs are saturated at once, CLOUDFLASH_SCALED_VMS of them. A quota of a hundredth core,
// by hand, lets two processors saturate so many.
func TestLongScalingManyAtOnce(t *testing.T) {
	n := 30
	if many, err := strconv.Atoi(os.Getenv("CLOUDFLASH_SCALED_VMS")); err == nil {
		n = many
	}
	s := newScaled(t)
	var vms []agent.VM
	for i := range n {
		vms = append(vms, s.Create(fmt.Sprintf("m%d", i), 0.4, 32, agent.PolicyLayer{})) // a quarter of it is the least it may have
	}
	for _, v := range vms { // not before all are made: that would take as long as the processors are saturated
		s.Write(v, "cpu.max", "1000 100000")
		s.Submit(v.Name, "c"+v.Name, "sh", "-c", "while :; do :; done")
		s.Write(v, "cpu.max", "1000 100000")
	}
	time.Sleep(10 * time.Second)
	var quotas []*systemtest.Trail
	began, used := time.Now(), s.ProcessTime()
	for _, v := range vms {
		s.Write(v, "cpu.max", "1000 100000")
		quotas = append(quotas, s.FollowEvery(v, "cpu.max", 50*time.Millisecond))
	}
	var answered []time.Duration
	for end := began.Add(time.Minute); len(answered) < n && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		answered = answered[:0]
		for _, q := range quotas {
			if at, ok := q.When(began, func(v float64) bool { return v >= 0.1 }); ok {
				answered = append(answered, at.Sub(began))
			}
		}
	}
	time.Sleep(10 * time.Second)
	took := time.Since(began).Seconds()
	t.Logf("%d of %d VMs have their quota back: %s; the agent took %.1f %% of a core over %.0f s; load %s",
		len(answered), n, spread(answered), 100*(s.ProcessTime()-used)/took, took, load1())
	flaps := 0
	for _, q := range quotas {
		flaps = max(flaps, q.Reversals(time.Time{}))
	}
	if len(answered) < n || flaps > 1 {
		t.Errorf("%d were answered, one with %d reversals%s", len(answered), flaps, told(s.Events(vms[0].ID, "")))
	}
	for _, v := range vms {
		for _, e := range s.Events(v.ID, "autoscale.") {
			if !slices.Contains([]string{"autoscale.drift", "autoscale.deferred"}, e.Kind) {
				t.Errorf("%s: %s %s", v.Name, e.Kind, e.Message)
			}
		}
	}
}

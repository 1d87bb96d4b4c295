package main

import (
	"strconv"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"
)

// Memory grows by 50 MiB a second, from a quarter of the limit to far above it: the
// limits are ahead of it, nothing is killed and nobody waits.
//
// An agent that is starved comes late: so much of the time may be lost to waiting for memory.
func TestSystemScalingMemoryGrows(t *testing.T) { memoryGrows(t, 0.2) }

func TestLongScalingMemoryGrows(t *testing.T) { memoryGrows(t, 0.03) }

func memoryGrows(t *testing.T, allowed float64) {
	s := newScaled(t)
	const limit, end = 192, 400 // MiB; four times the limit is allowed
	v := s.Create("grows", 1, limit, agent.PolicyLayer{})
	working, most := followMemory(s, v)
	s.Submit("grows", "there", "burn", "--cpus", "0", "--memory", strconv.Itoa(limit/4)+"MiB", "--seconds", "3600")
	systemtest.Until(t, "a quarter is in use", func() bool { return s.Number(v, "memory.current") >= limit/4<<20 })
	s.Looks(2)
	began, waited := time.Now(), s.Stalled(v, "memory.pressure", "full")
	someBefore := s.Stalled(v, "memory.pressure", "some")
	s.Submit("grows", "growing", "burn", "--cpus", "0", "--memory", strconv.Itoa(end-limit/4)+"MiB", "--memory-rate",
		"50MiB/s", "--seconds", "3600")
	systemtest.Until(t, "it has all it wants", func() bool { return s.Number(v, "memory.current") >= end<<20 })
	took := time.Since(began)
	full := s.Stalled(v, "memory.pressure", "full") - waited
	some := s.Stalled(v, "memory.pressure", "some") - someBefore
	events := s.Counters(v, "memory.events")
	t.Logf("%d → %.0f MiB in %.1f s, %.1f MiB/s, load %s", limit/4, s.Number(v, "memory.current")/(1<<20),
		took.Seconds(), float64(end-limit/4)/took.Seconds(), load1())
	t.Logf("memory.events: high %.0f, max %.0f, oom %.0f, oom_kill %.0f; all stalled %.2f %% of the time (%.3f s), some %.2f %%", events["high"], events["max"], events["oom"],
		events["oom_kill"], 100*full/took.Seconds(), full, 100*some/took.Seconds())
	t.Logf("memory.high %v", working)
	t.Logf("memory.max %v", most)
	if events["oom_kill"] > 0 || events["oom"] > 0 || full > allowed*took.Seconds() || s.Number(v, "memory.current") < end<<20 {
		t.Errorf("memory did not grow freely%s", told(s.Events(v.ID, "")))
	}
}

// When the load ends, limits shrink after the cooldown and no sooner, and what is
// left running, with a file that it reads again and again, is not hurt.
//
// It takes 20 to 30 s: limits grow, and shrink twice, each on six seconds of evidence at least.
func TestSystemScalingShrinksAfterTheLoad(t *testing.T) { shrinks(t, 3) }

const usualCooldown = 60 // seconds, by default

// With the usual cooldown, in which the agent learns what the reader needs: nothing is taken that is given back.
func TestLongScalingShrinksAfterTheLoad(t *testing.T) {
	if n := shrinks(t, usualCooldown); n > 2 {
		t.Errorf("%d reversals after the load", n)
	}
}

// shrinks returns how often a limit turned round after the load, with a cooldown of so many seconds.
func shrinks(t *testing.T, cooldown float64) (reversals int) {
	s := newScaled(t)
	settle := func() { s.Looks(int(2 * cooldown)) }
	v := s.Create("ends", 0.25, 96, agent.PolicyLayer{})
	quota := s.Follow(v, "cpu.max")
	working, most := followMemory(s, v)
	s.Submit("ends", "reader", "sh", "-c", "head -c 5000000 /dev/zero >/data/warm; while :; do cat /data/warm >/dev/null; sleep 1; done")
	s.Submit("ends", "load", "burn", "--cpus", "2", "--memory", "200MiB", "--seconds", "3600")
	systemtest.Until(t, "the VM has grown", func() bool { return quota.Now() > 0.25 && s.Number(v, "memory.current") >= 200<<20 })
	settle() // until they fit the load
	stat := s.Counters(v, "memory.stat")
	refaults := stat["workingset_refault_file"] + stat["workingset_refault_anon"]
	grownTo := [...]float64{quota.Now(), working.Now(), most.Now()}
	ended := s.Cancel("load")
	if cooldown != usualCooldown {
		// Not before: a limit that was taken back too early, on a few seconds of evidence, is left alone for minutes.
		short := agent.RuleChange{CooldownSeconds: &cooldown, WindowSeconds: &cooldown}
		setPolicy(s, "ends", agent.PolicyLayer{Rules: map[string]agent.RuleChange{"cpus": short, "memory_bytes": short}})
	}
	smaller := func(tr *systemtest.Trail, than float64) func() bool {
		return func() bool { _, ok := tr.When(ended, func(q float64) bool { return q < than }); return ok }
	}
	systemtest.Until(t, "cpu.max shrinks", smaller(quota, grownTo[0]))
	systemtest.Until(t, "memory.high shrinks", smaller(working, grownTo[1]))
	systemtest.Until(t, "memory.max shrinks", smaller(most, grownTo[2]))
	for name, tr := range map[string]*systemtest.Trail{"cpu.max": quota, "memory.high": working, "memory.max": most} {
		first, _ := tr.When(ended, func(float64) bool { return true })
		t.Logf("%s shrank %.2f s after the load had ended, cooldown %.0f s", name, first.Sub(ended).Seconds(), cooldown)
	}
	settle() // and further
	stat = s.Counters(v, "memory.stat")
	now := stat["workingset_refault_file"] + stat["workingset_refault_anon"]
	events := s.Counters(v, "memory.events")
	held := stat["anon"] + stat["unevictable"] + stat["kernel"] - stat["slab_reclaimable"] + stat["sock"]
	t.Logf("load %s, cpu.max %v", load1(), quota)
	t.Logf("memory.high %v", working)
	t.Logf("memory.max %v", most)
	t.Logf("%.0f refaults in %.0f s (%.0f before), memory.high %.0f MiB, unreclaimable %.0f MiB, in use %.0f MiB, oom_kill %.0f, stalled %.3f s", now-refaults, time.Since(ended).Seconds(),
		refaults, working.Now()/(1<<20), held/(1<<20), s.Number(v,
			"memory.current")/(1<<20), events["oom_kill"], s.Stalled(v, "memory.pressure", "full"))
	if events["oom_kill"] > 0 || working.Now() <= held || now-refaults > 5e6/4096 {
		t.Errorf("shrinking hurt%s", told(s.Events(v.ID, "")))
	}
	if got := s.Cloudlet("reader"); got.State != agent.CloudletRunning {
		t.Errorf("the reader is %s", got.State)
	}
	return max(quota.Reversals(ended), working.Reversals(ended), most.Reversals(ended))
}

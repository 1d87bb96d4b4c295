package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"
)

// Somebody writes limits ten times a second. The agent does not fight, does not tell
// of each, and has its own again when that stops.
func TestSystemScalingFoughtOver(t *testing.T) {
	s := newScaled(t, "--upkeep-every", "2s")
	v := s.Create("war", modest, 64, agent.PolicyLayer{})
	quota := s.Follow(v, "cpu.max")
	saturate(s, "war", "load")
	const seconds = 6
	began, used := time.Now(), s.ProcessTime()
	for time.Since(began) < seconds*time.Second {
		s.Write(v, "cpu.max", "8000 100000")
		s.Write(v, "memory.max", strconv.Itoa(48<<20)) // below memory.high
		time.Sleep(100 * time.Millisecond)
	}
	share := (s.ProcessTime() - used) / time.Since(began).Seconds()
	reaches(t, quota, grown)
	drifts := s.Events(v.ID, "autoscale.drift")
	t.Logf("told of it %d times in %d s; the agent took %.0f %% of a core; it had all it may %.1f s later", len(drifts), seconds, 100*share, time.Since(began).Seconds()-seconds)
	if len(drifts) == 0 || len(drifts) > 3*seconds {
		t.Errorf("%d times%s", len(drifts), told(s.Events(v.ID, "")))
	}
	for _, e := range s.Events(v.ID, "autoscale.failed") { // between writing and reading back
		if !strings.Contains(e.Message, "after writing") {
			t.Error(e.Message)
		}
	}
}

// The agent is ended while it scales, and VMs are deleted all at once while they are
// saturated.
//
// It takes 20 to 30 s: the agent starts three times, beside VMs that are saturated.
func TestSystemScalingEndsAtOnce(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 5))
	s.Create("first", 0.25, 32, agent.PolicyLayer{})
	s.MustRemove("first")
	before := s.Rest()

	vms := make([]agent.VM, 4)
	var quotas []*systemtest.Trail
	for i := range vms {
		vms[i] = s.Create(fmt.Sprintf("v%d", i), 0.25, 32, agent.PolicyLayer{})
		s.Submit(vms[i].Name, "c"+vms[i].Name, "burn", "--cpus", "1", "--seconds", "3600")
		quotas = append(quotas, s.FollowEvery(vms[i], "cpu.max", 20*time.Millisecond))
	}
	for range 2 {
		for _, v := range vms {
			s.Write(v, "cpu.max", "5000 100000")
		}
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		took := s.End()
		t.Logf("ended in %v", took.Round(time.Millisecond))
		if took > 30*time.Second {
			t.Errorf("it took %v to end", took)
		}
		s.Start()
	}
	for i, q := range quotas {
		systemtest.Until(t, vms[i].Name+" has its size at least", func() bool { return q.Now() >= 0.25 })
	}
	var all sync.WaitGroup
	for _, v := range vms {
		all.Go(func() {
			if err := s.Remove(v.Name); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, v := range vms {
		goneWithoutErrors(s, v)
	}
	s.NoMore(before)
}

// A program takes three times the limit as fast as it can: memory.high holds it back
// until the limits have grown. It is not killed.
func TestSystemScalingMemoryAtOnce(t *testing.T) {
	s := newScaled(t)
	v := s.Create("greedy", 1, 64, agent.PolicyLayer{})
	working, most := followMemory(s, v)
	s.Submit("greedy", "load", "burn", "--cpus", "0", "--memory", "192MiB", "--seconds", "3600")
	began := time.Now()
	systemtest.Until(t, "it has all it wants, or was killed", func() bool {
		return s.Number(v, "memory.current") >= 192<<20 || s.Cloudlet("load").State != agent.CloudletRunning
	})
	events := s.Counters(v, "memory.events")
	t.Logf("192 MiB after %.1f s, high %.0f, max %.0f, oom_kill %.0f; memory.high %v; memory.max %v", time.Since(began).Seconds(), events["high"], events["max"], events["oom_kill"], working, most)
	if got := s.Cloudlet("load"); got.State != agent.CloudletRunning || events["oom_kill"] > 0 {
		t.Errorf("the load is %s %s%s", got.State, got.Reason, told(s.Events(v.ID, "")))
	}
}

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent"
)

// Somebody writes limits ten times a second. The agent does not fight, does not tell
// of each, and has its own again when that stops.
func TestSystemScalingFoughtOver(t *testing.T) {
	s := newScaled(t)
	v := s.vm("war", 0.25, 64, agent.PolicyLayer{})
	quota := follow(t, s.slice(v, "cpu.max"))
	s.saturate("war", "load")
	const seconds = 20
	began, used := time.Now(), s.processTime()
	for time.Since(began) < seconds*time.Second {
		s.write(v, "cpu.max", "20000 100000")
		s.write(v, "memory.max", strconv.Itoa(48<<20)) // below memory.high
		time.Sleep(100 * time.Millisecond)
	}
	share := (s.processTime() - used) / time.Since(began).Seconds()
	until(t, "the VM has all it may", func() bool { return quota.now() >= 1 })
	drifts := s.events(v, "autoscale.drift")
	t.Logf("told of it %d times in %d s; the agent took %.0f %% of a core; it had all it may %.1f s later", len(drifts), seconds, 100*share, time.Since(began).Seconds()-seconds)
	if len(drifts) == 0 || len(drifts) > 3*seconds {
		t.Errorf("%d times%s", len(drifts), told(s.events(v, "")))
	}
	for _, e := range s.events(v, "autoscale.failed") { // between writing and reading back
		if !strings.Contains(e.Message, "after writing") {
			t.Error(e.Message)
		}
	}
}

// The agent is ended while it scales, and VMs are deleted all at once while they are
// saturated.
func TestSystemScalingEndsAtOnce(t *testing.T) {
	s := newScaled(t)
	rng := rand.New(rand.NewPCG(seed(t), 5))
	s.vm("first", 0.25, 32, agent.PolicyLayer{})
	s.remove("first")
	time.Sleep(8 * time.Second)
	before := s.counts()
	vms := make([]agent.VM, 6)
	var quotas []*trail
	for i := range vms {
		vms[i] = s.vm(fmt.Sprintf("v%d", i), 0.25, 32, agent.PolicyLayer{})
		s.submit(vms[i].Name, "c"+vms[i].Name, "burn", "--cpus", "1", "--seconds", "3600")
		quotas = append(quotas, followEvery(t, s.slice(vms[i], "cpu.max"), 20*time.Millisecond))
	}
	for range 2 {
		for _, v := range vms {
			s.write(v, "cpu.max", "5000 100000")
		}
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
		began := time.Now()
		s.end()
		t.Logf("ended in %v", time.Since(began).Round(time.Millisecond))
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("it took %v to end", took)
		}
		s.start()
		s.ready()
	}
	for i, q := range quotas {
		until(t, vms[i].Name+" has its size at least", func() bool { return q.now() >= 0.25 })
	}
	var all sync.WaitGroup
	for _, v := range vms {
		all.Go(func() {
			op, err := call[agent.Operation](s.daemon, "DELETE", "/api/v1/vms/"+v.Name+"?grace=0s", nil)
			for err == nil && op.State == agent.OperationRunning {
				op, err = call[agent.Operation](s.daemon, "GET", "/api/v1/operations/"+op.ID+"?wait=30s", nil)
			}
			if err != nil || op.State != agent.OperationSucceeded {
				t.Errorf("delete %s: %v %s %s", v.Name, err, op.State, op.Error)
			}
		})
	}
	all.Wait()
	for _, v := range vms {
		if _, err := os.Stat(s.slice(v, "cgroup.procs")); err == nil {
			t.Errorf("%s is there", v.Name)
		}
		for _, e := range s.events(v, "") {
			if e.Level == agent.LevelError {
				t.Errorf("%s: %s %s", v.Name, e.Kind, e.Message)
			}
		}
	}
	time.Sleep(8 * time.Second)
	after := s.counts()
	t.Logf("before %v, after %v", before, after)
	for what, n := range after {
		if n > before[what]+slackOf(what) {
			t.Errorf("%d %s, there were %d", n, what, before[what])
		}
	}
}

// A program takes three times the limit as fast as it can: memory.high holds it back
// until the limits have grown. It is not killed.
func TestSystemScalingMemoryAtOnce(t *testing.T) {
	s := newScaled(t)
	v := s.vm("greedy", 1, 64, agent.PolicyLayer{})
	working, most := follow(t, s.slice(v, "memory.high")), follow(t, s.slice(v, "memory.max"))
	s.submit("greedy", "load", "burn", "--cpus", "0", "--memory", "192MiB", "--seconds", "3600")
	began := time.Now()
	until(t, "it has all it wants, or was killed", func() bool {
		return s.number(v, "memory.current") >= 192<<20 || show[agent.Cloudlet](s, "cloudlet", "load").State != agent.CloudletRunning
	})
	events := controlFile(t, s.slice(v, "memory.events"))
	t.Logf("192 MiB after %.1f s, high %.0f, max %.0f, oom_kill %.0f; memory.high %v; memory.max %v", time.Since(began).Seconds(), events["high"], events["max"], events["oom_kill"], working, most)
	if got := show[agent.Cloudlet](s, "cloudlet", "load"); got.State != agent.CloudletRunning || events["oom_kill"] > 0 {
		t.Errorf("the load is %s %s%s", got.State, got.Reason, told(s.events(v, "")))
	}
}

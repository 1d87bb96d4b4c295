package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent"
)

func (s *shell) advice(vm string) agent.Advice {
	s.t.Helper()
	var all []agent.Advice
	if err := json.Unmarshal([]byte(s.out("recommend", vm, "-o", "json")), &all); err != nil || len(all) != 1 {
		s.t.Fatalf("%+v, %v", all, err)
	}
	return all[0]
}

func about(v agent.Advice, resource string) (r agent.Recommendation) {
	if i := slices.IndexFunc(v.Recommendations, func(r agent.Recommendation) bool { return r.Resource == resource }); i >= 0 {
		return v.Recommendations[i]
	}
	return r
}

func found(v agent.Advice, kind string) bool {
	return slices.ContainsFunc(v.Findings, func(f agent.Finding) bool { return f.Kind == kind })
}

// end stops the agent as a service manager does.
func (d *daemon) end() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	_ = d.cmd.Wait()
	d.cmd = nil
}

// A VM with two cores that uses a third of one is told so, with the doubt that goes
// with a short history; what it takes is in the kernel, and can be given back after
// the agent was killed.
func TestSystemRecommend(t *testing.T) {
	s := newShell(t)
	s.out("vm", "create", "web", "--cpus", "2", "--memory", "256MiB", "--label", "template=job")
	s.out("vm", "create", "tight", "--cpus", "0.2", "--memory", "128MiB")
	s.out("cloudlet", "submit", "--vm", "web", "--name", "steady", "--", "burn", "--cpus", "0.3", "--seconds", "100000")
	s.out("cloudlet", "submit", "--vm", "tight", "--name", "greedy", "--", "burn", "--cpus", "1", "--seconds", "100000")
	s.await("steady", agent.CloudletRunning)
	s.await("greedy", agent.CloudletRunning)

	until(t, "some history", func() bool { return s.advice("web").HistorySeconds >= 12 })
	v := s.advice("web")
	c := about(v, "cpus")
	t.Logf("after %v s: %+v", v.HistorySeconds, c)
	// An emulated machine that is busy makes a burn catch up what it missed.
	if c.Worth || c.Confidence > 0.01 || c.Target < 0.5 || c.Target > 1.5 || c.Saves != 2-c.Target || c.Uncapped < 0.2 || !strings.HasPrefix(c.Reason, "little is known yet: ") {
		t.Errorf("cpus: %+v", c)
	}
	if out := s.out("recommend"); !strings.Contains(out, "little is known yet: ") || strings.Contains(out, " cpus ") {
		t.Errorf("a number on so little:\n%s", out)
	}
	if out := s.out("recommend", "web"); !strings.Contains(out, "? ") || !strings.Contains(out, "little is known yet: ") {
		t.Errorf("a bold number:\n%s", out)
	}
	if _, msg, code := s.run("recommend", "apply", "web"); code != 4 || !strings.Contains(msg, "worth a change") {
		t.Errorf("it takes what is not worth it: %d %s", code, msg)
	}

	said := s.out("recommend", "apply", "web", "cpus", "memory")
	cores := show[agent.VM](s, "vm", "web").Spec.CPUs
	if want := fmt.Sprintf("web cpus 2 → %v, saves %v\nweb memory 256 MiB → 64 MiB, saves 192 MiB\n", cores, math.Round(200-100*cores)/100); said != want || cores < 0.5 || cores > 1.5 {
		t.Errorf("it says %q, not %q", said, want)
	}
	quota := fmt.Sprintf("%.0f 100000", cores*100_000)
	limits := func(cpu, memory string) {
		t.Helper()
		if got := s.cgroupFile("web", "cpu.max"); got != cpu {
			t.Errorf("cpu.max is %q, want %q", got, cpu)
		}
		if got := s.cgroupFile("web", "memory.max"); got != memory {
			t.Errorf("memory.max is %q, want %q", got, memory)
		}
	}
	limits(quota, "67108864")
	s.kill()
	s.start()
	s.ready()
	limits(quota, "67108864")
	if spec := show[agent.VM](s, "vm", "web").Spec; spec.CPUs != cores || spec.MemoryBytes != 64<<20 {
		t.Errorf("spec %+v", spec)
	}
	if out := s.out("recommend", "undo", "web"); !strings.Contains(out, fmt.Sprintf("web cpus %v → 2, takes ", cores)) || !strings.Contains(out, "web memory 64 MiB → 256 MiB, takes 192 MiB more\n") {
		t.Errorf("it says %q", out)
	}
	limits("200000 100000", "268435456")
	if _, msg, code := s.run("recommend", "undo", "web"); code != 4 || !strings.Contains(msg, "has taken no advice") {
		t.Errorf("undone twice: %d %s", code, msg)
	}
	if events := s.out("events"); !strings.Contains(events, "has what is advised: cpus 2.00 cores → ") || !strings.Contains(events, "has again what it had") {
		t.Errorf("events:\n%s", events)
	}
	s.throttledIsToldWithoutBlame()
	s.changedByHandIsNotUndone()
	s.historyStays()
}

// throttledIsToldWithoutBlame waits until a VM that wants more than its limit has been
// seen for long enough.
func (s *shell) throttledIsToldWithoutBlame() {
	s.t.Helper()
	for end := time.Now().Add(4 * time.Minute); !found(s.advice("tight"), "throttled"); time.Sleep(time.Second) {
		if time.Now().After(end) {
			s.t.Fatalf("a VM is held back all the time, and that is not found out: %+v", s.advice("tight"))
		}
	}
	v := s.advice("tight")
	s.t.Logf("%+v", v.Findings)
	if found(v, "noisy-neighbour") {
		s.t.Errorf("a neighbour is blamed for a VM's own limit: %+v", v.Findings)
	}
	if found(s.advice("web"), "throttled") {
		s.t.Error("a VM that is not held back is said to be")
	}
	if out := s.out("recommend", "tight"); !strings.Contains(out, "tight used up its own limit of 0.20 cores in ") {
		s.t.Errorf("it says:\n%s", out)
	}
}

// changedByHandIsNotUndone takes advice, and changes the VM further.
func (s *shell) changedByHandIsNotUndone() {
	s.t.Helper()
	until(s.t, "advice after the restart", func() bool { return about(s.advice("web"), "cpus").Saves > 0 })
	s.out("recommend", "apply", "web", "cpus")
	cores := show[agent.VM](s, "vm", "web").Spec.CPUs
	s.out("vm", "set", "web", "--memory", "192MiB") // of no advice
	if s.advice("web").Applied == nil {
		s.t.Error("another number of the spec was changed, and the advice cannot be undone")
	}
	s.out("vm", "set", "web", "--cpus", "1.9")
	if _, msg, code := s.run("recommend", "undo", "web"); code != 4 || !strings.Contains(msg, "cpus is 1.90 cores, not ") || s.advice("web").Applied != nil {
		s.t.Errorf("what was set by hand is undone: %d %s", code, msg)
	}
	if got := s.cgroupFile("web", "cpu.max"); got != "190000 100000" {
		s.t.Errorf("cpu.max is %q", got)
	}
	s.out("vm", "set", "web", "--cpus", fmt.Sprint(cores))
	s.out("recommend", "undo", "web")
	if v := show[agent.VM](s, "vm", "web"); v.Spec.CPUs != 2 || v.Spec.MemoryBytes != 192<<20 || s.cgroupFile("web", "cpu.max") != "200000 100000" {
		s.t.Errorf("undone: %+v", v.Spec)
	}
}

// historyStays restarts the agent, and makes a new VM of a template that is known.
func (s *shell) historyStays() {
	s.t.Helper()
	before := s.advice("web").HistorySeconds
	s.end()
	s.start()
	s.ready()
	if after := s.advice("web").HistorySeconds; after < before-0.1 { // what is old counts for a little less every second
		s.t.Errorf("%v s of history are %v after a restart", before, after)
	}
	s.out("vm", "delete", "web", "--grace", "0s")
	s.out("vm", "create", "young", "--cpus", "2", "--memory", "256MiB", "--label", "template=job")
	s.out("vm", "create", "alone", "--cpus", "2", "--memory", "256MiB")
	until(s.t, "a new VM knows what its template does", func() bool {
		v := s.advice("young")
		return v.HistorySeconds >= before-0.1 && v.Template == "job" && about(v, "cpus").Saves > 0
	})
	if v := s.advice("alone"); v.HistorySeconds >= before {
		s.t.Errorf("a VM of no template knows %v s", v.HistorySeconds)
	}
}

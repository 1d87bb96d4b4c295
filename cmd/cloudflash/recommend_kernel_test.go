package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"cloudflash/agent"
	"cloudflash/agent/advice"
	"cloudflash/cmd/cloudflash/systemtest"
)

func adviceOf(s *systemtest.Agent, vm string) advice.Advice {
	s.T.Helper()
	return systemtest.Must[advice.Advice](s, "GET", "/api/v1/recommendations/"+vm, nil)
}

func about(v advice.Advice, resource string) (r advice.Recommendation) {
	if i := slices.IndexFunc(v.Recommendations, func(r advice.Recommendation) bool { return r.Resource == resource }); i >= 0 {
		return v.Recommendations[i]
	}
	return r
}

func found(v advice.Advice, kind string) bool {
	return slices.ContainsFunc(v.Findings, func(f advice.Finding) bool { return f.Kind == kind })
}

// A VM with two cores that uses a third of one is told so, with the doubt that goes
// with a short history; what it takes is in the kernel, and can be given back after
// the agent was killed.
//
// It takes 20 to 45 s: the agent starts three times, and people would ask for advice on the command line.
func TestSystemRecommend(t *testing.T) {
	s := systemtest.Start(t, "--findings-after", "5s")
	s.Out("vm", "create", "web", "--cpus", "2", "--memory", "256MiB", "--label", "template=job")
	s.Out("vm", "create", "tight", "--cpus", "0.2", "--memory", "128MiB")
	s.Out("cloudlet", "submit", "--vm", "web", "--name", "steady", "--", "burn", "--cpus", "0.3", "--seconds", "100000")
	s.Out("cloudlet", "submit", "--vm", "tight", "--name", "greedy", "--", "burn", "--cpus", "1", "--seconds", "100000")
	s.Await("steady", agent.CloudletRunning)
	s.Await("greedy", agent.CloudletRunning)

	systemtest.Until(t, "some history", func() bool { return adviceOf(s, "web").HistorySeconds >= 5 })
	v := adviceOf(s, "web")
	c := about(v, "cpus")
	t.Logf("after %v s: %+v", v.HistorySeconds, c)
	// An emulated machine that is busy makes a burn catch up what it missed.
	if c.Worth || c.Confidence > 0.01 || c.Target < 0.5 || c.Target > 1.5 || c.Saves != 2-c.Target || c.Uncapped < 0.2 || !strings.HasPrefix(c.Reason, "little is known yet: ") {
		t.Errorf("cpus: %+v", c)
	}
	if out := s.Out("recommend"); !strings.Contains(out, "little is known yet: ") || strings.Contains(out, " cpus ") {
		t.Errorf("a number on so little:\n%s", out)
	}
	if out := s.Out("recommend", "web"); !strings.Contains(out, "? ") || !strings.Contains(out, "little is known yet: ") {
		t.Errorf("a bold number:\n%s", out)
	}
	if _, msg, code := s.Run("recommend", "apply", "web"); code != 4 || !strings.Contains(msg, "worth a change") {
		t.Errorf("it takes what is not worth it: %d %s", code, msg)
	}

	said := s.Out("recommend", "apply", "web", "cpus", "memory")
	cores := s.VM("web").Spec.CPUs
	if want := fmt.Sprintf("web cpus 2 → %v, saves %v\nweb memory 256 MiB → 64 MiB, saves 192 MiB\n", cores, math.Round(200-100*cores)/100); said != want || cores < 0.5 || cores > 1.5 {
		t.Errorf("it says %q, not %q", said, want)
	}
	quota := fmt.Sprintf("%.0f 100000", cores*100_000)
	limits := func(cpu, memory string) {
		t.Helper()
		if got := s.ControlFile(s.VM("web"), "cpu.max"); got != cpu {
			t.Errorf("cpu.max is %q, want %q", got, cpu)
		}
		if got := s.ControlFile(s.VM("web"), "memory.max"); got != memory {
			t.Errorf("memory.max is %q, want %q", got, memory)
		}
	}
	limits(quota, "67108864")
	s.Restart()
	limits(quota, "67108864")
	if spec := s.VM("web").Spec; spec.CPUs != cores || spec.MemoryBytes != 64<<20 {
		t.Errorf("spec %+v", spec)
	}
	if out := s.Out("recommend", "undo", "web"); !strings.Contains(out, fmt.Sprintf("web cpus %v → 2, takes ",
		cores)) || !strings.Contains(out, "web memory 64 MiB → 256 MiB, takes 192 MiB more\n") {
		t.Errorf("it says %q", out)
	}
	limits("200000 100000", "268435456")
	if _, msg, code := s.Run("recommend", "undo", "web"); code != 4 || !strings.Contains(msg, "has taken no advice") {
		t.Errorf("undone twice: %d %s", code, msg)
	}
	if events := s.Out("events"); !strings.Contains(events,
		"has what is advised: cpus 2.00 cores → ") || !strings.Contains(events, "has again what it had") {
		t.Errorf("events:\n%s", events)
	}
	throttledIsToldWithoutBlame(s)
	changedByHandIsNotUndone(s)
	historyStays(s)
}

// throttledIsToldWithoutBlame waits until a VM that wants more than its limit has been
// seen for long enough.
func throttledIsToldWithoutBlame(s *systemtest.Agent) {
	s.T.Helper()
	systemtest.Until(s.T, "it is found out that a VM is held back all the time", func() bool {
		return found(adviceOf(s, "tight"), "throttled")
	})
	v := adviceOf(s, "tight")
	s.T.Logf("%+v", v.Findings)
	if found(v, "noisy-neighbour") {
		s.T.Errorf("a neighbour is blamed for a VM's own limit: %+v", v.Findings)
	}
	if found(adviceOf(s, "web"), "throttled") {
		s.T.Error("a VM that is not held back is said to be")
	}
	if out := s.Out("recommend", "tight"); !strings.Contains(out, "tight used up its own limit of 0.20 cores in ") {
		s.T.Errorf("it says:\n%s", out)
	}
}

// changedByHandIsNotUndone takes advice, and changes the VM further.
func changedByHandIsNotUndone(s *systemtest.Agent) {
	s.T.Helper()
	systemtest.Until(s.T, "advice after the restart", func() bool { return about(adviceOf(s, "web"), "cpus").Saves > 0 })
	s.Out("recommend", "apply", "web", "cpus")
	cores := s.VM("web").Spec.CPUs
	s.Out("vm", "set", "web", "--memory", "192MiB") // of no advice
	if adviceOf(s, "web").Applied == nil {
		s.T.Error("another number of the spec was changed, and the advice cannot be undone")
	}
	s.Out("vm", "set", "web", "--cpus", "1.9")
	if _, msg, code := s.Run("recommend", "undo", "web"); code != 4 || !strings.Contains(msg,
		"cpus is 1.90 cores, not ") || adviceOf(s, "web").Applied != nil {
		s.T.Errorf("what was set by hand is undone: %d %s", code, msg)
	}
	if got := s.ControlFile(s.VM("web"), "cpu.max"); got != "190000 100000" {
		s.T.Errorf("cpu.max is %q", got)
	}
	s.Out("vm", "set", "web", "--cpus", fmt.Sprint(cores))
	s.Out("recommend", "undo", "web")
	if v := s.VM("web"); v.Spec.CPUs != 2 || v.Spec.MemoryBytes != 192<<20 || s.ControlFile(s.VM("web"), "cpu.max") != "200000 100000" {
		s.T.Errorf("undone: %+v", v.Spec)
	}
}

// historyStays restarts the agent, and makes a new VM of a template that is known.
func historyStays(s *systemtest.Agent) {
	s.T.Helper()
	before := adviceOf(s, "web").HistorySeconds
	s.End()
	s.Start()
	if after := adviceOf(s, "web").HistorySeconds; after < before-0.1 { // what is old counts for a little less every second
		s.T.Errorf("%v s of history are %v after a restart", before, after)
	}
	s.Out("vm", "delete", "web", "--grace", "0s")
	s.Out("vm", "create", "young", "--cpus", "2", "--memory", "256MiB", "--label", "template=job")
	s.Out("vm", "create", "alone", "--cpus", "2", "--memory", "256MiB")
	systemtest.Until(s.T, "a new VM knows what its template does", func() bool {
		v := adviceOf(s, "young")
		return v.HistorySeconds >= before-0.1 && v.Template == "job" && about(v, "cpus").Saves > 0
	})
	if v := adviceOf(s, "alone"); v.HistorySeconds >= before {
		s.T.Errorf("a VM of no template knows %v s", v.HistorySeconds)
	}
}

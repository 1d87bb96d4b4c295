package main

import (
	"fmt"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"

	"golang.org/x/sys/unix"
)

// setClock moves the clock of day, and back to what it would be when the test ends.
func setClock(t *testing.T, by time.Duration) {
	t.Helper()
	shift := func(by time.Duration) {
		tv := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			t.Fatal(err)
		}
	}
	shift(by)
	t.Cleanup(func() { shift(-by) })
}

// "Be done within 60 s" is a duration: no clock that is set meanwhile kills a cloudlet, or lets one live, also across a
// restart of the agent.
func TestSystemClockIsSet(t *testing.T) {
	s := systemtest.Start(t)
	s.Create("web", 1, 128, agent.PolicyLayer{})
	submit := func(name string, deadline float64, script string) (pid int) {
		t.Helper()
		systemtest.Must[agent.Cloudlet](s, "POST", "/api/v1/cloudlets", map[string]any{"vm": "web", "name": name,
			"deadline_seconds": deadline, "argv": []string{"sh", "-c", script}})
		return s.Await(name, agent.CloudletRunning).PID
	}
	submit("healthy", 600, "sleep 600")
	submit("short", 25, "sleep 600")
	submit("stubborn", 600, "trap '' TERM; while :; do sleep 1; done")
	before := s.Cloudlet("healthy").DeadlineAt

	setClock(t, time.Hour)
	submit("another", 600, "sleep 600")
	if c := s.Cloudlet("healthy"); c.State != agent.CloudletRunning {
		t.Errorf("an hour forward: %s %s", c.State, c.Reason)
	} else if moved := c.DeadlineAt.Sub(*before); moved < 59*time.Minute || moved > 61*time.Minute {
		t.Errorf("the deadline that is shown has moved by %v", moved)
	}

	setClock(t, -2*time.Hour)
	systemtest.Must[agent.Cloudlet](s, "DELETE", "/api/v1/cloudlets/stubborn", nil)
	for name, state := range map[string]agent.CloudletState{
		"short":    agent.CloudletDeadlineExceeded,
		"stubborn": agent.CloudletCancelled, // killed when its grace is over
	} {
		if c := s.Await(name, state); c.OverrunSeconds > 60 {
			t.Errorf("%s: %.0f s over its deadline", name, c.OverrunSeconds)
		}
	}

	pid := submit("alone", 600, "sleep 5; exit 0")
	s.Kill()
	systemtest.Until(t, "it has ended without an agent", func() bool {
		return unix.Access(fmt.Sprintf("/proc/%d", pid), unix.F_OK) != nil
	})
	setClock(t, 3*time.Hour)
	s.Start()
	if c := s.Await("alone", agent.CloudletSucceeded); c.OverrunSeconds != 0 {
		t.Errorf("it ended in time, %.0f s over its deadline are told", c.OverrunSeconds)
	}
	if c := s.Cloudlet("healthy"); c.State != agent.CloudletRunning {
		t.Errorf("after a restart: %s %s", c.State, c.Reason)
	}
}

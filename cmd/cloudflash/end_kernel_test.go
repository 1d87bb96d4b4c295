package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"
)

// TestSystemEndsUnderLoad: SIGTERM ends the agent while cloudlets come and go.
func TestSystemEndsUnderLoad(t *testing.T) {
	d := systemtest.New(t)
	for round := range 2 {
		d.Start()
		if round == 0 {
			d.Create("a", 1, 256, agent.PolicyLayer{})
		}
		var stop atomic.Bool
		var done atomic.Int64
		var clients sync.WaitGroup
		for range 6 {
			clients.Go(func() {
				for !stop.Load() {
					if c, err := systemtest.Call[agent.Cloudlet](d, "POST", "/api/v1/cloudlets", map[string]any{"vm": "a",
						"argv": []string{"sleep", "5"}}); err == nil {
						_, _ = systemtest.Call[agent.Cloudlet](d, "DELETE", "/api/v1/cloudlets/"+c.ID, nil)
						done.Add(1)
					}
				}
			})
		}
		systemtest.Until(t, "some have come and gone", func() bool { return done.Load() >= 10 })
		t.Logf("ended after %v", d.End().Round(time.Millisecond))
		stop.Store(true)
		clients.Wait()
	}
	d.Start() // to clear up
	d.DeleteAll()
}

// TestSystemDeletedCloudletsLeaveNoFiles: those that end with their VM are not
// metered any more.
func TestSystemDeletedCloudletsLeaveNoFiles(t *testing.T) {
	s := systemtest.Start(t)
	open := func() (n int) {
		for _, to := range s.Descriptors() {
			if strings.Contains(to, "/cl-") {
				n++
			}
		}
		return n
	}
	s.Out("vm", "create", "a", "--memory", "128MiB")
	for i := range 3 {
		s.Out("cloudlet", "submit", "--vm", "a", "--name", fmt.Sprint("c", i), "--", "sleep", "600")
	}
	for i := range 3 {
		s.Await(fmt.Sprint("c", i), agent.CloudletRunning)
	}
	systemtest.Until(t, "they are metered", func() bool { return open() > 0 })
	s.Out("vm", "delete", "a", "--grace", "0s")
	systemtest.Until(t, "their files are closed", func() bool { return open() == 0 })
}

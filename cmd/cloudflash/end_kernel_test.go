package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent"
)

// TestSystemEndsUnderLoad: SIGTERM ends the agent while cloudlets come and go.
func TestSystemEndsUnderLoad(t *testing.T) {
	d := newDaemon(t)
	for round := range 3 {
		d.start()
		d.ready()
		if round == 0 {
			if _, err := call[agent.VM](d, "POST", "/api/v1/vms", map[string]any{"name": "a", "cpus": 1, "memory_bytes": 256 << 20}); err != nil {
				t.Fatal(err)
			}
		}
		var stop atomic.Bool
		var clients sync.WaitGroup
		for range 6 {
			clients.Go(func() {
				for !stop.Load() {
					if c, err := call[agent.Cloudlet](d, "POST", "/api/v1/cloudlets", map[string]any{"vm": "a", "argv": []string{"sleep", "5"}}); err == nil {
						_, _ = call[agent.Cloudlet](d, "DELETE", "/api/v1/cloudlets/"+c.ID, nil)
					}
				}
			})
		}
		time.Sleep(2 * time.Second)
		began, ended := time.Now(), make(chan error, 1)
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- d.cmd.Wait() }()
		select {
		case err := <-ended:
			t.Logf("ended after %v: %v", time.Since(began).Round(time.Millisecond), err)
			d.cmd = nil
		case <-time.After(time.Minute):
			t.Error("a minute after SIGTERM the agent is still there")
			_ = d.cmd.Process.Kill()
			<-ended
			d.cmd = nil
		}
		stop.Store(true)
		clients.Wait()
	}
	d.start() // to clear up
	d.ready()
	if _, err := call[agent.Operation](d, "DELETE", "/api/v1/vms/a?grace=0s", nil); err != nil {
		t.Error(err)
	}
	until(t, "the VM is gone", func() bool {
		all, err := call[struct{ Items []agent.VM }](d, "GET", "/api/v1/vms", nil)
		return err == nil && len(all.Items) == 0
	})
}

// TestSystemDeletedCloudletsLeaveNoFiles: those that end with their VM are not
// metered any more.
func TestSystemDeletedCloudletsLeaveNoFiles(t *testing.T) {
	s := newShell(t)
	open := func() (n int) {
		for _, fd := range glob(t, fmt.Sprintf("/proc/%d/fd/*", s.daemon.cmd.Process.Pid)) {
			if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "/cl-") {
				n++
			}
		}
		return n
	}
	s.out("vm", "create", "a", "--memory", "128MiB")
	for i := range 3 {
		s.out("cloudlet", "submit", "--vm", "a", "--name", fmt.Sprint("c", i), "--", "sleep", "600")
	}
	for i := range 3 {
		s.await(fmt.Sprint("c", i), agent.CloudletRunning)
	}
	until(t, "they are metered", func() bool { return open() > 0 })
	s.out("vm", "delete", "a", "--grace", "0s")
	until(t, "their files are closed", func() bool { return open() == 0 })
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

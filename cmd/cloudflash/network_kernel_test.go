package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"
)

// What somebody takes away from the VMs' network behind the agent's back does not
// cost a VM more than that, and comes back.
func TestSystemNetworkIsMended(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--memory", "64MiB", "--publish", "8090:80")
	s.Out("cloudlet", "submit", "--vm", "web", "--name", "server", "--", "socat", "TCP-LISTEN:80,fork,reuseaddr", "SYSTEM:echo here")
	pid := s.Await("server", agent.CloudletRunning).PID
	answers := func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:8090", time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		b := make([]byte, 16)
		n, _ := c.Read(b)
		return strings.HasPrefix(string(b[:n]), "here")
	}
	same := func() {
		t.Helper()
		if v := s.VM("web"); v.State != agent.VMRunning {
			t.Fatalf("the VM is %s: %s", v.State, v.Reason)
		}
		if c := s.Cloudlet("server"); c.State != agent.CloudletRunning || c.PID != pid {
			t.Fatalf("the cloudlet is %s (%d)", c.State, c.PID)
		}
	}
	systemtest.Until(t, "the port answers", answers)

	if out, err := exec.Command("ip", "link", "del", "cf0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	systemtest.Until(t, "the port answers over a new bridge", answers)
	same()

	s.Kill()
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	thief, err := net.Listen("tcp", ":8090")
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	same()
	if out := s.Out("events"); !strings.Contains(out, "goes without port 8090/tcp") {
		t.Errorf("nobody is told: %s", out)
	}
	thief.Close()
	systemtest.Until(t, "the port answers once it is free", answers)
	same()
}

// Two agents with one cgroup would sweep each other's VMs away, and with two their links:
// there is one network.
func TestSystemSecondServeIsRefused(t *testing.T) {
	a := systemtest.Start(t)
	second := func(parent string, more ...string) string {
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		args := append([]string{"serve", "--listen", "", "--socket", filepath.Join(dir, "sock"), "--state-dir", filepath.Join(dir, "state"),
			"--run-dir", filepath.Join(dir, "run"), "--cgroup-parent", parent, "--erase"}, more...)
		out, err := exec.CommandContext(ctx, "cloudflash", args...).CombinedOutput()
		if err == nil || ctx.Err() != nil {
			t.Errorf("serve --cgroup-parent %s: %v", parent, err)
		}
		return string(out)
	}
	other := a.Parent + "-other"
	running := fmt.Sprintf("another agent's, process %d:", a.PID())
	for _, said := range []string{second(a.Parent), second(other, "--network-bridge", "cf1")} {
		if !strings.Contains(said, running) {
			t.Errorf("while it runs: %s", said)
		}
	}

	a.Out("vm", "create", "web", "--memory", "64MiB")
	a.Kill()
	if said := second(other); !strings.Contains(said, "the network of this machine is another agent's, which has VMs in cgroup "+a.Parent) {
		t.Errorf("while its VMs run: %s", said)
	}
	own := []string{"--state-dir", a.StateDir, "--run-dir", a.RunDir}
	if said := second(other, own...); !strings.Contains(said, "that of an agent with this store, which has VMs in cgroup "+a.Parent) {
		t.Errorf("with its store and another cgroup: %s", said)
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was made: %v", other, err)
	}
	a.Start()
	a.MustRemove("web")
}

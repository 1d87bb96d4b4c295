package main

import (
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
)

// What somebody takes away from the VMs' network behind the agent's back does not
// cost a VM more than that, and comes back.
func TestSystemNetworkIsMended(t *testing.T) {
	s := newShell(t)
	s.out("vm", "create", "web", "--memory", "64MiB", "--publish", "8090:80")
	s.out("cloudlet", "submit", "--vm", "web", "--name", "server", "--", "socat", "TCP-LISTEN:80,fork,reuseaddr", "SYSTEM:echo here")
	pid := s.await("server", agent.CloudletRunning).PID
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
		if v := show[agent.VM](s, "vm", "web"); v.State != agent.VMRunning {
			t.Fatalf("the VM is %s: %s", v.State, v.Reason)
		}
		if c := show[agent.Cloudlet](s, "cloudlet", "server"); c.State != agent.CloudletRunning || c.PID != pid {
			t.Fatalf("the cloudlet is %s (%d)", c.State, c.PID)
		}
	}
	until(t, "the port answers", answers)

	if out, err := exec.Command("ip", "link", "del", "cf0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	until(t, "the port answers over a new bridge", answers)
	same()

	s.kill()
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	thief, err := net.Listen("tcp", ":8090")
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	s.ready()
	same()
	if out := s.out("events"); !strings.Contains(out, "goes without port 8090/tcp") {
		t.Errorf("nobody is told: %s", out)
	}
	thief.Close()
	until(t, "the port answers once it is free", answers)
	same()
}

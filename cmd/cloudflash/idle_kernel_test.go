package main

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
)

// idleShell is an agent that deletes idle VMs after seconds.
func idleShell(t *testing.T, flags ...string) *shell {
	t.Helper()
	s := &shell{newDaemon(t)}
	s.flags = append([]string{"--idle-after", "5s", "--idle-notice", "15s"}, flags...)
	s.start()
	s.ready()
	t.Cleanup(func() {
		for _, name := range strings.Fields(s.out("vm", "list", "-o", "name")) {
			if _, errOut, code := s.run("vm", "delete", name, "--grace", "0s"); code != 0 && code != 3 { // gone by itself
				t.Errorf("delete %s: %s", name, errOut)
			}
		}
	})
	return s
}

// announced waits until the deletion of a VM is. It asks the API: on an emulated CPU
// the command line takes seconds.
func (s *shell) announced(name string) agent.VM {
	s.t.Helper()
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		v, err := call[agent.VM](s.daemon, "GET", "/api/v1/vms/"+name, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if v.Autoscale.DeleteAt != nil {
			return v
		}
	}
	s.t.Fatalf("VM %s is never announced: %s", name, s.out("vm", "show", name))
	return agent.VM{}
}

func (s *shell) gone(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.out("vm", "wait", name, "--for", "gone", "--timeout", "5m")
	}
}

// told are the events of a kind about a VM.
func (s *shell) told(kind, vmID string) []agent.Event {
	s.t.Helper()
	var out []agent.Event
	for line := range strings.Lines(s.out("events", "-o", "jsonl")) {
		var e agent.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			s.t.Fatal(err)
		}
		if e.Kind == kind && e.VM == vmID {
			out = append(out, e)
		}
	}
	return out
}

// chatter sends a VM something that nobody there listens to, until stop is called.
func (s *shell) chatter(name string) (stop func()) {
	s.t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(show[agent.VM](s, "vm", name).Network.IPv4, "9"))
	if err != nil {
		s.t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer c.Close()
		for {
			_, _ = c.Write(make([]byte, 200)) // refused: the port is closed
			select {
			case <-end:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() { close(end); <-ended }
}

// What goes on in a VM keeps it; when that ends it is announced and deleted.
func TestSystemIdleVMs(t *testing.T) {
	s := idleShell(t)
	_, said, _ := s.run("vm", "create", "gone", "--memory", "64MiB")
	if !strings.Contains(said, "deleted after 5s without a sign of life and 15s of notice") || !strings.Contains(said, "vm set gone --keep") {
		t.Errorf("create says %q", said)
	}
	gone := show[agent.VM](s, "vm", "gone")
	s.out("vm", "create", "kept", "--memory", "64MiB", "--keep")
	s.out("vm", "create", "busy", "--memory", "64MiB")
	s.out("cloudlet", "submit", "--vm", "busy", "--name", "sleeper", "--", "sleep", "10000")
	s.out("vm", "create", "inside", "--memory", "64MiB")
	session := s.command("vm", "exec", "inside", "--", "sleep", "10000")
	if err := session.Start(); err != nil {
		t.Fatal(err)
	}
	s.out("vm", "create", "talks", "--memory", "64MiB")
	quiet := s.chatter("talks")
	s.out("vm", "create", "frozen", "--memory", "64MiB")
	s.out("vm", "freeze", "frozen")
	s.out("vm", "create", "saved", "--memory", "64MiB")
	s.announced("saved")
	if v, err := call[agent.VM](s.daemon, "PATCH", "/api/v1/vms/saved", map[string]bool{"keep": true}); err != nil || !v.Autoscale.Keep || v.Autoscale.DeleteAt != nil {
		t.Errorf("%+v, %v", v.Autoscale, err)
	}

	s.gone("gone")
	notice, deleted := s.told("vm.idle", gone.ID), s.told("vm.idle_deleted", gone.ID)
	if len(deleted) != 1 || len(notice) == 0 {
		t.Fatalf("told %d times that it is idle, %d that it is deleted", len(notice), len(deleted))
	}
	if d := deleted[0].At.Sub(notice[len(notice)-1].At); d < 14900*time.Millisecond {
		t.Errorf("deleted %v after the notice", d)
	}
	if idle, _ := deleted[0].Data["idle_seconds"].(float64); idle < 20 {
		t.Errorf("deleted when idle for %v s", idle)
	}
	t.Logf("%s\n%s", notice[len(notice)-1].Message, deleted[0].Message)
	if ops, err := call[struct{ Items []agent.Operation }](s.daemon, "GET", "/api/v1/operations", nil); err != nil ||
		!slices.ContainsFunc(ops.Items, func(op agent.Operation) bool {
			return op.Kind == "vm.delete" && op.Target == gone.ID && op.State == agent.OperationSucceeded
		}) {
		t.Errorf("operations: %+v, %v", ops, err)
	}

	time.Sleep(30 * time.Second) // more than it takes
	for _, name := range []string{"kept", "busy", "inside", "talks", "frozen", "saved"} {
		v := show[agent.VM](s, "vm", name)
		if v.Autoscale.DeleteAt != nil || len(s.told("vm.idle_deleted", v.ID)) > 0 {
			t.Errorf("%s is about to be deleted: %+v", name, v)
		}
		if n := len(s.told("vm.idle", v.ID)); n > 0 && name == "kept" {
			t.Errorf("a kept VM was announced %d times", n)
		}
	}
	if busy := s.told("vm.busy", show[agent.VM](s, "vm", "saved").ID); len(busy) == 0 || !strings.Contains(busy[len(busy)-1].Message, "it is kept") {
		t.Errorf("what ended the notice of the one that was saved: %+v", busy)
	}

	quiet()
	_ = session.Process.Kill()
	_ = session.Wait()
	s.out("cloudlet", "cancel", "sleeper")
	s.out("vm", "thaw", "frozen")
	s.out("vm", "set", "saved", "--keep=false")
	s.gone("inside", "busy", "talks", "frozen", "saved")
	if out := s.out("vm", "list", "-o", "name"); out != "kept\n" {
		t.Errorf("left: %q", out)
	}
}

// A cloudlet that comes while the notice runs keeps the VM, and runs in it.
func TestSystemIdleNoticeEndsWithACloudlet(t *testing.T) {
	s := idleShell(t)
	for _, args := range [][]string{{"--vm", "web"}, nil} { // and where the scheduler chooses
		s.out("vm", "create", "web", "--memory", "64MiB")
		v := s.announced("web")
		s.out(append(append([]string{"cloudlet", "run", "--memory", "16MiB"}, args...), "--", "true")...)
		until(t, "it is told that it stays", func() bool { return len(s.told("vm.busy", v.ID)) > 0 })
		if got := show[agent.VM](s, "vm", "web"); got.ID != v.ID || got.State != agent.VMRunning || got.Autoscale.DeleteAt != nil {
			t.Errorf("%+v", got)
		}
		if n := len(s.told("vm.idle_deleted", v.ID)); n > 0 {
			t.Error("it was deleted")
		}
		s.gone("web")
	}
}

func TestSystemIdlePoolMinimum(t *testing.T) {
	s := idleShell(t, "--idle-min-vms", "1")
	s.out("vm", "create", "old", "--memory", "64MiB")
	s.out("vm", "create", "young", "--memory", "64MiB")
	s.out("cloudlet", "run", "--vm", "young", "--", "true")
	s.gone("old")
	s.out("vm", "wait", "young", "--for", "idle", "--timeout", "2m")
	time.Sleep(25 * time.Second)
	if v := show[agent.VM](s, "vm", "young"); v.Autoscale.DeleteAt != nil || v.State != agent.VMRunning {
		t.Errorf("the last one is to go: %+v", v)
	}
}

// An agent that dies in the notice forgets it: the next counts anew.
func TestSystemIdleNoticeDiesWithTheAgent(t *testing.T) {
	s := idleShell(t)
	s.out("vm", "create", "web", "--memory", "64MiB")
	before := s.announced("web")
	s.kill()
	began := time.Now()
	s.start()
	s.ready()
	v, err := call[agent.VM](s.daemon, "GET", "/api/v1/vms/web", nil)
	if err != nil || v.ID != before.ID || v.Autoscale.DeleteAt != nil || v.IdleSince != nil && v.IdleSince.Before(began) {
		t.Errorf("after a restart: idle since %v, deleted at %v", v.IdleSince, v.Autoscale.DeleteAt)
	}
	again := s.announced("web")
	if d := again.IdleSince.Sub(began); d < 0 {
		t.Errorf("counted from %v before the restart", -d)
	}
	s.gone("web")
	if n := len(s.told("vm.idle_deleted", v.ID)); n != 1 {
		t.Errorf("deleted %d times", n)
	}
}

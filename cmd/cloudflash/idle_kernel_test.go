package main

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"
)

// idleShell is an agent that deletes idle VMs after seconds.
func idleShell(t *testing.T, flags ...string) *systemtest.Agent {
	t.Helper()
	return systemtest.Start(t, append([]string{"--autoscale", "auto", "--idle-after", "5s", "--idle-notice", "15s"}, flags...)...)
}

// announced waits until the deletion of a VM is. It asks the API: on an emulated CPU
// the command line takes seconds.
func announced(s *systemtest.Agent, name string) (v agent.VM) {
	s.T.Helper()
	systemtest.Within(s.T, 5*time.Minute, "the deletion of VM "+name+" is announced", func() bool {
		v = systemtest.Must[agent.VM](s, "GET", "/api/v1/vms/"+name, nil)
		return v.Autoscale.DeleteAt != nil
	})
	return v
}

func awaitGone(s *systemtest.Agent, names ...string) {
	s.T.Helper()
	for _, name := range names {
		s.Out("vm", "wait", name, "--for", "gone", "--timeout", "5m")
	}
}

// chatter sends a VM something that nobody there listens to, until stop is called.
func chatter(s *systemtest.Agent, name string) (stop func()) {
	s.T.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(s.VM(name).Network.IPv4, "9"))
	if err != nil {
		s.T.Fatal(err)
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
	_, said, _ := s.Run("vm", "create", "gone", "--memory", "64MiB")
	if !strings.Contains(said, "deleted after 5s without a sign of life and 15s of notice") || !strings.Contains(said, "vm set gone --keep") {
		t.Errorf("create says %q", said)
	}
	gone := s.VM("gone")
	s.Out("vm", "create", "kept", "--memory", "64MiB", "--keep")
	s.Out("vm", "create", "busy", "--memory", "64MiB")
	s.Out("cloudlet", "submit", "--vm", "busy", "--name", "sleeper", "--", "sleep", "10000")
	s.Out("vm", "create", "inside", "--memory", "64MiB")
	session := s.Command("vm", "exec", "inside", "--", "sleep", "10000")
	if err := session.Start(); err != nil {
		t.Fatal(err)
	}
	s.Out("vm", "create", "talks", "--memory", "64MiB")
	quiet := chatter(s, "talks")
	s.Out("vm", "create", "frozen", "--memory", "64MiB")
	s.Out("vm", "freeze", "frozen")
	s.Out("vm", "create", "saved", "--memory", "64MiB")
	announced(s, "saved")
	if v, err := systemtest.Call[agent.VM](s, "PATCH", "/api/v1/vms/saved", map[string]bool{"keep": true}); err != nil || !v.Autoscale.Keep || v.Autoscale.DeleteAt != nil {
		t.Errorf("%+v, %v", v.Autoscale, err)
	}

	awaitGone(s, "gone")
	notice, deleted := s.Events(gone.ID, "vm.idle"), s.Events(gone.ID, "vm.idle_deleted")
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
	if ops, err := systemtest.Call[systemtest.List[agent.Operation]](s, "GET", "/api/v1/operations", nil); err != nil ||
		!slices.ContainsFunc(ops.Items, func(op agent.Operation) bool {
			return op.Kind == "vm.delete" && op.Target == gone.ID && op.State == agent.OperationSucceeded
		}) {
		t.Errorf("operations: %+v, %v", ops, err)
	}

	time.Sleep(30 * time.Second) // more than it takes
	for _, name := range []string{"kept", "busy", "inside", "talks", "frozen", "saved"} {
		v := s.VM(name)
		if v.Autoscale.DeleteAt != nil || len(s.Events(v.ID, "vm.idle_deleted")) > 0 {
			t.Errorf("%s is about to be deleted: %+v", name, v)
		}
		if n := len(s.Events(v.ID, "vm.idle")); n > 0 && name == "kept" {
			t.Errorf("a kept VM was announced %d times", n)
		}
	}
	if busy := s.Events(s.VM("saved").ID, "vm.busy"); len(busy) == 0 || !strings.Contains(busy[len(busy)-1].Message, "it is kept") {
		t.Errorf("what ended the notice of the one that was saved: %+v", busy)
	}

	quiet()
	_ = session.Process.Kill()
	_ = session.Wait()
	s.Out("cloudlet", "cancel", "sleeper")
	s.Out("vm", "thaw", "frozen")
	s.Out("vm", "set", "saved", "--keep=false")
	awaitGone(s, "inside", "busy", "talks", "frozen", "saved")
	if out := s.Out("vm", "list", "-o", "name"); out != "kept\n" {
		t.Errorf("left: %q", out)
	}
}

// A cloudlet that comes while the notice runs keeps the VM, and runs in it.
func TestSystemIdleNoticeEndsWithACloudlet(t *testing.T) {
	s := idleShell(t)
	for _, args := range [][]string{{"--vm", "web"}, nil} { // and where the scheduler chooses
		s.Out("vm", "create", "web", "--memory", "64MiB")
		v := announced(s, "web")
		s.Out(append(append([]string{"cloudlet", "run", "--memory", "16MiB"}, args...), "--", "true")...)
		systemtest.Until(t, "it is told that it stays", func() bool { return len(s.Events(v.ID, "vm.busy")) > 0 })
		if got := s.VM("web"); got.ID != v.ID || got.State != agent.VMRunning || got.Autoscale.DeleteAt != nil {
			t.Errorf("%+v", got)
		}
		if n := len(s.Events(v.ID, "vm.idle_deleted")); n > 0 {
			t.Error("it was deleted")
		}
		awaitGone(s, "web")
	}
}

func TestSystemIdlePoolMinimum(t *testing.T) {
	s := idleShell(t, "--idle-min-vms", "1")
	s.Out("vm", "create", "old", "--memory", "64MiB")
	s.Out("vm", "create", "young", "--memory", "64MiB")
	s.Out("cloudlet", "run", "--vm", "young", "--", "true")
	awaitGone(s, "old")
	s.Out("vm", "wait", "young", "--for", "idle", "--timeout", "2m")
	time.Sleep(25 * time.Second)
	if v := s.VM("young"); v.Autoscale.DeleteAt != nil || v.State != agent.VMRunning {
		t.Errorf("the last one is to go: %+v", v)
	}
}

// An agent that dies in the notice forgets it: the next counts anew.
func TestSystemIdleNoticeDiesWithTheAgent(t *testing.T) {
	s := idleShell(t)
	s.Out("vm", "create", "web", "--memory", "64MiB")
	before := announced(s, "web")
	s.Kill()
	began := time.Now()
	s.Start()
	v, err := systemtest.Call[agent.VM](s, "GET", "/api/v1/vms/web", nil)
	if err != nil || v.ID != before.ID || v.Autoscale.DeleteAt != nil || v.IdleSince != nil && v.IdleSince.Before(began) {
		t.Errorf("after a restart: idle since %v, deleted at %v", v.IdleSince, v.Autoscale.DeleteAt)
	}
	again := announced(s, "web")
	if d := again.IdleSince.Sub(began); d < 0 {
		t.Errorf("counted from %v before the restart", -d)
	}
	awaitGone(s, "web")
	if n := len(s.Events(v.ID, "vm.idle_deleted")); n != 1 {
		t.Errorf("deleted %d times", n)
	}
}

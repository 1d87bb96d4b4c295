package main

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/policy"
	"cloudflash/cmd/cloudflash/systemtest"
)

// startIdle is an agent that announces idle VMs after two seconds and deletes them an hour later: no test has to be
// quick. What is to be deleted is by notice.
func startIdle(t *testing.T, flags ...string) *systemtest.Agent {
	t.Helper()
	return systemtest.Start(t, append([]string{"--idle-after", "2s", "--idle-notice", "1h"}, flags...)...)
}

// notice sets how long it is from then on from the announcement of a VM to its deletion.
func notice(a *systemtest.Agent, seconds float64) {
	a.T.Helper()
	systemtest.Must[policy.Policy](a, "PUT", "/api/v1/autoscale/policy",
		agent.PolicyLayer{Idle: &agent.IdleChange{NoticeSeconds: &seconds}})
}

// announced waits until the deletion of a VM is.
func announced(a *systemtest.Agent, name string) (v agent.VM) {
	a.T.Helper()
	systemtest.Until(a.T, "the deletion of "+name+" is announced", func() bool {
		v = systemtest.Must[agent.VM](a, "GET", "/api/v1/vms/"+name, nil)
		return v.Autoscale.DeleteAt != nil
	})
	return v
}

func gone(a *systemtest.Agent, names ...string) {
	a.T.Helper()
	for _, name := range names {
		systemtest.Until(a.T, name+" is gone", func() bool {
			_, err := systemtest.Call[agent.VM](a, "GET", "/api/v1/vms/"+name, nil)
			r := systemtest.Refused{}
			return errors.As(err, &r) && r.Status == http.StatusNotFound
		})
	}
}

// chatter sends a VM something that nobody there listens to, until stop is called.
func chatter(t *testing.T, v agent.VM) (stop func()) {
	t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(v.Network.IPv4, "9"))
	if err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer c.Close()
		for {
			_, _ = c.Write(make([]byte, 1200)) // one is more than noise; refused: the port is closed
			select {
			case <-end:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() { close(end); <-ended }
}

// What goes on in a VM keeps it; when that ends it is announced and deleted.
//
// It takes 20 to 30 s: nine VMs are made, and most go by themselves, in three goes.
func TestSystemIdleVMs(t *testing.T) {
	a := startIdle(t)
	_, said, _ := a.Run("vm", "create", "first", "--memory", "64MiB")
	for _, want := range []string{"deleted after 2s without a sign of life and 1h of notice", "vm set first --keep"} {
		if !strings.Contains(said, want) {
			t.Errorf("create says %q", said)
		}
	}
	a.Out("vm", "create", "kept", "--memory", "64MiB", "--keep")
	vms := map[string]agent.VM{"first": a.VM("first"), "kept": a.VM("kept")}
	for _, name := range []string{"busy", "inside", "talks", "frozen", "saved"} {
		vms[name] = a.Create(name, 1, 64, agent.PolicyLayer{})
	}
	a.Submit("busy", "sleeper", "sleep", "10000")
	session := a.Command("vm", "exec", "inside", "--", "sh", "-c", "echo in; sleep 10000")
	inside, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := inside.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	quiet := chatter(t, vms["talks"])
	a.Out("vm", "freeze", "frozen")
	announced(a, "saved")
	saved := systemtest.Must[agent.VM](a, "PATCH", "/api/v1/vms/saved", map[string]bool{"keep": true})
	if !saved.Autoscale.Keep || saved.Autoscale.DeleteAt != nil {
		t.Errorf("%+v", saved.Autoscale)
	}

	announced(a, "first")
	notice(a, 1)
	gone(a, "first")
	wasTold(a, vms["first"])
	second := a.Create("second", 1, 64, agent.PolicyLayer{}) // what becomes of it would have become of the others
	gone(a, "second")
	wasTold(a, second)
	for _, name := range []string{"kept", "busy", "inside", "talks", "frozen", "saved"} {
		v := a.VM(name)
		if v.Autoscale.DeleteAt != nil || len(a.Events(v.ID, "vm.idle_deleted")) > 0 {
			t.Errorf("%s is about to be deleted: %+v", name, v)
		}
	}
	if n := len(a.Events(vms["kept"].ID, "vm.idle")); n > 0 {
		t.Errorf("a kept VM was announced %d times", n)
	}
	if busy := a.Events(saved.ID, "vm.busy"); len(busy) == 0 || !strings.Contains(busy[len(busy)-1].Message, "it is kept") {
		t.Errorf("what ended the notice of the one that was saved: %+v", busy)
	}

	quiet()
	_ = session.Process.Kill()
	_ = session.Wait()
	a.Cancel("sleeper")
	a.Out("vm", "thaw", "frozen")
	a.Out("vm", "set", "saved", "--keep=false")
	gone(a, "inside", "busy", "talks", "frozen", "saved")
	if out := a.Out("vm", "list", "-o", "name"); out != "kept\n" {
		t.Errorf("left: %q", out)
	}
}

// wasTold checks what is said of a VM that was deleted after two idle seconds and one of notice.
func wasTold(a *systemtest.Agent, v agent.VM) {
	a.T.Helper()
	notices, deleted := a.Events(v.ID, "vm.idle"), a.Events(v.ID, "vm.idle_deleted")
	if len(deleted) != 1 || len(notices) == 0 {
		a.T.Fatalf("told %d times that %s is idle, %d that it is deleted", len(notices), v.Name, len(deleted))
	}
	last := notices[len(notices)-1]
	if d := deleted[0].At.Sub(last.At); d < 900*time.Millisecond {
		a.T.Errorf("%s was deleted %v after the notice", v.Name, d)
	}
	if idle, _ := deleted[0].Data["idle_seconds"].(float64); idle < 3 {
		a.T.Errorf("%s was deleted when idle for %v s", v.Name, idle)
	}
	a.T.Logf("%s\n%s", last.Message, deleted[0].Message)
	done := func(op agent.Operation) bool {
		return op.Kind == "vm.delete" && op.Target == v.ID && op.State == agent.OperationSucceeded
	}
	ops := systemtest.Must[systemtest.List[agent.Operation]](a, "GET", "/api/v1/operations", nil).Items
	if !slices.ContainsFunc(ops, done) {
		a.T.Errorf("operations: %+v", ops)
	}
}

// A cloudlet that comes while the notice runs keeps the VM, and runs in it.
func TestSystemIdleNoticeEndsWithACloudlet(t *testing.T) {
	a := startIdle(t)
	made := a.Create("web", 1, 64, agent.PolicyLayer{})
	for round, args := range [][]string{{"--vm", "web"}, nil} { // and where the scheduler chooses
		v := announced(a, "web")
		a.Out(append(append([]string{"cloudlet", "run", "--memory", "16MiB"}, args...), "--", "true")...)
		systemtest.Until(t, "it is told that it stays", func() bool { return len(a.Events(v.ID, "vm.busy")) > round })
		if got := a.VM("web"); got.ID != made.ID || got.State != agent.VMRunning {
			t.Errorf("%+v", got)
		}
	}
	announced(a, "web")
	notice(a, 0)
	gone(a, "web")
}

func TestSystemIdlePoolMinimum(t *testing.T) {
	a := systemtest.Start(t, "--idle-after", "1s", "--idle-notice", "1s", "--idle-min-vms", "1")
	for _, name := range []string{"old", "young"} { // without a network: that of one is heard by the other
		a.Out("vm", "create", name, "--memory", "64MiB", "--network", "isolated")
	}
	a.Out("cloudlet", "run", "--vm", "young", "--", "true")
	gone(a, "old")
	systemtest.Until(t, "the last one is idle for longer than it takes", func() bool {
		since := a.VM("young").IdleSince
		return since != nil && time.Since(*since) > 4*time.Second
	})
	if v := a.VM("young"); v.Autoscale.DeleteAt != nil || v.State != agent.VMRunning {
		t.Errorf("the last one is to go: %+v", v)
	}
}

// An agent that dies in the notice forgets it: the next counts anew.
func TestSystemIdleNoticeDiesWithTheAgent(t *testing.T) {
	a := startIdle(t)
	a.Create("web", 1, 64, agent.PolicyLayer{})
	before := announced(a, "web")
	a.Kill()
	began := time.Now()
	a.Start()
	v, err := systemtest.Call[agent.VM](a, "GET", "/api/v1/vms/web", nil)
	early := v.Autoscale.DeleteAt != nil && v.IdleSince != nil && v.IdleSince.Before(began)
	if err != nil || v.ID != before.ID || early || v.IdleSince != nil && v.IdleSince.Before(began) {
		t.Errorf("after a restart: idle since %v, deleted at %v", v.IdleSince, v.Autoscale.DeleteAt)
	}
	again := announced(a, "web")
	if d := again.IdleSince.Sub(began); d < 0 {
		t.Errorf("counted from %v before the restart", -d)
	}
	notice(a, 0)
	gone(a, "web")
	if n := len(a.Events(v.ID, "vm.idle_deleted")); n != 1 {
		t.Errorf("deleted %d times", n)
	}
}

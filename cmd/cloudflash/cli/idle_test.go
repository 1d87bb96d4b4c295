package cli

import (
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
)

func TestIdleVMsAreShownWithWhatBecomesOfThem(t *testing.T) {
	since := time.Now().Add(-58*time.Second - 500*time.Millisecond)
	soon := time.Now().Add(32*time.Second + 900*time.Millisecond)
	for name, c := range map[string]struct {
		vm               agent.VM
		list, top, fated string
	}{
		"busy": {agent.VM{State: agent.VMRunning, Autoscale: agent.Autoscale{IdleAfterSeconds: 60, IdleNoticeSeconds: 30}},
			"-", "running", "deleted after 1m without a sign of life and 30s of notice"},
		"idle": {agent.VM{State: agent.VMRunning, IdleSince: &since, Autoscale: agent.Autoscale{IdleAfterSeconds: 3600}},
			"58s", "idle", "deleted after 1h without a sign of life and 0s of notice"},
		"announced": {agent.VM{State: agent.VMRunning, IdleSince: &since, Autoscale: agent.Autoscale{IdleAfterSeconds: 60, IdleNoticeSeconds: 30, DeleteAt: &soon}},
			"58s, deleted in 32s", "del 32s", "deleted after 1m without a sign of life and 30s of notice"},
		"kept":         {agent.VM{State: agent.VMRunning, IdleSince: &since, Autoscale: agent.Autoscale{Keep: true}}, "58s, kept", "idle", "it is kept"},
		"switched off": {agent.VM{State: agent.VMFrozen}, "-", "frozen", "idle VMs are not deleted"},
	} {
		if got := idleWord(c.vm); got != c.list {
			t.Errorf("%s: listed as %q, want %q", name, got, c.list)
		}
		if got := topState(c.vm); got != c.top {
			t.Errorf("%s: top has %q, want %q", name, got, c.top)
		}
		if got := fate(c.vm); got != c.fated {
			t.Errorf("%s: %q, want %q", name, got, c.fated)
		}
	}
}

func TestCreateSaysWhenTheVMGoes(t *testing.T) {
	r := withAll(t)
	r.agent.AutoscaleIs = agent.Autoscale{IdleAfterSeconds: 120, IdleNoticeSeconds: 15}
	want := "when idle, VM api is deleted after 2m without a sign of life and 15s of notice; to keep it: cloudflash vm set api --keep\n"
	if got := r.run("vm", "create", "api", "-o", "name"); got.Err != want || got.Out != "api\n" {
		t.Errorf("it says %q, want %q", got.Err, want)
	}
	r.agent.AutoscaleIs = agent.Autoscale{Keep: true}
	if got := r.run("vm", "create", "api", "--keep", "-o", "name"); got.Err != "" {
		t.Errorf("of a kept VM it says %q", got.Err)
	}
	if got := r.run("vm", "show", "db"); !strings.Contains(got.Out, "when idle   idle VMs are not deleted\n") {
		t.Errorf("vm show: %s", got.Out)
	}
}

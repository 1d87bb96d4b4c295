package agent

import (
	"testing"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"
)

// holding is a VM that uses 100 MiB of 256, of which its spec is 64: autoscaling has
// lent it the rest, and a core and a half besides.
func holding(t *testing.T, l *live) *vm.VM {
	t.Helper()
	made := l.create("web", Spec{CPUs: 0.5, MemoryBytes: 64 * mib})
	v := l.known(made.ID)
	lend(t, l, v, 256*mib, 2)
	c := l.submit(cloudlet.Submit{VM: "web", Argv: []string{"burn", "--cpus", "0", "--memory", "100MiB", "--seconds", "1000"}})
	l.state(c.ID, CloudletRunning)
	l.until(func() bool { now, _ := l.VM("web"); return now.Usage.MemoryBytes >= 100*mib }, "memory is used")
	return v
}

// lend stores limits as autoscaling does, and has the kernel keep them.
func lend(t *testing.T, l *live, v *vm.VM, bytes int64, cpus float64) {
	t.Helper()
	lease := v.Work()
	defer lease.Release()
	err := l.update(v, func(rec *vmRecord) {
		rec.Sized = scaling.Resized(rec, autoscale.Memory, float64(bytes), float64(bytes))
		rec.Sized = scaling.Resized(rec, autoscale.CPU, cpus, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.ApplyLimits(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// An agent that was killed after it stored that memory is to shrink, and before it
// was: meanwhile the VM has taken more.
func TestSystemRestartLeavesMemoryInUse(t *testing.T) {
	l := newLive(t)
	l.stop()
	l.cfg.Autoscale = "auto"
	l.start()
	v := holding(t, l)
	if err := l.update(v, func(rec *vmRecord) {
		rec.Sized = scaling.Resized(rec, autoscale.Memory, float64(72*mib), float64(70*mib))
	}); err != nil {
		t.Fatal(err)
	}
	l.stop()
	l.start()
	now, err := l.VM("web")
	if err != nil || now.State != VMRunning || now.Cloudlets != 1 {
		t.Fatalf("%s %s, %d cloudlets, %v", now.State, now.Reason, now.Cloudlets, err)
	}
	if k, err := l.parent.Slice(now.ID).Limits(); err != nil || *k.MemoryMax < 100*mib || *k.MemoryMax > 256*mib {
		t.Errorf("the kernel has %+v, %v", k, err)
	}
}

// What is not scaled any more is the spec's again, but for memory in use: that is not
// slowed down, and keeps nothing else as it was. So it is after a restart without
// autoscaling.
func TestSystemScalingThatIsTurnedOff(t *testing.T) {
	l := newLive(t)
	l.stop()
	l.cfg.Autoscale = "auto"
	l.start()
	v := holding(t, l)
	check := func(when string) {
		t.Helper()
		k, err := l.parent.Slice(v.ID).Limits()
		if err != nil || k.CPU.Quota*2 != k.CPU.Period || *k.MemoryMax < 100*mib || *k.MemoryHigh != cgroup.Max {
			t.Errorf("%s: cpu %+v, memory.max %d, memory.high %d, %v", when, *k.CPU, *k.MemoryMax, *k.MemoryHigh, err)
		}
	}
	off := PolicyLayer{Rules: map[string]RuleChange{policy.RuleAll: {Mode: new("off")}}}
	if _, err := l.ChangeVM(t.Context(), "web", VMChange{Autoscale: &off}); err != nil {
		t.Fatal(err)
	}
	check("turned off")
	if _, err := l.SetPolicy(t.Context(), "web", PolicyLayer{}, ""); err != nil {
		t.Fatal(err)
	}
	lend(t, l, v, 256*mib, 2)
	l.stop()
	l.cfg.Autoscale = "off"
	l.start()
	check("restarted")
}

// A VM that is connected anew, as after the death of its init, has the bandwidth that autoscaling has set.
func TestSystemLinkHasItsScaledBandwidth(t *testing.T) {
	l := newLive(t)
	made := l.create("wide", Spec{CPUs: 0.1, MemoryBytes: 32 * mib, BandwidthBPS: 5e6})
	v := l.known(made.ID)
	if err := l.update(v, func(rec *vmRecord) { rec.Sized = scaling.Resized(rec, autoscale.Bandwidth, 20e6, 0) }); err != nil {
		t.Fatal(err)
	}
	lease := v.Work()
	defer lease.Release()
	if err := lease.Connect(t.Context(), made.InitPID); err != nil {
		t.Fatal(err)
	}
	if err := lease.ReadLimits(); err != nil {
		t.Fatal(err)
	}
	if bps := v.Limits().BandwidthBPS; bps == nil || *bps != 20e6 {
		t.Errorf("the kernel has %v", bps)
	}
}

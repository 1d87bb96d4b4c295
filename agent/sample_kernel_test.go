package agent

import (
	"fmt"
	"testing"
)

// VMs that come, are metered and go leave no file open and no goroutine running.
func TestSystemMeteringLeavesNothing(t *testing.T) {
	l := newLive(t)
	round := func(n int) {
		for i := range n {
			name := fmt.Sprintf("m%d", i)
			v := l.create(name, small())
			c := l.sh(name, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
			l.until(func() bool {
				now, err := l.VM(v.ID)
				return err == nil && now.Usage.AnonBytes > 0 && now.Usage.Periods > 0
			}, "the VM is metered")
			if c = l.ended(c.ID); c.Usage.CPUSeconds <= 0 || c.Usage.UserSeconds <= 0 {
				t.Errorf("the cloudlet's usage is not kept: %+v", c.Usage)
			}
			if _, err := l.VMHistory(name, HistoryLongest, nil); err != nil {
				t.Error(err)
			}
			l.delete(name)
			if _, err := l.VMHistory(v.ID, HistoryLongest, nil); err == nil {
				t.Error("a deleted VM has a history")
			}
		}
	}
	settled := func() HostUsage {
		at := l.Snapshot().Seq
		l.until(func() bool { return l.Snapshot().Seq >= at+3 }, "three more pictures")
		return l.Snapshot().Host.Usage
	}
	round(2)
	before := settled()
	round(6)
	after := settled()
	if after.AgentDescriptors > before.AgentDescriptors+3 || after.AgentGoroutines > before.AgentGoroutines+6 {
		t.Errorf("%d files and %d goroutines before, %d and %d after six VMs", before.AgentDescriptors, before.AgentGoroutines, after.AgentDescriptors, after.AgentGoroutines)
	}
	for _, name := range []string{"host", "vms", "network", "storage", "pressure"} {
		if c, ok := after.Collectors[name]; !ok || !c.OK {
			t.Errorf("collector %s: %+v", name, c)
		}
	}
	if after.CPURatio <= 0 || after.MemoryUsedBytes <= 0 || after.StorageUsedBytes <= 0 || after.AgentCPUSeconds <= 0 {
		t.Errorf("%+v", after)
	}
}

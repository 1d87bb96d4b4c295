package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// VMs that come, are metered and go leave no file open and no goroutine running.
func TestSystemMeteringLeavesNothing(t *testing.T) {
	l := newLive(t)
	round := func(n int) {
		vms, runs := make([]VM, n), make([]Cloudlet, n)
		for i := range n {
			vms[i] = l.create(fmt.Sprintf("m%d", i), Spec{CPUs: 0.2, MemoryBytes: 128 * mib})
		}
		for i := range n {
			runs[i] = l.sh(vms[i].Name, "until [ -e /data/enough ]; do :; done")
		}
		for i, v := range vms {
			l.until(func() bool {
				now, err := l.VM(v.ID)
				return err == nil && now.Usage.AnonBytes > 0 && now.Usage.Periods > 0
			}, "the VM is metered")
			if err := os.WriteFile(filepath.Join(l.known(v.ID).DataDir(), "enough"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if c := l.ended(runs[i].ID); c.Usage.CPUSeconds <= 0 || c.Usage.UserSeconds <= 0 {
				t.Errorf("the cloudlet's usage is not kept: %+v", c.Usage)
			}
			if _, err := l.VMHistory(v.Name, HistoryLongest, nil); err != nil {
				t.Error(err)
			}
			l.delete(v.Name)
			if _, err := l.VMHistory(v.ID, HistoryLongest, nil); err == nil {
				t.Error("a deleted VM has a history")
			}
		}
	}
	usage := func() HostUsage {
		at := l.Snapshot().Seq
		l.until(func() bool { return l.Snapshot().Seq >= at+2 }, "two more pictures")
		return l.Snapshot().Host.Usage
	}
	round(2)
	before := usage()
	round(6)

	// Work that goes on behind a request may take its time to end, a collector may be late once: what leaks stays.
	var after HostUsage
	settled := func() bool {
		after = usage()
		for _, name := range []string{"host", "vms", "network", "storage", "pressure"} {
			if c, ok := after.Collectors[name]; !ok || !c.OK {
				return false
			}
		}
		return after.AgentDescriptors <= before.AgentDescriptors+3 && after.AgentGoroutines <= before.AgentGoroutines+6
	}
	for end := time.Now().Add(time.Minute); !settled(); {
		if time.Now().After(end) {
			t.Fatalf("%d files and %d goroutines before, %d and %d a minute after six VMs; collectors %+v", before.AgentDescriptors,
				before.AgentGoroutines, after.AgentDescriptors, after.AgentGoroutines, after.Collectors)
		}
	}
	if after.CPURatio <= 0 || after.MemoryUsedBytes <= 0 || after.StorageUsedBytes <= 0 || after.AgentCPUSeconds <= 0 {
		t.Errorf("%+v", after)
	}
}

package agent

import (
	"errors"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/store"

	"github.com/google/go-cmp/cmp"
)

// Advice for two resources of which the kernel cannot give one: neither is changed,
// and nothing is there to be undone.
func TestSystemRecommendAllOrNothing(t *testing.T) {
	l := newLive(t)
	v := l.create("web", Spec{CPUs: 1, MemoryBytes: 256 * mib})
	c := l.submit(cloudlet.Submit{VM: "web", Argv: []string{"burn", "--cpus", "0", "--memory", "100MiB", "--seconds", "1000"}})
	l.state(c.ID, CloudletRunning)
	l.until(func() bool { now, _ := l.VM("web"); return now.Usage.MemoryBytes >= 100*mib }, "memory is used")

	// As if it had never needed more than a few MiB.
	p := autoscale.NewProfile(time.Now().Add(-time.Hour))
	for i := range 3600 {
		p.Add(p.Born.Add(time.Duration(i)*time.Second), time.Second, autoscale.Limits{0.1, 10e6}, [autoscale.Resources]bool{autoscale.CPU: true, autoscale.Memory: true})
	}
	stored := map[string]any{"version": 1, "vm": v.ID, "used": p.Born, "profile": p}
	if err := l.store.Commit(store.Put(store.Profiles, "vm/"+v.ID, stored)); err != nil {
		t.Fatal(err)
	}
	l.advisor.Load()
	_, err := l.TakeAdvice(t.Context(), "web", []string{"cpus", "memory_bytes"})
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != "memory_in_use" {
		t.Fatalf("err = %v, want memory in use", err)
	}
	now, err := l.VM("web")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v.Spec, now.Spec); diff != "" {
		t.Errorf("the spec has changed (-before +after):\n%s", diff)
	}
	if got, err := l.parent.Slice(v.ID).Limits(); err != nil || *got.MemoryMax != 256*mib || got.CPU.Quota != got.CPU.Period {
		t.Errorf("the kernel has %+v, %v", got, err)
	}
	if _, err := l.UndoAdvice(t.Context(), "web"); !errors.Is(err, fault.ErrConflict) {
		t.Errorf("there is something to undo: %v", err)
	}
	if got := l.ended(l.sh("web", "echo lives").ID); got.State != CloudletSucceeded {
		t.Errorf("%s: %s", got.State, got.Reason)
	}
}

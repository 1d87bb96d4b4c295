package outcomes

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cloudflash/agent/state"
)

func record(started time.Time, stop string, deadline *time.Time) state.Cloudlet {
	r := state.Cloudlet{Stop: stop}
	r.SLA, r.DeadlineAt = state.SLAHigh, deadline
	if !started.IsZero() {
		r.StartedAt = &started
	}
	return r
}

func TestWaitsFallIntoBuckets(t *testing.T) {
	o := New()
	now := time.Now()
	for _, waited := range []time.Duration{-time.Minute, 10 * time.Millisecond, 11 * time.Millisecond, time.Hour} {
		r := record(now, "", nil)
		r.SubmittedBoot, r.StartedBoot = time.Hour, time.Hour+waited
		o.CloudletBegan(&r)
	}
	w := o.Waiting[state.SLAHigh]
	if w.Buckets[0] != 2 || w.Buckets[1] != 1 || w.Buckets[len(WaitingBounds)] != 1 {
		t.Errorf("buckets %v", w.Buckets)
	}
	if w.Seconds < 3600 || w.Seconds > 3601 {
		t.Errorf("%v seconds in all", w.Seconds)
	}
	c := o.Clone()
	c.Events["vm.created"]++
	if o.Events["vm.created"] != 0 {
		t.Error("a clone shares its counts")
	}
}

func TestDecisionsAreCounted(t *testing.T) {
	o := New()
	known := len(o.Scaling)
	if known != len(Scalings()) || known != 15*len(scaledResources) {
		t.Errorf("%d outcomes are counted from the start", known)
	}
	for _, d := range []state.Decision{
		{Resource: "cpus", Action: "grow", Result: state.DecisionApplied, KernelSeconds: .05},
		{Resource: "cpus", Action: "grow", Result: state.DecisionApplied, KernelSeconds: 60},
		{Resource: "cpus", Action: "shrink", Result: state.DecisionApplied, KernelSeconds: -1},
		{Resource: "cpus", Action: "grow", Result: state.DecisionInfeasible, KernelSeconds: 9}, // was not written
		{Resource: "wiops", Action: "drift", Result: state.DecisionNoticed},
	} {
		o.DecisionEnded(d)
	}
	if n := o.Scaling[ScaledOutcome{"cpus", "grow", state.DecisionApplied}]; n != 2 || len(o.Scaling) != known {
		t.Errorf("%d, and %d outcomes", n, len(o.Scaling))
	}
	if k := o.Kernel; k.Buckets[0] != 1 || k.Buckets[3] != 1 || k.Buckets[len(KernelBounds)] != 1 || k.Seconds != 60.05 {
		t.Errorf("%+v", k)
	}
	c := o.Clone()
	c.DecisionEnded(state.Decision{Resource: "cpus", Action: "grow", Result: state.DecisionApplied})
	if o.Scaling[ScaledOutcome{"cpus", "grow", state.DecisionApplied}] != 2 {
		t.Error("a clone shares its counts")
	}
}

// An alert on the rate of an event needs its count before the first of them.
func TestEveryEventIsCounted(t *testing.T) {
	var files []string
	for _, pattern := range []string{"../*.go", "../*/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	said, n := regexp.MustCompile(`Kind:\s+"([a-z_]+\.[a-z_]*[a-z])"`), 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range said.FindAllSubmatch(text, -1) {
			n++
			if !slices.Contains(countedKinds, string(kind[1])) {
				t.Errorf("%s: events %s are not counted", file, kind[1])
			}
		}
	}
	if n < len(countedKinds)-2 { // those of freezing are put together
		t.Errorf("only %d events were found", n)
	}
}

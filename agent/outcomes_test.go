package agent

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent/clock"
)

func TestEveryEndHasAnOutcome(t *testing.T) {
	now := time.Now()
	past := now.Add(-time.Second)
	end := clock.Moment{Boot: 2 * time.Second, Day: now}
	for name, test := range map[string]struct {
		rec  cloudletRecord
		end  ending
		want Outcome
	}{
		"code 0":                {rec: record(now, "", nil), want: Outcome{CloudletSucceeded, "done"}},
		"code 3":                {rec: record(now, "", nil), end: ending{code: 3}, want: Outcome{CloudletFailed, "exit_code"}},
		"a signal":              {rec: record(now, "", nil), end: ending{signal: syscall.SIGSEGV}, want: Outcome{CloudletFailed, "signal"}},
		"the OOM killer":        {rec: record(now, "", nil), end: ending{signal: syscall.SIGKILL, oom: true}, want: Outcome{CloudletFailed, "oom"}},
		"no such command":       {rec: record(time.Time{}, "", nil), end: ending{code: 127, reason: "command not found"}, want: Outcome{CloudletFailed, "not_started"}},
		"cancel":                {rec: record(now, stopCancel, nil), end: ending{signal: syscall.SIGTERM}, want: Outcome{CloudletCancelled, "request"}},
		"its VM is deleted":     {rec: record(now, stopDelete, nil), end: ending{signal: syscall.SIGKILL}, want: Outcome{CloudletCancelled, "vm_deleted"}},
		"killed at a deadline":  {rec: record(now, stopDeadline, &past), end: ending{signal: syscall.SIGTERM}, want: Outcome{CloudletDeadlineExceeded, "killed"}},
		"done after a deadline": {rec: record(now, "", &past), want: Outcome{CloudletDeadlineExceeded, "late"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.rec.DeadlineBoot = time.Second
			conclude(&test.rec, test.end, Usage{}, end)
			o := newOutcomes()
			o.ended(&test.rec)
			if o.Ended[test.want] != 1 {
				t.Errorf("counted %v, want %v", o.Ended, test.want)
			}
			if !slices.Contains(Endings, test.want) || len(o.Ended) != len(Endings) {
				t.Errorf("%v is not among the known", test.want)
			}
			if missed := o.Deadlines[SLAHigh].Missed == 1; missed != (test.rec.DeadlineAt != nil) {
				t.Errorf("deadlines %v", o.Deadlines)
			}
		})
	}
}

func record(started time.Time, stop string, deadline *time.Time) cloudletRecord {
	r := cloudletRecord{Stop: stop}
	r.SLA, r.DeadlineAt = SLAHigh, deadline
	if !started.IsZero() {
		r.StartedAt = &started
	}
	return r
}

func TestWaitsFallIntoBuckets(t *testing.T) {
	o := newOutcomes()
	now := time.Now()
	for _, waited := range []time.Duration{-time.Minute, 10 * time.Millisecond, 11 * time.Millisecond, time.Hour} {
		r := record(now, "", nil)
		r.SubmittedBoot, r.StartedBoot = time.Hour, time.Hour+waited
		o.began(&r)
	}
	w := o.Waiting[SLAHigh]
	if w.Buckets[0] != 2 || w.Buckets[1] != 1 || w.Buckets[len(WaitingBounds)] != 1 {
		t.Errorf("buckets %v", w.Buckets)
	}
	if w.Seconds < 3600 || w.Seconds > 3601 {
		t.Errorf("%v seconds in all", w.Seconds)
	}
	c := o.clone()
	c.Events["vm.created"]++
	if o.Events["vm.created"] != 0 {
		t.Error("a clone shares its counts")
	}
}

func TestDecisionsAreCounted(t *testing.T) {
	o := newOutcomes()
	known := len(o.Scaling)
	if known != len(Scalings()) || known != 15*len(scaledResources) {
		t.Errorf("%d outcomes are counted from the start", known)
	}
	for _, d := range []Decision{
		{Resource: "cpus", Action: "grow", Result: DecisionApplied, KernelSeconds: .05},
		{Resource: "cpus", Action: "grow", Result: DecisionApplied, KernelSeconds: 60},
		{Resource: "cpus", Action: "shrink", Result: DecisionApplied, KernelSeconds: -1},
		{Resource: "cpus", Action: "grow", Result: DecisionInfeasible, KernelSeconds: 9}, // was not written
		{Resource: "wiops", Action: "drift", Result: DecisionNoticed},
	} {
		o.scaled(d)
	}
	if n := o.Scaling[ScaledOutcome{"cpus", "grow", DecisionApplied}]; n != 2 || len(o.Scaling) != known {
		t.Errorf("%d, and %d outcomes", n, len(o.Scaling))
	}
	if k := o.Kernel; k.Buckets[0] != 1 || k.Buckets[3] != 1 || k.Buckets[len(KernelBounds)] != 1 || k.Seconds != 60.05 {
		t.Errorf("%+v", k)
	}
	c := o.clone()
	c.scaled(Decision{Resource: "cpus", Action: "grow", Result: DecisionApplied})
	if o.Scaling[ScaledOutcome{"cpus", "grow", DecisionApplied}] != 2 {
		t.Error("a clone shares its counts")
	}
}

// An alert on the rate of an event needs its count before the first of them.
func TestEveryEventIsCounted(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.go", "*/*.go"} {
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

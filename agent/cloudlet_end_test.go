package agent

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/outcomes"
)

func TestEveryEndHasAnOutcome(t *testing.T) {
	now := time.Now()
	past := now.Add(-time.Second)
	end := clock.Moment{Boot: 2 * time.Second, Day: now}
	for name, test := range map[string]struct {
		rec  cloudletRecord
		end  ending
		want outcomes.Ending
	}{
		"code 0":                {rec: record(now, "", nil), want: outcomes.Ending{CloudletSucceeded, "done"}},
		"code 3":                {rec: record(now, "", nil), end: ending{code: 3}, want: outcomes.Ending{CloudletFailed, "exit_code"}},
		"a signal":              {rec: record(now, "", nil), end: ending{signal: syscall.SIGSEGV}, want: outcomes.Ending{CloudletFailed, "signal"}},
		"the OOM killer":        {rec: record(now, "", nil), end: ending{signal: syscall.SIGKILL, oom: true}, want: outcomes.Ending{CloudletFailed, "oom"}},
		"no such command":       {rec: record(time.Time{}, "", nil), end: ending{code: 127, reason: "command not found"}, want: outcomes.Ending{CloudletFailed, "not_started"}},
		"cancel":                {rec: record(now, stopCancel, nil), end: ending{signal: syscall.SIGTERM}, want: outcomes.Ending{CloudletCancelled, "request"}},
		"its VM is deleted":     {rec: record(now, stopDelete, nil), end: ending{signal: syscall.SIGKILL}, want: outcomes.Ending{CloudletCancelled, "vm_deleted"}},
		"killed at a deadline":  {rec: record(now, stopDeadline, &past), end: ending{signal: syscall.SIGTERM}, want: outcomes.Ending{CloudletDeadlineExceeded, "killed"}},
		"done after a deadline": {rec: record(now, "", &past), want: outcomes.Ending{CloudletDeadlineExceeded, "late"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.rec.DeadlineBoot = time.Second
			conclude(&test.rec, test.end, Usage{}, end)
			o := outcomes.New()
			o.CloudletEnded(&test.rec)
			if o.Ended[test.want] != 1 {
				t.Errorf("counted %v, want %v", o.Ended, test.want)
			}
			if !slices.Contains(outcomes.Endings, test.want) || len(o.Ended) != len(outcomes.Endings) {
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

package cloudlet

import (
	"errors"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/fault"
	"cloudflash/agent/outcomes"
	"cloudflash/agent/state"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func TestSignalsHaveNamesAndNumbers(t *testing.T) {
	for n := syscall.Signal(1); n <= 64; n++ {
		if got := SignalNumber(SignalName(n)); got != n {
			t.Errorf("%d is %s, which is %d", n, SignalName(n), got)
		}
	}
	for _, name := range []string{"", "SIG", "SIGFOO", "34", "SIG0", "SIG9", "SIG65", "SIG-1", "SIG034", "sigterm"} {
		if got := SignalNumber(name); got != 0 {
			t.Errorf("%q is %d", name, got)
		}
	}
}

func TestSubmitChecksNameTheField(t *testing.T) {
	tests := map[string]struct {
		req     Submit
		pointer string
	}{
		"sla":             {Submit{SLA: 4}, "/sla"},
		"deadline NaN":    {Submit{DeadlineSeconds: math.NaN()}, "/deadline_seconds"},
		"deadline < 0":    {Submit{DeadlineSeconds: -1}, "/deadline_seconds"},
		"on_deadline":     {Submit{OnDeadline: "explode"}, "/on_deadline"},
		"name":            {Submit{Name: "../x"}, "/name"},
		"NUL in argv":     {Submit{Argv: []string{"a", "b\x00c"}}, "/argv/1"},
		"empty command":   {Submit{Argv: []string{""}}, "/argv/0"},
		"argv too long":   {Submit{Argv: []string{"a", strings.Repeat("x", 1<<20)}}, "/argv"},
		"env name":        {Submit{Env: map[string]string{"A=B": "1"}}, "/env"},
		"relative dir":    {Submit{WorkDir: "data"}, "/workdir"},
		"negative memory": {Submit{Request: state.Request{MemoryBytes: -1}}, "/request/memory_bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var e *fault.Error
			if err := tt.req.WithDefaults().Check(); !errors.As(err, &e) || e.Fields[0].Pointer != tt.pointer {
				t.Errorf("err = %v, want one about %s", err, tt.pointer)
			}
		})
	}
	if err := (Submit{}).WithDefaults().Check(); err != nil {
		t.Errorf("an empty submit means burn, yet: %v", err)
	}
}

func TestConclude(t *testing.T) {
	deadline := time.Unix(100, 0)
	plain := state.Cloudlet{State: state.CloudletRunning}
	late := plain
	late.DeadlineAt, late.DeadlineBoot = &deadline, 100*time.Second
	killed := late
	killed.Stop = state.StopDeadline
	cancelled := plain
	cancelled.Stop = state.StopCancel
	tests := map[string]struct {
		rec     state.Cloudlet
		end     End
		at      int64
		state   state.CloudletState
		reason  string
		signal  string
		overrun float64
	}{
		"exit 0":                            {plain, End{}, 90, state.CloudletSucceeded, "", "", 0},
		"exit 3":                            {plain, End{Code: 3}, 90, state.CloudletFailed, "exit code 3", "", 0},
		"a signal":                          {plain, End{Signal: syscall.SIGSEGV}, 90, state.CloudletFailed, "killed by SIGSEGV", "SIGSEGV", 0},
		"out of memory, never a bare 9":     {plain, End{Signal: syscall.SIGKILL, OOM: true}, 90, state.CloudletFailed, "oom", "SIGKILL", 0},
		"a child was OOM-killed, it failed": {plain, End{Code: 1, OOM: true}, 90, state.CloudletFailed, "oom", "", 0},
		"a child was OOM-killed, it coped":  {plain, End{OOM: true}, 90, state.CloudletSucceeded, "", "", 0},
		"in time":                           {late, End{}, 99, state.CloudletSucceeded, "", "", 0},
		"late but allowed to finish":        {late, End{}, 103, state.CloudletDeadlineExceeded, "finished after its deadline", "", 3},
		"late and failed":                   {late, End{Code: 1}, 103, state.CloudletFailed, "exit code 1", "", 3},
		"killed at the deadline": {killed, End{Signal: syscall.SIGTERM}, 101,
			state.CloudletDeadlineExceeded, "killed at its deadline", "SIGTERM", 1},
		"cancelled":      {cancelled, End{Signal: syscall.SIGTERM}, 50, state.CloudletCancelled, "cancelled", "SIGTERM", 0},
		"not executable": {plain, End{Code: 126, Reason: "cannot execute"}, 50, state.CloudletFailed, "cannot execute", "", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := tt.rec
			Conclude(&r, tt.end, state.Usage{CPUSeconds: 7}, clock.Moment{Boot: time.Duration(tt.at) * time.Second, Day: time.Unix(tt.at, 0)})
			if r.State != tt.state || r.Reason != tt.reason || r.Signal != tt.signal || r.OverrunSeconds != tt.overrun {
				t.Errorf("got %s %q signal %q overrun %v", r.State, r.Reason, r.Signal, r.OverrunSeconds)
			}
			if (r.ExitCode == nil) != (tt.end.Signal != 0) {
				t.Errorf("exit code %v beside signal %q", r.ExitCode, r.Signal)
			}
			if r.Usage.CPUSeconds != 7 || r.FinishedAt == nil {
				t.Error("usage or time is missing")
			}
		})
	}
}

func TestRebase(t *testing.T) {
	started := noon.Add(10 * time.Second)
	stored := state.Cloudlet{Boot: "before", SubmittedBoot: 5 * time.Hour, DeadlineBoot: 5*time.Hour + 100*time.Second}
	stored.CreatedAt, stored.StartedAt, stored.DeadlineSeconds = noon, &started, 100
	stored.DeadlineAt = new(noon.Add(100 * time.Second))
	old := stored // by an agent that knew times of day only
	old.Boot, old.SubmittedBoot, old.DeadlineBoot = "", 0, 0

	for what, c := range map[string]struct {
		rec  state.Cloudlet
		now  clock.Moment
		left time.Duration
	}{
		"the same boot":                {stored, clock.Moment{Boot: 5*time.Hour + 40*time.Second, Day: noon.Add(time.Hour)}, 60 * time.Second},
		"after a reboot":               {stored, clock.Moment{Boot: 20 * time.Second, Day: noon.Add(70 * time.Second)}, 30 * time.Second},
		"too late after a reboot":      {stored, clock.Moment{Boot: 20 * time.Second, Day: noon.Add(170 * time.Second)}, -70 * time.Second},
		"a clock set back by a reboot": {stored, clock.Moment{Boot: 20 * time.Second, Day: noon.Add(-24 * time.Hour)}, 100 * time.Second},
		"of an agent of before":        {old, clock.Moment{Boot: 7 * time.Hour, Day: noon.Add(70 * time.Second)}, 30 * time.Second},
	} {
		r := c.rec
		boot := "before"
		if c.rec.Boot == "" || c.now.Boot < time.Hour {
			boot = "now"
		}
		Rebase(&r, c.now, boot)
		if left := r.DeadlineBoot - c.now.Boot; r.Boot != boot || left != c.left {
			t.Errorf("%s: %v are left, want %v", what, left, c.left)
		}
		again := r
		Rebase(&again, clock.Moment{Boot: c.now.Boot + time.Hour, Day: noon}, boot)
		if again.DeadlineBoot != r.DeadlineBoot || again.SubmittedBoot != r.SubmittedBoot {
			t.Errorf("%s: it is not left alone the second time", what)
		}
	}
}

func TestEveryEndHasAnOutcome(t *testing.T) {
	now := time.Now()
	past := now.Add(-time.Second)
	end := clock.Moment{Boot: 2 * time.Second, Day: now}
	for name, test := range map[string]struct {
		rec  state.Cloudlet
		end  End
		want outcomes.Ending
	}{
		"code 0": {rec: record(now, "", nil), want: outcomes.Ending{State: state.CloudletSucceeded, Reason: "done"}},
		"code 3": {rec: record(now, "", nil), end: End{Code: 3},
			want: outcomes.Ending{State: state.CloudletFailed, Reason: "exit_code"}},
		"a signal": {rec: record(now, "", nil), end: End{Signal: syscall.SIGSEGV},
			want: outcomes.Ending{State: state.CloudletFailed, Reason: "signal"}},
		"the OOM killer": {rec: record(now, "", nil), end: End{Signal: syscall.SIGKILL, OOM: true},
			want: outcomes.Ending{State: state.CloudletFailed, Reason: "oom"}},
		"no such command": {rec: record(time.Time{}, "", nil),
			end: End{Code: 127, Reason: "command not found"}, want: outcomes.Ending{State: state.CloudletFailed,
				Reason: "not_started"}},
		"cancel": {rec: record(now, state.StopCancel, nil), end: End{Signal: syscall.SIGTERM},
			want: outcomes.Ending{State: state.CloudletCancelled, Reason: "request"}},
		"its VM is deleted": {rec: record(now, state.StopDelete, nil), end: End{Signal: syscall.SIGKILL},
			want: outcomes.Ending{State: state.CloudletCancelled, Reason: "vm_deleted"}},
		"killed at a deadline": {rec: record(now, state.StopDeadline, &past), end: End{Signal: syscall.SIGTERM},
			want: outcomes.Ending{State: state.CloudletDeadlineExceeded, Reason: "killed"}},
		"done after a deadline": {rec: record(now, "", &past), want: outcomes.Ending{State: state.CloudletDeadlineExceeded, Reason: "late"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.rec.DeadlineBoot = time.Second
			Conclude(&test.rec, test.end, state.Usage{}, end)
			o := outcomes.New()
			o.CloudletEnded(&test.rec)
			if o.Ended[test.want] != 1 {
				t.Errorf("counted %v, want %v", o.Ended, test.want)
			}
			if !slices.Contains(outcomes.Endings, test.want) || len(o.Ended) != len(outcomes.Endings) {
				t.Errorf("%v is not among the known", test.want)
			}
			if missed := o.Deadlines[state.SLAHigh].Missed == 1; missed != (test.rec.DeadlineAt != nil) {
				t.Errorf("deadlines %v", o.Deadlines)
			}
		})
	}
}

func record(started time.Time, stop string, deadline *time.Time) state.Cloudlet {
	r := state.Cloudlet{Stop: stop}
	r.SLA, r.DeadlineAt = state.SLAHigh, deadline
	if !started.IsZero() {
		r.StartedAt = &started
	}
	return r
}

package agent

import (
	"testing"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/state"
)

// A clock that is set moves what is shown, and nothing that is due.
func TestDeadlinesDoNotFollowTheClock(t *testing.T) {
	a := bare(t)
	a.cfg.Grace = 10 * time.Second
	a.boot = "one"
	rec := cloudlet.Submit{Name: "c", DeadlineSeconds: 600}.WithDefaults().Record("", a.boot, clock.Now())
	rec.State, rec.StartedAt, rec.StartedBoot = CloudletRunning, new(rec.CreatedAt.Add(time.Second)), rec.SubmittedBoot+time.Second

	a.must(t, func(tx *state.Tx) { tx.PutCloudlet(rec) })
	if due := a.enforceDeadlines(rec.SubmittedBoot); due != 600*time.Second {
		t.Errorf("due %v after it was submitted", due)
	}
	stopped := rec
	stopped.Stop, stopped.StoppingBoot = stopCancel, rec.SubmittedBoot+20*time.Second
	a.must(t, func(tx *state.Tx) { tx.PutCloudlet(stopped) })
	if due := a.enforceDeadlines(rec.SubmittedBoot); due != 30*time.Second {
		t.Errorf("killed %v after it was submitted", due)
	}

	for what, set := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour, "hardly": 300 * time.Millisecond} {
		r := rec
		end := clock.Moment{Boot: rec.SubmittedBoot + 590*time.Second, Day: rec.CreatedAt.Add(590*time.Second + set)}
		cloudlet.Conclude(&r, cloudlet.End{}, Usage{}, end)
		if r.State != CloudletSucceeded || r.OverrunSeconds != 0 {
			t.Errorf("%s, in time: %s, overrun %v", what, r.State, r.OverrunSeconds)
		}
		if left := r.DeadlineAt.Sub(*r.FinishedAt); left < 9*time.Second || left > 11*time.Second {
			t.Errorf("%s: %v were left by what is shown, of 10 s", what, left)
		}
		if took := r.FinishedAt.Sub(*r.StartedAt); took < 588*time.Second || took > 590*time.Second {
			t.Errorf("%s: it took %v by what is shown, of 589 s", what, took)
		}
		if took := r.FinishedAt.Sub(r.CreatedAt); took < 589*time.Second || took > 591*time.Second {
			t.Errorf("%s: it ended %v after it was submitted by what is shown, of 590 s", what, took)
		}
		r = rec
		end.Boot += 13 * time.Second
		cloudlet.Conclude(&r, cloudlet.End{}, Usage{}, end)
		if r.State != CloudletDeadlineExceeded || r.OverrunSeconds != 3 {
			t.Errorf("%s, late: %s, overrun %v", what, r.State, r.OverrunSeconds)
		}
	}
}

package agent

import (
	"testing"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/state"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// A clock that is set moves what is shown, and nothing that is due.
func TestDeadlinesDoNotFollowTheClock(t *testing.T) {
	a := bare(t)
	a.cfg.Grace = 10 * time.Second
	a.boot = "one"
	rec := CloudletSubmit{Name: "c", DeadlineSeconds: 600}.withDefaults().record("", a.boot)
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
		conclude(&r, ending{}, Usage{}, end)
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
		conclude(&r, ending{}, Usage{}, end)
		if r.State != CloudletDeadlineExceeded || r.OverrunSeconds != 3 {
			t.Errorf("%s, late: %s, overrun %v", what, r.State, r.OverrunSeconds)
		}
	}
}

func TestRebase(t *testing.T) {
	started := noon.Add(10 * time.Second)
	stored := cloudletRecord{Boot: "before", SubmittedBoot: 5 * time.Hour, DeadlineBoot: 5*time.Hour + 100*time.Second}
	stored.CreatedAt, stored.StartedAt, stored.DeadlineSeconds = noon, &started, 100
	stored.DeadlineAt = new(noon.Add(100 * time.Second))
	old := stored // by an agent that knew times of day only
	old.Boot, old.SubmittedBoot, old.DeadlineBoot = "", 0, 0

	for what, c := range map[string]struct {
		rec  cloudletRecord
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
		rebase(&r, c.now, boot)
		if left := r.DeadlineBoot - c.now.Boot; r.Boot != boot || left != c.left {
			t.Errorf("%s: %v are left, want %v", what, left, c.left)
		}
		again := r
		rebase(&again, clock.Moment{Boot: c.now.Boot + time.Hour, Day: noon}, boot)
		if again.DeadlineBoot != r.DeadlineBoot || again.SubmittedBoot != r.SubmittedBoot {
			t.Errorf("%s: it is not left alone the second time", what)
		}
	}
}

package cloudlet

import (
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/state"
)

// Rebase makes the times of a record those of this boot. Of what was stored
// under another one, or by an agent that did not store them, only the time of
// day is known.
func Rebase(r *state.Cloudlet, m clock.Moment, boot string) {
	if r.Boot == boot {
		return
	}
	r.Boot = boot
	r.SubmittedBoot = m.Boot - m.Day.Sub(r.CreatedAt)
	r.StoppingBoot = m.Boot // the grace begins anew
	if r.StartedAt != nil {
		r.StartedBoot = m.Boot - m.Day.Sub(*r.StartedAt)
	}
	if r.DeadlineAt != nil {
		left := min(r.DeadlineAt.Sub(m.Day), seconds(r.DeadlineSeconds)) // the clock may have been set back
		r.DeadlineBoot = m.Boot + left
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

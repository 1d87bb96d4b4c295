package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// A moment is one on two clocks. What must happen within a time is worked out
// on the first, which nobody can set and which runs on while the machine is
// suspended. The second is for showing: it may be set at any moment, and so two
// times of it are never subtracted or compared.
type moment struct {
	boot time.Duration // CLOCK_BOOTTIME, since the machine booted
	day  time.Time     // UTC
}

func now() moment { return moment{sinceBoot(), time.Now().UTC()} }

// sinceBoot reads the first clock.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // Linux has it since 2.6.39
	return time.Duration(ts.Nano())
}

// bootOf is when something was, on the first clock, of which only the time of
// day is known: exact unless the clock has been set since, and neither before
// from nor after m in any case.
func (m moment) bootOf(day time.Time, from time.Duration) time.Duration {
	return max(min(m.boot-m.day.Sub(day), m.boot), from)
}

// dayOf is what the time of day is, or will be, at a time of the first clock. A
// time that was worked out before is kept, unless the clock has been set since.
func (m moment) dayOf(boot time.Duration, before time.Time) time.Time {
	at := m.day.Add(boot - m.boot)
	if d := at.Sub(before); d > -time.Second && d < time.Second {
		return before
	}
	return at.Round(time.Second)
}

// rebase makes the times of a record those of this boot. Of what was stored
// under another one, or by an agent that did not store them, only the time of
// day is known.
func rebase(r *cloudletRecord, m moment, boot string) {
	if r.Boot == boot {
		return
	}
	r.Boot = boot
	r.SubmittedBoot = m.boot - m.day.Sub(r.CreatedAt)
	r.StoppingBoot = m.boot // the grace begins anew
	if r.StartedAt != nil {
		r.StartedBoot = m.boot - m.day.Sub(*r.StartedAt)
	}
	if r.DeadlineAt != nil {
		left := min(r.DeadlineAt.Sub(m.day), seconds(r.DeadlineSeconds)) // the clock may have been set back
		r.DeadlineBoot = m.boot + left
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Package clock reads the time of day, which is for showing, along with a clock that
// nobody can set, which is for everything that must happen within a time.
package clock

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Moment is one on two clocks. What must happen within a time is worked out
// on the first, which nobody can set and which runs on while the machine is
// suspended. The second is for showing: it may be set at any moment, and so two
// times of it are never subtracted or compared.
type Moment struct {
	Boot time.Duration // CLOCK_BOOTTIME, since the machine booted
	Day  time.Time     // UTC
}

// Now reads both.
func Now() Moment { return Moment{SinceBoot(), time.Now().UTC()} }

// SinceBoot reads the first clock.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // Linux has it since 2.6.39
	return time.Duration(ts.Nano())
}

// BootOf is when something was, on the first clock, of which only the time of
// day is known: exact unless the clock has been set since, and neither before
// from nor after m in any case.
func (m Moment) BootOf(day time.Time, from time.Duration) time.Duration {
	return max(min(m.Boot-m.Day.Sub(day), m.Boot), from)
}

// DayOf is what the time of day is, or will be, at a time of the first clock. A
// time that was worked out before is kept, unless the clock has been set since.
func (m Moment) DayOf(boot time.Duration, before time.Time) time.Time {
	at := m.Day.Add(boot - m.Boot)
	if d := at.Sub(before); d > -time.Second && d < time.Second {
		return before
	}
	return at.Round(time.Second)
}

// began is when this program was started.
var began = Now()

// Steady is a time for those who reckon with times: it was the time of day when this
// program began, and has gone on by the first clock since, whatever was set meanwhile.
func Steady() time.Time { return began.Day.Add(SinceBoot() - began.Boot) }

// ToSteady is when something was by Steady, of which time.Now has told when it was: that
// has a reading of the monotonic clock.
func ToSteady(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return Steady().Add(-time.Since(t)).Round(0)
}

// BootID is that of this boot of the machine: times of the first clock are of use only
// along with it.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// Package idle tells how long a VM has shown no sign of life. It is pure: what was
// seen, and when, goes in; no clock, no I/O, no logger.
package idle

import "time"

const (
	// CPUs is how many cores a VM with no cloudlet may use and still be idle.
	CPUs = 0.01
	// Gap is how long nobody may look without that being doubt.
	Gap = 5 * time.Second
	// noise bytes in window are none: neighbour discovery, multicast reports, a broadcast
	// on the bridge. More is traffic, or block IO.
	noise  = 1000
	window = 10 * time.Second
)

// Signs are what one look at a VM tells.
type Signs struct {
	Busy        string // what is known to go on in it, or cannot be told; empty for nothing
	CPUs        float64
	IO, Traffic uint64 // bytes in all
}

// A Watch tells how long a VM has shown no sign of life. All it counts with are
// monotonic times: no step of the clock makes a VM idle. Its zero value has
// never looked.
type Watch struct {
	Last   time.Time // of the last sign, or when there was doubt
	Sign   string    // what the newest look saw; empty for none
	Lately string    // what was seen at last

	Announced time.Time // when the VM's end was; zero while it is not
	Told      time.Time // when it was the last time
	// What is shown, by the wall clock.
	Since, DeleteAt time.Time

	looked  time.Time
	io      flow
	traffic flow
}

// Look takes what was found now. Any doubt is a sign of life.
func (w *Watch) Look(now time.Time, s Signs) {
	gap := !w.looked.IsZero() && now.Sub(w.looked) > Gap
	moved, sent := w.io.moved(now, s.IO), w.traffic.moved(now, s.Traffic)
	switch {
	case s.Busy != "":
		w.Touch(now, s.Busy)
	case w.Last.IsZero():
		w.Touch(now, "it has been watched only since now")
	case gap:
		w.Touch(now, "the agent had lost sight of it")
	case !(s.CPUs < CPUs): // NaN is doubt
		w.Touch(now, "its processes run")
	case moved:
		w.Touch(now, "it reads or writes files")
	case sent:
		w.Touch(now, "it has network traffic")
	default:
		w.Sign = ""
	}
	w.looked = now
	w.Since = Shown(w.Since, now, w.Last)
}

// Touch notes a sign of life.
func (w *Watch) Touch(now time.Time, sign string) { w.Last, w.Sign, w.Lately = now, sign, sign }

// For is how long there has been no sign, 0 while there is one.
func (w *Watch) For(now time.Time) time.Duration {
	if w.Last.IsZero() || w.Sign != "" {
		return 0
	}
	return now.Sub(w.Last)
}

// Shown is the wall clock's word for a monotonic time. It stays the same until
// the clock is stepped.
func Shown(shown, now, at time.Time) time.Time {
	t := now.Round(0).Add(at.Sub(now)).UTC()
	if d := t.Sub(shown); d > -time.Second && d < time.Second {
		return shown
	}
	return t
}

// flow is a count of bytes and where it was when the present window began.
type flow struct {
	at    time.Time
	total uint64
}

// moved reports whether more than noise has flowed in the window.
func (f *flow) moved(now time.Time, total uint64) bool {
	known := !f.at.IsZero()
	more := known && (total < f.total || total-f.total > noise)
	if !known || more || now.Sub(f.at) >= window {
		f.at, f.total = now, total
	}
	return more
}

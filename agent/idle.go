package agent

import "time"

const (
	// idleCPUs is how many cores a VM with no cloudlet may use and still be idle.
	idleCPUs = 0.01
	// idleFlow bytes in idleWindow are noise: neighbour discovery, multicast reports,
	// a broadcast on the bridge. More is traffic, or block IO.
	idleFlow   = 1000
	idleWindow = 10 * time.Second
	// idleStale is the age at which a sample tells nothing of now.
	idleStale = 3 * time.Second
	// idleIOStale is the same of io.stat: that of a quiet VM is read every 10 s.
	idleIOStale = 15 * time.Second
	// idleGap is how long nobody may look without that being doubt.
	idleGap = 5 * time.Second
)

// signs are what one look at a VM tells.
type signs struct {
	busy        string // what is known to go on in it, or cannot be told; empty for nothing
	cpus        float64
	io, traffic uint64 // bytes in all
}

// idler tells how long a VM has shown no sign of life. All it counts with are
// monotonic times: no step of the clock makes a VM idle. Its zero value has
// never looked.
type idler struct {
	last    time.Time // of the last sign, or when there was doubt
	sign    string    // what the newest look saw; empty for none
	lately  string    // what was seen at last
	looked  time.Time
	io      flow
	traffic flow

	announced time.Time // zero while it is not
	told      time.Time // when it was last
	// What is shown, by the wall clock.
	since, deleteAt time.Time
}

// look takes what was found now. Any doubt is a sign of life.
func (i *idler) look(now time.Time, s signs) {
	gap := !i.looked.IsZero() && now.Sub(i.looked) > idleGap
	moved, sent := i.io.moved(now, s.io), i.traffic.moved(now, s.traffic)
	switch {
	case s.busy != "":
		i.touch(now, s.busy)
	case i.last.IsZero():
		i.touch(now, "it has been watched only since now")
	case gap:
		i.touch(now, "the agent had lost sight of it")
	case !(s.cpus < idleCPUs): // NaN is doubt
		i.touch(now, "its processes run")
	case moved:
		i.touch(now, "it reads or writes files")
	case sent:
		i.touch(now, "it has network traffic")
	default:
		i.sign = ""
	}
	i.looked = now
	i.since = settle(i.since, now, i.last)
}

// touch notes a sign of life.
func (i *idler) touch(now time.Time, sign string) { i.last, i.sign, i.lately = now, sign, sign }

// idle is how long there has been no sign, 0 while there is one.
func (i *idler) idle(now time.Time) time.Duration {
	if i.last.IsZero() || i.sign != "" {
		return 0
	}
	return now.Sub(i.last)
}

// settle is the wall clock's word for a monotonic time. It stays the same until
// the clock is stepped.
func settle(shown, now, at time.Time) time.Time {
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
	more := known && (total < f.total || total-f.total > idleFlow)
	if !known || more || now.Sub(f.at) >= idleWindow {
		f.at, f.total = now, total
	}
	return more
}

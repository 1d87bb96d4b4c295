package advice

import (
	"time"

	"cloudflash/agent/state"
)

// ShortestSpan is how long at least, as a rule, a VM is watched until it is told what
// ails it: less is chance. More than five minutes are past.
const ShortestSpan = time.Minute

const (
	longestSpan = 5 * time.Minute
	markEvery   = 15 * time.Second
)

// A mark is what counters were at some time. Times are in seconds.
type mark struct {
	at                                                  time.Time
	cpu, cpuWaiting, cpuStalled, memoryWaiting, ioWaits float64
	periods, throttled, refaults, kills                 int64
	swap, workingSet                                    int64
}

func markOf(u *state.Usage) mark {
	return mark{at: u.At, cpu: u.CPUSeconds, cpuWaiting: u.CPUWaitingSeconds, cpuStalled: u.CPUStalledSeconds,
		memoryWaiting: u.MemoryWaitingSeconds, ioWaits: u.IOWaitingSeconds,
		periods: u.Periods, throttled: u.ThrottledPeriods, refaults: u.Refaults, kills: u.OOMKills,
		swap: u.SwapBytes, workingSet: u.WorkingSetBytes}
}

// recent remembers the counters of the last five minutes, one mark in fifteen seconds,
// and those of now.
type recent struct {
	marks [longestSpan/markEvery + 1]mark
	next  int // where the next mark goes: the oldest is there when all are in use
	last  mark
}

func (r *recent) add(m mark) {
	if !m.at.After(r.last.at) {
		if m.at.Before(r.last.at) {
			*r = recent{} // the clock was set back: nothing before can be told from what comes
		}
		r.last = m
		return
	}
	newest := r.marks[(r.next+len(r.marks)-1)%len(r.marks)]
	if m.at.Sub(newest.at) >= markEvery {
		r.marks[r.next] = m
		r.next = (r.next + 1) % len(r.marks)
	}
	r.last = m
}

// lately is what happened between two marks: shares of the time, and rates.
type lately struct {
	span                                                 time.Duration
	cpus, throttled, cpuWaiting, cpuStalled              float64
	memoryWaiting, ioWaiting, refaultsPerSec, swapGrowth float64 // swap: bytes per second
	kills                                                int64
	swap, workingSet                                     float64
}

// lately compares now with the oldest mark that is not too old. One that is younger than
// least tells nothing.
func (r *recent) lately(least time.Duration) (s lately, ok bool) {
	var from *mark
	for i := range r.marks {
		m := &r.marks[(r.next+i)%len(r.marks)]
		if age := r.last.at.Sub(m.at); !m.at.IsZero() && age <= longestSpan {
			from = m
			break
		}
	}
	if from == nil || r.last.at.Sub(from.at) < least {
		return s, false
	}
	span := r.last.at.Sub(from.at)
	rate := func(before, now float64) float64 { return max(now-before, 0) / span.Seconds() }
	share := func(before, now float64) float64 { return min(rate(before, now), 1) }
	s = lately{span: span, cpus: rate(from.cpu, r.last.cpu), cpuWaiting: share(from.cpuWaiting, r.last.cpuWaiting),
		cpuStalled: share(from.cpuStalled, r.last.cpuStalled), memoryWaiting: share(from.memoryWaiting, r.last.memoryWaiting),
		ioWaiting: share(from.ioWaits, r.last.ioWaits), refaultsPerSec: rate(float64(from.refaults), float64(r.last.refaults)),
		swapGrowth: float64(r.last.swap-from.swap) / span.Seconds(), kills: max(r.last.kills-from.kills, 0),
		swap: float64(r.last.swap), workingSet: float64(r.last.workingSet)}
	if periods := r.last.periods - from.periods; periods > 0 {
		s.throttled = min(max(float64(r.last.throttled-from.throttled), 0)/float64(periods), 1)
	}
	return s, true
}

package meter

import (
	"log/slog"
	"time"
)

const (
	// lateness is how far apart two samples of consecutive seconds may be: the
	// sampler wakes now early and now late in its second.
	lateness = 1500 * time.Millisecond
	// stepped is from where on a change of the clock is a step. Less is slewing.
	stepped = 2 * time.Second
)

// timeline turns the times of samples into the unix seconds that they stand for.
type timeline struct {
	log  *slog.Logger
	last time.Time
	wall time.Time // the same, by the clock that may be set
	sec  int64
}

// advance returns the seconds that a sample of now stands for, both included:
// mostly one, two when the sampler has just missed one. A clock that is set
// forward leaves a gap; one that is set back is for the history to judge.
func (t *timeline) advance(now time.Time) (from, to int64) {
	elapsed := now.Sub(t.last) // by the clock that nobody sets
	t.last = now
	return t.seconds(now.Round(0), elapsed)
}

func (t *timeline) seconds(wall time.Time, elapsed time.Duration) (from, to int64) {
	sec := wall.Unix()
	if t.wall.IsZero() {
		t.wall, t.sec = wall, sec
		return sec, sec
	}
	step := wall.Sub(t.wall) - elapsed
	from = sec
	switch {
	case step > stepped || step < -stepped:
		t.log.Warn("the clock was set", "by", step.Round(time.Millisecond))
	case sec < t.sec:
		from, sec = t.sec, t.sec
	case sec == t.sec+2 && elapsed < lateness:
		from = sec - 1
	}
	t.wall, t.sec = wall, sec
	return from, sec
}

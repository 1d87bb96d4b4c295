package idle

import (
	"math"
	"strings"
	"testing"
	"time"
)

// instant is one look of a table test: so long after the last, and what it finds.
type instant struct {
	after time.Duration
	signs Signs
	idle  time.Duration // it finds
}

func TestSignsOfLife(t *testing.T) {
	quiet := Signs{}
	for name, looks := range map[string][]instant{
		"nothing goes on": {{0, quiet, 0}, {1 * time.Second, quiet, 1 * time.Second}, {time.Second, quiet, 2 * time.Second}},
		"a cloudlet": {
			{0, quiet, 0},
			{time.Second, quiet, time.Second},
			{time.Second, Signs{Busy: "a cloudlet is in it"}, 0},
			{time.Second, quiet, time.Second},
		},
		"1 % of a core":             {{0, quiet, 0}, {time.Second, Signs{CPUs: 0.01}, 0}, {time.Second, Signs{CPUs: 0.0099}, time.Second}},
		"CPU use that is no number": {{0, quiet, 0}, {time.Second, Signs{CPUs: math.NaN()}, 0}},
		"a gap of 5 s":              {{0, quiet, 0}, {5 * time.Second, quiet, 5 * time.Second}},
		"a gap of more":             {{0, quiet, 0}, {5*time.Second + 1, quiet, 0}, {time.Second, quiet, time.Second}},
		"traffic": {{0, Signs{Traffic: 1 << 40}, 0}, {time.Second, Signs{Traffic: 1<<40 + 1000}, time.Second},
			{time.Second, Signs{Traffic: 1<<40 + 1001}, 0}, {time.Second, Signs{Traffic: 1<<40 + 1001}, time.Second}},
		"IO": {
			{0, Signs{IO: 7}, 0},
			{time.Second, Signs{IO: 4096}, 0},
			{time.Second, Signs{IO: 4096}, time.Second},
		},
		"traffic in 10 s is put together": {
			{0, quiet, 0},
			{5 * time.Second, Signs{Traffic: 600}, 5 * time.Second},
			{4 * time.Second, Signs{Traffic: 1200}, 0},
		},
		"noise is not": {
			{0, quiet, 0},
			{5 * time.Second, Signs{Traffic: 450}, 5 * time.Second},
			{5 * time.Second, Signs{Traffic: 900}, 10 * time.Second},
			{5 * time.Second, Signs{Traffic: 1350}, 15 * time.Second},
			{5 * time.Second, Signs{Traffic: 1800}, 20 * time.Second},
		},
		"a counter goes back": {{0, Signs{Traffic: 5000}, 0}, {time.Second, quiet, 0}, {time.Second, quiet, time.Second}},
		"what a cloudlet moved is not counted twice": {{0, Signs{Busy: "a cloudlet is in it"}, 0}, {time.Second, Signs{Busy: "a cloudlet is in it", IO: 1 << 20}, 0},
			{time.Second, Signs{IO: 1 << 20}, time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			var w Watch
			now := time.Now()
			for n, m := range looks {
				now = now.Add(m.after)
				w.Look(now, m.signs)
				if got := w.For(now); got != m.idle {
					t.Errorf("look %d: idle for %v, want %v (%s)", n, got, m.idle, w.Sign)
				}
				if (w.Sign == "") != (m.idle > 0) {
					t.Errorf("look %d: %q", n, w.Sign)
				}
			}
		})
	}
}

// The wall clock is stepped by an hour, forth and back: what is counted stays, what
// is shown follows.
func TestStepsOfTheClock(t *testing.T) {
	shown := time.Time{}
	now := time.Now()
	at := now.Add(-10 * time.Second)
	for _, jitter := range []time.Duration{0, 300 * time.Millisecond, -900 * time.Millisecond} {
		stepped := jittered(now, jitter)
		first := shown
		if shown = Shown(shown, stepped, at); !first.IsZero() && shown != first {
			t.Errorf("%v of jitter is shown: %v after %v", jitter, shown, first)
		}
	}
	if d := shown.Sub(at.Round(0)); d < -time.Second || d > time.Second {
		t.Errorf("10 s ago is shown as %v off", d)
	}
	if strings.Contains(shown.String(), "m=") {
		t.Errorf("%v carries a monotonic time", shown)
	}
}

// jittered is a look that comes a little later.
func jittered(t time.Time, d time.Duration) time.Time { return t.Add(d) }

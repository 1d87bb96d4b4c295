package meter

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		line := timeline{log: slog.New(slog.NewTextHandler(&log, nil))}
		time.Sleep(time.Until(time.Unix(start, 0)))
		steps := []struct {
			name     string
			sleep    time.Duration
			from, to int64
		}{
			{"the first", 990 * time.Millisecond, 0, 0},
			{"the next", time.Second, 1, 1},
			{"late, one was missed", 1020 * time.Millisecond, 2, 3},
			{"early, in the same second", 980 * time.Millisecond, 3, 3},
			{"the sampler stood still", 5 * time.Second, 8, 8},
		}
		for _, s := range steps {
			time.Sleep(s.sleep)
			from, to := line.advance(time.Now())
			if from != start+s.from || to != start+s.to {
				t.Errorf("%s: %d..%d, want %d..%d", s.name, from-start, to-start, s.from, s.to)
			}
		}
		if log.Len() > 0 {
			t.Errorf("logged: %s", &log)
		}
	})
}

func TestTimelineSteps(t *testing.T) {
	tests := map[string]struct {
		wall, elapsed time.Duration // since the sample before
		from, to      int64
		logged        bool
	}{
		"slewed back":         {-300 * time.Millisecond, time.Second, 0, 0, false},
		"slewed forward":      {2100 * time.Millisecond, time.Second, 1, 2, false},
		"set forward an hour": {time.Hour, time.Second, 3600, 3600, true},
		"set back an hour":    {-time.Hour, time.Second, -3600, -3600, true},
		"suspended":           {time.Hour, time.Second, 3600, 3600, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			line := timeline{log: slog.New(slog.NewTextHandler(&log, nil))}
			line.seconds(time.Unix(start, 0), 0)
			from, to := line.seconds(time.Unix(start, 0).Add(tt.wall), tt.elapsed)
			if from-start != tt.from || to-start != tt.to || strings.Contains(log.String(), "the clock was set") != tt.logged {
				t.Errorf("%d..%d, want %d..%d; %s", from-start, to-start, tt.from, tt.to, &log)
			}
		})
	}
}

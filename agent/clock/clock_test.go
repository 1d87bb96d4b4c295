package clock

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func TestBootOf(t *testing.T) {
	m := Moment{Boot: time.Hour, Day: noon}
	for what, c := range map[string]struct {
		day  time.Time
		want time.Duration
	}{
		"a minute ago":           {noon.Add(-time.Minute), 59 * time.Minute},
		"set back meanwhile":     {noon.Add(time.Minute), time.Hour},
		"set forward meanwhile":  {noon.Add(-time.Hour), 50 * time.Minute},
		"just when it was begun": {noon.Add(-10 * time.Minute), 50 * time.Minute},
	} {
		if got := m.BootOf(c.day, 50*time.Minute); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

func TestSteady(t *testing.T) {
	now, was := time.Now(), time.Now().Add(-time.Hour)
	if d := ToSteady(now).Sub(ToSteady(was)); d < time.Hour-time.Second || d > time.Hour+time.Second {
		t.Errorf("an hour is %v", d)
	}
	if d := time.Since(ToSteady(now)); d < -time.Second || d > time.Minute {
		t.Errorf("%v off", d) // nobody sets the clock while a test runs
	}
	if !ToSteady(time.Time{}).IsZero() {
		t.Error("never is some time")
	}
}

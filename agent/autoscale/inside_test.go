package autoscale

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestPeaks compares with a search through everything.
func TestPeaks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := peaks{keep: time.Minute}
		type seen struct {
			at int64
			v  float64
		}
		var all []seen
		at := int64(0)
		for range rapid.IntRange(1, 300).Draw(t, "samples") {
			at += int64(rapid.IntRange(1, 3000).Draw(t, "ms")) * int64(time.Millisecond)
			v := rapid.Float64Range(0, 100).Draw(t, "value")
			p.add(at, v)
			all = append(all, seen{at, roundUp(v)})
		}
		w := time.Duration(rapid.IntRange(0, 60).Draw(t, "window")) * time.Second
		want := 0.0
		for _, s := range all {
			if s.at >= at-int64(w) {
				want = max(want, s.v)
			}
		}
		if got := p.over(at, w); got != want {
			t.Fatalf("peak of %v = %v, want %v", w, got, want)
		}
		level := rapid.Float64Range(0, 100).Draw(t, "level")
		last, found := int64(0), false
		for _, s := range all {
			if s.v >= level && s.at >= at-int64(p.keep) {
				last, found = s.at, true
			}
		}
		if got, ok := p.reached(level); ok != found || (ok && got != last) {
			t.Fatalf("%v was reached at %v %v, want %v %v", level, got, ok, last, found)
		}
	})
}

func TestPeaksStaySmall(t *testing.T) {
	p := peaks{keep: longestHold}
	for i := range 20000 { // the worst there is: always less
		p.add(int64(i)*int64(time.Second), 32/(1+float64(i)/100))
	}
	if n := len(p.all); n > 600 {
		t.Errorf("%d peaks are remembered", n)
	}
}

func TestRoundUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Float64Range(0, 1e15).Draw(t, "value")
		if v < 0x1p-1022 {
			v = 0 // numbers that small have fewer bits
		}
		if got := roundUp(v); got < v || got > v*(1+1.0/64) {
			t.Fatalf("roundUp(%v) = %v", v, got)
		}
	})
}

func TestHoldLearnsAndForgets(t *testing.T) {
	var h hold
	h.learn(0, 20*time.Minute)
	if got := h.length(0); got != 20*time.Minute {
		t.Errorf("learned %v", got)
	}
	if got := h.length(int64(holdHalf)); got != 10*time.Minute {
		t.Errorf("half a day later %v", got)
	}
	if h.learn(0, time.Hour*24); h.length(0) != longestHold {
		t.Errorf("learned %v", h.length(0))
	}
}

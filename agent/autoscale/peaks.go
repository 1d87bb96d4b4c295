package autoscale

import (
	"math"
	"sort"
	"time"
)

// peaks remembers for every level when it was last reached, so that the peak of
// any window up to now can be told. Values are rounded up to six bits, at most
// 1.6 %, which bounds how many there are: 64 for each factor of two between the
// highest and the lowest.
type peaks struct {
	keep time.Duration
	all  []peak // later ones are lower
	head int    // of all; what is before has been forgotten
}

type peak struct {
	at    int64 // nanoseconds
	value float64
}

const roundBits = 52 - 6

// roundUp keeps six bits after the point.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 0
	}
	return math.Float64frombits((math.Float64bits(v) + (1<<roundBits - 1)) &^ (1<<roundBits - 1))
}

func (p *peaks) add(at int64, v float64) {
	v = roundUp(v)
	n := len(p.all)
	for n > p.head && p.all[n-1].value <= v {
		n--
	}
	p.all = append(p.all[:n], peak{at, v})
	for p.all[p.head].at < at-int64(p.keep) {
		p.head++
	}
	if p.head > 32 && p.head > len(p.all)/2 {
		p.all = p.all[:copy(p.all, p.all[p.head:])]
		p.head = 0
	}
}

// over is the peak of the last w before now.
func (p *peaks) over(now int64, w time.Duration) float64 {
	all, from := p.all[p.head:], now-int64(w)
	i := sort.Search(len(all), func(i int) bool { return all[i].at >= from })
	if i == len(all) {
		return 0
	}
	return all[i].value
}

// reached is when v was last reached; ok is false when it is not remembered.
func (p *peaks) reached(v float64) (at int64, ok bool) {
	all := p.all[p.head:]
	i := sort.Search(len(all), func(i int) bool { return all[i].value < v })
	if i == 0 {
		return 0, false
	}
	return all[i-1].at, true
}

func (p *peaks) forget() { p.all, p.head = p.all[:0], 0 }

// A hold is how long a need is held on to. It learns: a need that comes back after
// it was given away shows how far apart its peaks are, and from then on the hold
// is longer. Without such news it is forgotten by half in half a day
// (Autopilot's half-life for CPU).
type hold struct {
	learned time.Duration
	at      int64
}

const (
	// Autopilot takes the most that was advised in the last hour. An hour is also
	// what many jobs run by, and a hold of as long would lose just those: twice it.
	longestHold = 2 * time.Hour
	holdHalf    = 12 * time.Hour
)

func (h *hold) learn(now int64, d time.Duration) {
	h.learned, h.at = max(h.length(now), min(d, longestHold)), now
}

func (h *hold) length(now int64) time.Duration {
	if h.learned == 0 {
		return 0
	}
	return time.Duration(float64(h.learned) * math.Exp2(-float64(now-h.at)/float64(holdHalf)))
}

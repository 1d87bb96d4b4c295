package autoscale

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// A Histogram counts how much of a resource was used how often. What is old counts
// less: half, after each half-life. Buckets grow by 5 %, as those of the VPA do.
type Histogram struct {
	resource Resource
	half     time.Duration
	since    time.Time // weights are powers of two from here
	first    time.Time
	last     time.Time
	samples  float64
	total    float64
	sum      float64   // of value times weight
	weights  []float64 // as many as were needed
	peak     float64
}

const (
	bucketGrowth = 0.05
	mostBuckets  = 400 // 60 million times the first
	epochs       = 50  // half-lives, then weights are scaled down
)

// firstBucket is the size of the smallest bucket: less is not told apart.
func firstBucket(r Resource) float64 {
	switch r {
	case CPU:
		return 0.01
	case Memory, Storage:
		return 10e6
	case Bandwidth:
		return 10e3
	case ReadBPS, WriteBPS:
		return 1e3
	}
	return 0.1
}

// NewHistogram begins one.
func NewHistogram(r Resource, half time.Duration) *Histogram {
	return &Histogram{resource: r, half: max(half, time.Second)}
}

// HalfLife is what a VM of some age is judged by: half of its life, ten minutes to
// a day (the VPA's, made for VMs that may live for minutes).
func HalfLife(age time.Duration) time.Duration { return min(max(age/2, leastHalf), mostHalf) }

// bucket i is for values from start(i) to start(i+1).
func (h *Histogram) bucket(v float64) int {
	return min(int(math.Log1p(v/firstBucket(h.resource)*bucketGrowth)/math.Log1p(bucketGrowth)), mostBuckets-1)
}

func (h *Histogram) start(i int) float64 {
	return firstBucket(h.resource) * math.Expm1(float64(i)*math.Log1p(bucketGrowth)) / bucketGrowth
}

// SetHalfLife changes it from now on; what has faded stays so.
func (h *Histogram) SetHalfLife(half time.Duration) {
	if half = max(half, time.Second); half != h.half {
		h.shift(h.last)
		h.half = half
	}
}

// Add counts a value. Values that are no amounts are left out, and so is what is
// older than the oldest.
func (h *Histogram) Add(at time.Time, v, weight float64) {
	if !(v >= 0) || !(weight > 0) || math.IsInf(v, 0) || math.IsInf(weight, 0) {
		return
	}
	if h.samples == 0 {
		h.since, h.first, h.last = at, at, at
	}
	if at.Sub(h.since) > epochs*h.half {
		h.shift(at)
	}
	if at.Before(h.since) {
		at = h.since // the clock was set back
	}
	w := weight * math.Exp2(float64(at.Sub(h.since))/float64(h.half))
	i := h.bucket(v)
	for len(h.weights) <= i {
		h.weights = append(h.weights, 0)
	}
	h.weights[i] += w
	h.total += w
	h.sum += v * w
	h.samples++
	h.peak = max(h.peak, v)
	if at.After(h.last) {
		h.last = at
	}
}

// shift scales all weights to a new beginning.
func (h *Histogram) shift(to time.Time) {
	f := math.Exp2(-float64(to.Sub(h.since)) / float64(h.half))
	h.since, h.total, h.sum = to, 0, h.sum*f
	for i := range h.weights {
		h.weights[i] *= f
		h.total += h.weights[i]
	}
}

// Percentile is the value that p (0 to 1) of the weight is not above; 0 when
// nothing was counted.
func (h *Histogram) Percentile(p float64) float64 {
	if h.total <= 0 {
		return 0
	}
	want, sum := p*h.total, 0.0
	for i, w := range h.weights {
		if sum += w; sum > 0 && sum >= want*(1-1e-9) {
			return h.start(i + 1)
		}
	}
	return h.start(len(h.weights))
}

// Mean is the weighted mean.
func (h *Histogram) Mean() float64 {
	if h.total <= 0 {
		return 0
	}
	return h.sum / h.total
}

// Peak is the greatest value ever counted.
func (h *Histogram) Peak() float64 { return h.peak }

// Life is the time between the first and the last value.
func (h *Histogram) Life() time.Duration { return h.last.Sub(h.first) }

// Confidence is days of life, or samples of one a minute, whichever is less (VPA).
func (h *Histogram) Confidence() float64 { return min(h.Life().Hours()/24, h.samples/1440) }

// Merge adds what another has counted: those of all VMs of a template let a new
// one start warm.
func (h *Histogram) Merge(o *Histogram) {
	if o.samples == 0 {
		return
	}
	if h.samples == 0 {
		h.since, h.first, h.last = o.last, o.first, o.last
	}
	to := h.last
	if o.last.After(to) {
		to = o.last
	}
	h.shift(to)
	f := math.Exp2(-float64(to.Sub(o.since)) / float64(o.half))
	if more := len(o.weights) - len(h.weights); more > 0 {
		h.weights = append(h.weights, make([]float64, more)...)
	}
	for i, w := range o.weights {
		h.weights[i] += w * f
		h.total += w * f
	}
	h.sum += o.sum * f
	h.samples, h.peak, h.last = h.samples+o.samples, max(h.peak, o.peak), to
	if o.first.Before(h.first) {
		h.first = o.first
	}
}

// saved is a histogram on disk; weights are relative to Last. Seven digits of each
// are plenty, and half the size.
type saved struct {
	Resource Resource      `json:"resource"`
	HalfLife time.Duration `json:"half_life"`
	First    time.Time     `json:"first"`
	Last     time.Time     `json:"last"`
	Samples  float64       `json:"samples"`
	Sum      float64       `json:"sum"`
	Peak     float64       `json:"peak"`
	Weights  []float32     `json:"weights"`
}

// MarshalJSON implements json.Marshaler.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	s := saved{h.resource, h.half, h.first, h.last, h.samples, 0, h.peak, make([]float32, len(h.weights))}
	f := math.Exp2(-float64(h.last.Sub(h.since)) / float64(h.half))
	for i, w := range h.weights {
		s.Weights[i] = float32(w * f)
	}
	s.Sum = h.sum * f
	return json.Marshal(s)
}

// UnmarshalJSON implements json.Unmarshaler.
func (h *Histogram) UnmarshalJSON(b []byte) error {
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if len(s.Weights) > mostBuckets || s.HalfLife < time.Second || s.Last.Before(s.First) || !(s.Samples >= 0) || !(s.Sum >= 0) || !(s.Peak >= 0) {
		return fmt.Errorf("histogram of %v: not one", s.Resource)
	}
	*h = Histogram{resource: s.Resource, half: s.HalfLife, since: s.Last, first: s.First, last: s.Last,
		samples: s.Samples, sum: s.Sum, peak: s.Peak, weights: make([]float64, len(s.Weights))}
	for i, w := range s.Weights {
		if !(w >= 0) {
			return fmt.Errorf("histogram of %v: weight %v", s.Resource, w)
		}
		h.weights[i] = float64(w)
		h.total += h.weights[i]
	}
	return nil
}

package replay

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"
)

// newRand draws the same for the same seed and name.
func newRand(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // it never fails
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// Synthetic are made-up demands, the same for the same seed: what a policy that
// was fitted to recorded traces would fail on.
func Synthetic(seed uint64) []Trace {
	rng := newRand(seed, "synthetic")
	make1 := func(name string, n int, step time.Duration, size float64, f func(i int) float64) Trace {
		t := Trace{Name: name, Step: step, Cap: size, Demand: make([]float64, n)}
		for i := range t.Demand {
			t.Demand[i] = min(max(f(i), 0.02), size)
		}
		return t
	}
	noise := func(sd float64) float64 { return 1 + sd*rng.NormFloat64() }
	walk, burst, job := 1.0, 0, 0
	level := 1.0
	return []Trace{
		make1("steady, noisy, 1 s", 7200, time.Second, 4, func(int) float64 { return noise(0.1) }),
		make1("bursts of seconds, 1 s", 7200, time.Second, 8, func(int) float64 {
			if burst == 0 && rng.Float64() < 0.02 {
				burst = 1 + rng.IntN(20)
			}
			burst = max(burst-1, 0)
			if burst > 0 {
				return 3 * noise(0.1)
			}
			return 0.5 * noise(0.1)
		}),
		make1("jobs of minutes, 1 s", 14400, time.Second, 8, func(int) float64 {
			if job == 0 {
				job = int(60 + 540*rng.Float64())
				level = 0.2 + 4*rng.Float64()*rng.Float64()
			}
			job--
			return level * noise(0.05)
		}),
		make1("day and night, 1 min", 4*1440, time.Minute, 8, func(i int) float64 {
			return (2 + 1.5*math.Sin(2*math.Pi*float64(i)/1440)) * noise(0.08)
		}),
		make1("backup every hour, 1 min", 2*1440, time.Minute, 8, func(i int) float64 {
			if i%60 < 5 {
				return 4 * noise(0.05)
			}
			return 0.5 * noise(0.1)
		}),
		make1("random walk, 1 min", 4*1440, time.Minute, 8, func(int) float64 {
			walk = min(max(walk*math.Exp(0.03*rng.NormFloat64()), 0.1), 7)
			return walk
		}),
		make1("heavy tail, 5 min", 7*288, 5*time.Minute, 8, func(int) float64 {
			return 0.2 / math.Pow(1-rng.Float64(), 0.5)
		}),
	}
}

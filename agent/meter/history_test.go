package meter

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestCode(t *testing.T) {
	for _, v := range []float64{0, 1, 0.5, 1.5, 3, 512 << 20, 1536 << 20, 1 << 40} {
		if got := encode(v).binary(); got != v {
			t.Errorf("%v became %v", v, got)
		}
	}
	for _, v := range []float64{0, 0.1, 0.3, 1, 1.5, 2.25, 100e6, 12.5e6, 1e9, 0.001, 4096} {
		if got := encode(v).decimal(); got != v {
			t.Errorf("%v became %v", v, got)
		}
	}
	if !math.IsNaN(encode(math.NaN()).binary()) || encode(-1) != 0 || encode(1e-9) != 0 || encode(math.Inf(1)) != largest || encode(1e300) != largest {
		t.Error("the ends of the range")
	}
	last := code(0)
	for v := 1.002 / (1 << 16); v < 1<<47; v *= 1.0007 {
		c := encode(v)
		if c < last || math.Abs(c.binary()/v-1) > 1.0/2048 || encode(c.binary()) != c || encode(c.decimal()) != c || math.Abs(c.decimal()/v-1) > 1.0/1024 {
			t.Fatalf("%v: code %d is %v or %v, the last was %d", v, c, c.binary(), c.decimal(), last)
		}
		last = c
	}
}

// feed records f(second, series) for every second of from..to.
func feed(h *history, from, to int64, f func(sec int64, series int) float64) {
	var scratch []byte
	values := make([]float64, h.series)
	for sec := from; sec <= to; sec++ {
		for i := range values {
			values[i] = f(sec, i)
		}
		h.add(sec, sec, values, &scratch)
	}
}

// feedDay records as feed does, but of all up to the last two hours every 40th
// second only: enough for the tier that reaches back so far.
func feedDay(h *history, from, to int64, f func(sec int64, series int) float64) {
	var scratch []byte
	values := make([]float64, h.series)
	for sec := from; sec <= to-7200; sec += 40 {
		for i := range values {
			values[i] = f(sec, i)
		}
		h.add(sec, sec, values, &scratch)
	}
	feed(h, max(from, to-7199), to, f)
}

func at(h *history, now int64, span time.Duration) Window {
	all := make([]series, h.series)
	for i := range all {
		all[i] = series{name: string(rune('a' + i)), bytes: true}
	}
	return h.window(time.Unix(now, 0), span, all, nil)
}

func count(values []float64, is func(float64) bool) (n int) {
	for _, v := range values {
		if is(v) {
			n++
		}
	}
	return n
}

const start = 1_800_000_000 // begins a chunk of every tier

func TestHistoryTiers(t *testing.T) {
	h := newHistory(2)
	end := int64(start + 26*3600 + 7)
	feed(h, start, end, func(sec int64, s int) float64 { return float64(1 + (sec+int64(s))%10) })
	tests := map[string]struct {
		span, step time.Duration
		points     int
	}{
		"a second":     {time.Second, time.Second, 1},
		"five minutes": {5 * time.Minute, time.Second, 300},
		"more":         {5*time.Minute + time.Second, 10 * time.Second, 31},
		"an hour":      {time.Hour, 10 * time.Second, 360},
		"a day":        {24 * time.Hour, 2 * time.Minute, 720},
		"too much":     {1000 * time.Hour, 2 * time.Minute, 720},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := at(h, end, tt.span)
			if w.Step != tt.step || len(w.Times) != tt.points || len(w.Series) != 2 {
				t.Fatalf("step %v, %d points of %d series", w.Step, len(w.Times), len(w.Series))
			}
			a := w.Series[0]
			for i, sec := range w.Times {
				if want := w.Times[0] + int64(i)*int64(w.Step/time.Second); sec != want {
					t.Fatalf("point %d at %d, want %d", i, sec, want)
				}
				if tt.step == time.Second {
					if want := float64(1 + sec%10); a.Avg[i] != want || a.Least[i] != want || a.Most[i] != want {
						t.Fatalf("at %d: %v %v %v, want %v", sec, a.Avg[i], a.Least[i], a.Most[i], want)
					}
				} else if i < len(w.Times)-1 && (a.Avg[i] != 5.5 || a.Least[i] != 1 || a.Most[i] != 10) {
					t.Fatalf("at %d: %v %v %v", sec, a.Avg[i], a.Least[i], a.Most[i])
				}
			}
			if i := len(w.Times) - 1; math.IsNaN(a.Avg[i]) {
				t.Error("the step that has begun is missing")
			}
		})
	}
}

// What was not sampled is a gap in every tier, and stays one.
func TestGapsStayGaps(t *testing.T) {
	h := newHistory(1)
	one := func(int64, int) float64 { return 1 }
	feed(h, start, start+999, one)
	feed(h, start+1180, start+1299, one) // three minutes nobody looked
	gaps := func(span time.Duration) int { return count(at(h, start+1299, span).Series[0].Avg, math.IsNaN) }
	if n := gaps(5 * time.Minute); n != 180 {
		t.Errorf("%d gaps of a second, want 180", n)
	}
	if n := gaps(time.Hour); n != 18+(360-130) {
		t.Errorf("%d gaps of ten seconds, want 18 after 230 before the beginning", n)
	}
	if n := gaps(24 * time.Hour); n != 720-11 { // each of the eleven had some of its seconds
		t.Errorf("%d gaps of two minutes", n)
	}
	if w := at(h, start+1310, time.Minute); count(w.Series[0].Avg, math.IsNaN) != 11 || w.Times[59] != start+1310 {
		t.Error("a sampler that has stopped leaves no gap at the end")
	}
}

func TestUnknownValuesAreGaps(t *testing.T) {
	h := newHistory(2)
	feed(h, start, start+599, func(_ int64, s int) float64 {
		if s == 1 {
			return math.NaN()
		}
		return 7
	})
	w := at(h, start+599, 10*time.Minute)
	if count(w.Series[0].Avg, math.IsNaN) != 0 || count(w.Series[1].Avg, math.IsNaN) != 60 || count(w.Series[1].Most, math.IsNaN) != 60 {
		t.Errorf("%+v", w.Series)
	}
}

// A clock that is set back takes the time after the new now with it, once it is
// believed.
func TestClockSetBack(t *testing.T) {
	h := newHistory(1)
	feed(h, start, start+999, func(int64, int) float64 { return 1 })
	two := func(int64, int) float64 { return 2 }
	feed(h, start+500, start+500+doubted-1, two)
	if w := at(h, start+999, 5*time.Minute); count(w.Series[0].Avg, func(v float64) bool { return v == 1 }) != 300 {
		t.Error("it was believed too early")
	}
	feed(h, start+500+doubted, start+720, two)
	w := at(h, start+720, 5*time.Minute)
	ones, twos := count(w.Series[0].Avg, func(v float64) bool { return v == 1 }), count(w.Series[0].Avg, func(v float64) bool { return v == 2 })
	// The ring kept 699..999 only: of what came before the new now nothing is left.
	if twos != 101 || ones != 0 {
		t.Errorf("%d ones and %d twos", ones, twos)
	}
	w = at(h, start+720, time.Hour)
	if w.Series[0].Most[359] != 2 || w.Series[0].Avg[336] != 1 || count(w.Series[0].Avg, math.IsNaN) != 360-61 {
		t.Errorf("ten seconds: %v", w.Series[0].Avg)
	}
	if w := at(h, start+999, time.Minute); count(w.Series[0].Avg, math.IsNaN) != 60 {
		t.Error("the future that was taken back is still there")
	}
}

// A small step back is believed at once.
func TestClockSetBackALittle(t *testing.T) {
	h := newHistory(1)
	feed(h, start, start+299, func(int64, int) float64 { return 1 })
	feed(h, start+240, start+245, func(int64, int) float64 { return 2 })
	w := at(h, start+245, 5*time.Minute)
	if n := count(w.Series[0].Avg, func(v float64) bool { return v == 2 }); n != 6 || w.Series[0].Avg[293] != 1 {
		t.Errorf("%d twos", n)
	}
}

// A board without a battery begins in 1970, and goes on where it was when it has
// heard what time it is.
func TestBoardWithoutClockKeepsItsHistory(t *testing.T) {
	for name, back := range map[string]struct{ from, seconds int64 }{
		"1970, for ten minutes":           {5, 600},
		"before 1970":                     {-10, 60},
		"an hour back, nearly believed":   {start + 82800, doubted},
		"two minutes back, a few of them": {start + 86400 - 120, 10},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(1)
			feedDay(h, start, start+86400-1, func(int64, int) float64 { return 1 })
			feed(h, back.from, back.from+back.seconds-1, func(int64, int) float64 { return 2 })
			feed(h, start+86400+120, start+86400+240, func(int64, int) float64 { return 3 })
			w := at(h, start+86400+240, 24*time.Hour)
			is := func(want float64) int { return count(w.Series[0].Avg, func(v float64) bool { return v == want }) }
			if ones, twos, gaps := is(1), is(2), count(w.Series[0].Avg, math.IsNaN); ones != 717 || twos != 0 || gaps != 1 {
				t.Errorf("%d points are left, %d of another time, %d gaps", ones, twos, gaps)
			}
		})
	}
}

func TestRewindBefore1970(t *testing.T) {
	h := newHistory(1)
	feed(h, start, start+299, func(int64, int) float64 { return 1 })
	h.rewind(-70)
	if w := at(h, start+299, 5*time.Minute); count(w.Series[0].Avg, math.IsNaN) != 300 {
		t.Error("something is left")
	}
}

func TestHistoryAllocatesNothing(t *testing.T) {
	h := newHistory(vmSeries)
	noise := rand.New(rand.NewPCG(1, 2))
	feedDay(h, start, start+30*3600, func(int64, int) float64 { return noise.Float64() * 1e9 })
	var scratch []byte
	sec := h.last
	values := make([]float64, vmSeries)
	fill := func() {
		for range 100 {
			sec++
			for i := range values {
				values[i] = noise.Float64() * 1e9
			}
			h.add(sec, sec, values, &scratch)
		}
	}
	fill()
	if n := testing.AllocsPerRun(20, fill); n > 1 { // a chunk that grew beyond its place, at most
		t.Errorf("%v allocations in 100 samples", n)
	}
}

func TestPackIsReversible(t *testing.T) {
	noise := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		in, out := make([]column, 6), make([]column, 6)
		for c := range in {
			for i := range in[c] {
				switch noise.IntN(4) {
				case 0:
					in[c][i] = code(noise.IntN(1 << 16))
				case 1:
					in[c][i] = gap
				default:
					in[c][i] = in[c][max(i-1, 0)]
				}
			}
		}
		if err := unpack(pack(nil, in, 3), out, 3); err != nil {
			t.Fatal(err)
		}
		for c := range in {
			if in[c] != out[c] {
				t.Fatalf("column %d: %v became %v", c, in[c], out[c])
			}
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(pack(nil, make([]column, 6), 3))
	f.Add([]byte{0, 30, 0, 30})
	f.Fuzz(func(t *testing.T, b []byte) {
		columns := make([]column, 6)
		if unpack(b, columns, 3) != nil {
			return
		}
		again := make([]column, 6)
		if err := unpack(pack(nil, columns, 3), again, 3); err != nil || again[5] != columns[5] {
			t.Errorf("%v", err)
		}
	})
}

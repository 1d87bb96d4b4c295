package autoscale_test

import (
	"strings"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
)

// ram is a VM's memory under memory.high and memory.max: what is anonymous stays, what
// is cache goes when high is reached, and hot cache that goes is read back.
type ram struct {
	*vm
	anon, cache, hot float64 // bytes; hot is what of the cache is used all the time
	ooms, storms     int
	stalled, total   time.Duration
	statEvery        time.Duration
	deaf             bool // memory.stat is not read when it is asked for
	statAt           time.Time
}

func newRAM(t testing.TB, spec float64) *ram {
	r := &ram{vm: newVM(t, autoscale.Limits{autoscale.Memory: spec}, nil)}
	r.high = 0.9 * spec
	return r
}

// grow lets dt go by in which the VM allocates so many bytes, and reads files.
func (r *ram) step(dt time.Duration, bytes float64) []autoscale.Decision {
	r.sample.At = r.sample.At.Add(dt)
	r.total += dt
	r.anon = max(r.anon+bytes, 0)
	if over := r.anon + r.cache - r.high; over > 0 {
		r.sample.MemoryHighEvents++
		took := min(over, r.cache)
		r.cache -= took
		if over -= took; over > 0 { // no swap: allocations are slowed down
			r.sample.MemoryWaitingSeconds += dt.Seconds()
			r.sample.MemoryStalledSeconds += dt.Seconds()
			r.stalled += dt
		}
	}
	if missing := r.hot - r.cache; missing > 0 && r.hot > 0 {
		back := min(missing, max(r.high-r.anon-r.cache, 0))
		r.cache += back
		refaults := missing / 4096
		r.sample.Refaults += int64(refaults)
		if missing > 0.01*r.high*dt.Seconds() {
			r.storms++
		}
	}
	if r.anon > r.limits[autoscale.Memory] {
		r.ooms++
		r.sample.OOMKills++
		r.anon = 0
	}
	r.sample.MemoryBytes = int64(r.anon + r.cache)
	if r.statEvery == 0 || r.sample.At.Sub(r.statAt) >= r.statEvery || (r.NeedsStat() && !r.deaf) {
		r.statAt = r.sample.At
		r.sample.WorkingSetBytes = int64(r.anon + min(r.cache, r.hot))
		r.sample.UnreclaimableBytes = int64(r.anon)
	}
	if r.statEvery > 0 {
		r.sample.StatAt = r.statAt
	}
	got := r.observe()
	for _, d := range got {
		r.cache -= min(d.Reclaim, r.cache)
	}
	return got
}

func TestMemoryThatGrowsIsNeverKilled(t *testing.T) {
	for name, c := range map[string]struct{ spec, perSecond, to float64 }{
		"50 MiB/s from a quarter of 512 MiB": {512 * mib, 50 * mib, 1900 * mib},
		"50 MiB/s from a quarter of 1 GiB":   {1024 * mib, 50 * mib, 3600 * mib},
		"50 MiB/s from a quarter of 256 MiB": {256 * mib, 50 * mib, 900 * mib},
		"200 MiB/s from a quarter of 4 GiB":  {4096 * mib, 200 * mib, 14000 * mib},
		"1 MiB/s from a quarter of 64 MiB":   {64 * mib, 1 * mib, 220 * mib},
		"50 MiB/s, memory.stat every 5 s":    {512 * mib, 50 * mib, 1700 * mib},
		"20 MiB/s nearly to the bound":       {512 * mib, 20 * mib, 1800 * mib},
	} {
		for _, look := range []time.Duration{time.Second, 100 * time.Millisecond} {
			r := newRAM(t, c.spec)
			r.anon = c.spec / 4
			if strings.Contains(name, "every 5 s") {
				r.statEvery, r.deaf = 5*time.Second, strings.Contains(name, "even if asked")
			}
			for r.anon < c.to && r.ooms == 0 {
				r.step(look, c.perSecond*look.Seconds())
			}
			for range 60 {
				r.step(time.Second, 0)
			}
			if r.ooms > 0 || float64(r.stalled) > 0.02*float64(r.total) {
				t.Errorf("%s, looked at every %v: %d kills, stalled %v of %v; limit %v MiB", name, look, r.ooms, r.stalled, r.total, r.limits[autoscale.Memory]/mib)
			}
		}
	}
}

func TestMemoryShrinksWithoutAStorm(t *testing.T) {
	for name, hot := range map[string]float64{"no cache": 0, "a hot cache": 200 * mib} {
		r := newRAM(t, 1024*mib)
		r.anon, r.hot = 700*mib, hot
		r.cache = hot
		for range 120 {
			r.step(time.Second, 0)
		}
		r.storms = 0
		r.anon = 150 * mib // the load ends
		r.cache += 300 * mib
		first := time.Duration(0)
		before := r.high
		for i := range 7200 {
			r.step(time.Second, 0)
			if first == 0 && r.high < before {
				first = time.Duration(i+1) * time.Second
			}
		}
		if r.ooms+r.storms > 0 {
			t.Errorf("%s: %d kills, %d storms of refaults", name, r.ooms, r.storms)
		}
		if first == 0 || first > 7*time.Minute || (hot == 0 && first > 62*time.Second) {
			t.Errorf("%s: first shrink after %v", name, first)
		}
		need := r.anon + hot
		if r.high > 1.6*need || r.high < need {
			t.Errorf("%s: memory.high = %.0f MiB with %.0f MiB needed", name, r.high/mib, need/mib)
		}
		if r.limits[autoscale.Memory] < 1.2*r.high*0.999 {
			t.Errorf("%s: memory.max = %.0f MiB is too near to high, %.0f MiB", name, r.limits[autoscale.Memory]/mib, r.high/mib)
		}
	}
}

func TestColdCacheIsNoNeed(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 5 * time.Second} {
		r := newRAM(t, 1024*mib)
		r.anon, r.statEvery = 100*mib, every
		for range 600 {
			r.cache = min(r.cache+200*mib, r.high-r.anon) // a big file is read
			r.step(r.Next(), 0)
		}
		for _, d := range r.all {
			if d.Up() {
				t.Errorf("memory.stat every %v: grew for a cache that nobody reads twice: %v", every, d.String())
			}
		}
	}
}

func TestOOMIsAnsweredAndRemembered(t *testing.T) {
	r := newRAM(t, 512*mib)
	r.anon = 100 * mib
	for range 10 {
		r.step(time.Second, 0)
	}
	r.anon = 600 * mib // in no time
	got := r.step(time.Second, 0)
	if len(got) != 1 || got[0].Signal != autoscale.ByOOM || got[0].To < 1.49*512*mib {
		t.Fatalf("got %+v", got)
	}
	after := r.limits[autoscale.Memory]
	r.anon = 100 * mib
	for range 20 * 3600 {
		r.step(time.Second, 0)
	}
	if r.limits[autoscale.Memory] < after*0.999 {
		t.Errorf("memory.max = %.0f MiB twenty hours after a kill, was %.0f MiB", r.limits[autoscale.Memory]/mib, after/mib)
	}
	r.anon = 5000 * mib
	r.step(time.Second, 0)
	r.anon = 5000 * mib
	got = r.step(time.Second, 0)
	if len(got) != 1 || got[0].To > 2048*mib || (got[0].To < 2*after*0.9 && got[0].To < 2047*mib) {
		t.Errorf("a second kill within ten minutes: %+v", got)
	}
}

func TestHighIsNeverBelowWhatCannotBeReclaimed(t *testing.T) {
	r := newRAM(t, 2048*mib)
	r.anon = 500 * mib
	for range 3600 {
		r.step(time.Second, 0)
		if r.high < r.anon+90*mib {
			t.Fatalf("memory.high = %.0f MiB with %.0f MiB anonymous", r.high/mib, r.anon/mib)
		}
	}
}

// Changes of other limits are no reason for a VM to be killed for want of memory.
func TestMemoryGrowsBeyondTheBudget(t *testing.T) {
	r := newRAM(t, 512*mib)
	p := r.Policy()
	p.PerMinute, p.PerHour = 1, 1
	if err := r.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
	for range 400 {
		r.step(time.Second, 4*mib)
	}
	if r.ooms > 0 || r.stalled > 0 || r.limits[autoscale.Memory] < 1600*mib {
		t.Errorf("%d OOM kills, stalled for %v, limit %v: %v", r.ooms, r.stalled, r.limits[autoscale.Memory], r.all)
	}
	if len(r.all) > 10 {
		t.Errorf("%d decisions", len(r.all))
	}
}

// memory.stat of an idle VM is old; a shrink that is due does not wait for it, and
// asks for one no more often than it shrinks.
func TestMemoryShrinkAsksForAStat(t *testing.T) {
	for _, age := range []time.Duration{0, 3 * time.Second, 7 * time.Second, 9 * time.Second} {
		r := newRAM(t, 1024*mib)
		r.statEvery = 10 * time.Second
		cooldown := r.Policy().Rules[autoscale.Memory].Cooldown
		r.step(time.Second, 700*mib)
		for r.total < 10*time.Minute+age {
			r.step(r.Next(), 0)
		}
		r.step(r.Next(), -600*mib)
		ended, stats, shrinks, read := r.total, 0, 0, r.statAt
		for first := true; r.total < ended+10*time.Minute; {
			got := r.step(r.Next(), 0)
			for _, d := range got {
				if d.Action != autoscale.Shrink {
					continue
				}
				if took := r.total - ended; first && (took < cooldown || took > cooldown+1200*time.Millisecond) {
					t.Errorf("stat %v old: shrunk %v after the load, cooldown %v", age, took, cooldown)
				}
				first = false
				shrinks++
			}
			if since := r.statAt.Sub(read); since > 0 && since < r.statEvery {
				stats++
			}
			read = r.statAt
		}
		if shrinks == 0 || stats > shrinks+2 {
			t.Errorf("stat %v old: %d times asked for, %d shrinks", age, stats, shrinks)
		}
	}
}

package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	l, err := parse([]string{"--cpus", "0.5", "--memory", "64MiB", "--disk", "5MiB/s", "--net", "10Mbit", "--seconds", "3"})
	if err != nil || l.cpu.cores[0] != 0.5 || l.cpu.carry || l.memory != 64<<20 || l.disk != 5<<20 || l.net != 1_250_000 || l.cpu.length() != 3*time.Second {
		t.Errorf("%+v, %v", l, err)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(trace, []byte("# cores\n0.5\n\n2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = parse([]string{"--trace", trace, "--step", "500ms"}); err != nil || !l.cpu.carry || l.cpu.length() != time.Second || l.cpu.threads() != 2 {
		t.Errorf("trace: %+v, %v", l, err)
	}
	if l, err = parse([]string{"--trace", trace, "--drop"}); err != nil || l.cpu.carry {
		t.Errorf("trace without a backlog: %+v, %v", l, err)
	}
	for want, bad := range map[string][]string{
		"--cpus":   {"--cpus", "-1"},
		"4096":     {"--cpus", "1e9"},
		"--memory": {"--memory", "x"}, "--memory-rate": {"--memory-rate", "fast"}, "--disk": {"--disk", "5MiB/h"}, "--net": {"--net", "fast"},
		"--seconds: -1": {"--seconds", "-1"}, "--seconds: NaN": {"--seconds", "NaN"}, "--seconds: 0": {"--seconds", "0"},
		`unexpected argument "extra"`: {"extra"},
		"--trace: open":               {"--trace", "/does/not/exist"}, "--step": {"--trace", trace, "--step", "0"},
	} {
		if _, err := parse(bad); err == nil || (!strings.Contains(err.Error(), want) && want != "4096") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDemand(t *testing.T) {
	d := demand{cores: []float64{1, 0, 2.5}, step: time.Second}
	for at, want := range map[time.Duration]float64{
		-time.Second: 0, 0: 0, 500 * time.Millisecond: 0.5, 1500 * time.Millisecond: 1,
		2200 * time.Millisecond: 1.5, 3 * time.Second: 3.5, time.Hour: 3.5,
	} {
		if got := d.until(at); math.Abs(got-want) > 1e-9 {
			t.Errorf("until %v: %v, want %v", at, got, want)
		}
	}
}

func TestRestIsAsLongAsNothingIsWanted(t *testing.T) {
	p := &processor{demand: demand{cores: []float64{0.5, 0, 2}, step: time.Hour}, began: time.Now()}
	for by, want := range map[time.Duration]time.Duration{0: pause, time.Millisecond: pause, 2 * time.Millisecond: 8 * time.Millisecond, time.Minute: longest} {
		if got := p.ahead(by); got != want { // a quarter of a core for each of two threads
			t.Errorf("%v ahead: %v, want %v", by, got, want)
		}
	}
	p.began = p.began.Add(-time.Hour)
	if got := p.ahead(0); got != longest {
		t.Errorf("nothing wanted: %v", got)
	}
}

func FuzzReadTrace(f *testing.F) {
	f.Add("1\n0.5\n# x\n\n4096")
	f.Add("NaN\n")
	f.Add("1e400")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := readTrace(strings.NewReader(text), time.Second)
		if err != nil {
			return
		}
		if n := d.threads(); n < 0 || n > maxCPUs || d.until(d.length()) < 0 {
			t.Errorf("%q: %d threads", text, n)
		}
	})
}

func burn(t *testing.T, l load) result {
	t.Helper()
	stop := make(chan struct{})
	time.AfterFunc(l.cpu.length(), func() { close(stop) })
	l.dir = t.TempDir()
	r, err := l.run(stop)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// On a busy machine burn may get less than it asks for, never more.
func TestBurnUsesWhatItSays(t *testing.T) {
	r := burn(t, load{cpu: constant(0.5, 400*time.Millisecond), memory: 8 << 20, disk: 4 << 20, net: 2 << 20})
	if r.CPUs <= 0 || r.CPUs > 0.7 || r.MemoryBytes != 8<<20 || r.DiskBytes == 0 || r.DiskBPS > 6<<20 {
		t.Errorf("%+v", r)
	}
	if r.NetBytes == 0 || r.BandwidthBPS > 1.6*8*(2<<20) {
		t.Errorf("%v bit/s, asked for %d", r.BandwidthBPS, 8*(2<<20))
	}
}

func TestMemoryGrowsAtItsRate(t *testing.T) {
	r := burn(t, load{cpu: constant(0, 300*time.Millisecond), memory: 64 << 20, growth: 20 << 20})
	if most := int64(r.Seconds*(20<<20)) + 2*gulp; r.MemoryBytes == 0 || r.MemoryBytes > most {
		t.Errorf("%d bytes after %.3f s at 20 MiB/s", r.MemoryBytes, r.Seconds)
	}
	if r = burn(t, load{cpu: constant(0, 300*time.Millisecond), memory: 1 << 20, growth: 1 << 30}); r.MemoryBytes != 1<<20 {
		t.Errorf("%d bytes of 1 MiB", r.MemoryBytes)
	}
}

// A thread that is held up behind its demand makes up for it when the trace says
// so, and only then.
func TestBacklogIsCarriedOver(t *testing.T) {
	const wanted, forgivenAtMost = 0.18, 0.06       // CPU seconds
	late := time.Now().Add(-200 * time.Millisecond) // as if nothing had run for 200 ms
	for _, carry := range []bool{true, false} {
		p := &processor{demand: demand{cores: []float64{0.9, 0}, step: 200 * time.Millisecond, carry: carry}, began: late}
		used := func() float64 { return time.Duration(p.used.Load()).Seconds() }
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { p.run(stop); close(done) }()
		patience := 200 * time.Millisecond // for what must not happen
		if carry {
			patience = 20 * time.Second // on a busy machine the work takes as long as it takes
		}
		for end := time.Now().Add(patience); time.Now().Before(end) && (!carry || used() < wanted); {
			time.Sleep(5 * time.Millisecond)
		}
		close(stop)
		<-done
		if got := used(); carry && (got < wanted || got > 1 || p.peak.Load() == 0) || !carry && got > forgivenAtMost {
			t.Errorf("carry %v: used %.3f CPU seconds, peak %d", carry, got, p.peak.Load())
		}
	}
}

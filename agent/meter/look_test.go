package meter

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cloudflash/cgroup"
)

func (r *rig) look(stat bool) Sample {
	r.tb.Helper()
	s, err := r.probe.Look(stat)
	if err != nil {
		r.tb.Fatal(err)
	}
	return s
}

// step is a VM's next state: it moves in every way.
func (r *rig) step(i int) {
	r.vm.cpu(r.tb, 1_000_000+i*250_000)
	for _, resource := range []string{"cpu", "memory", "io"} {
		r.vm.pressure(r.tb, resource, i*100_000)
	}
	r.vm.write(r.tb, "memory.current", "4000000\n")
	r.vm.write(r.tb, "memory.events", "low 0\nhigh "+string(rune('0'+i%10))+"\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n")
}

func TestLookIsOnTheScaleOfTheSamples(t *testing.T) {
	r := newRig(t)
	if s := r.look(true); s.Counters[CPUTime] != 1_000_000 || s.Counters[ReadBytes] != 0 || s.Anon == 0 || s.StatAt != s.At || !s.IOAt.IsZero() {
		t.Errorf("before the first sample: %+v", s)
	}
	r.tick()
	r.vm.cpu(t, 400_000) // back by 600,000
	last := r.tick()
	r.vm.cpu(t, 500_000)
	r.vm.pressure(t, "cpu", 1_000_000)
	r.vm.write(t, "memory.current", "4000000\n")
	r.vm.write(t, "memory.events", "low 0\nhigh 7\nmax 0\noom 0\noom_kill 0\n")
	began := time.Now()
	s := r.look(false)
	if s.Counters[CPUTime] != last.Counters[CPUTime]+100_000 || s.Counters[CPUWaiting] <= last.Counters[CPUWaiting] || s.Counters[MemoryHigh] <= last.Counters[MemoryHigh] {
		t.Errorf("counters %v after %v", s.Counters, last.Counters)
	}
	if s.Memory != 4000000 || s.WorkingSet != 4000000-s.inactiveFile || s.CPUAvg10 != 0.125 || s.At.Before(began) || s.StatAt != last.StatAt || s.CPUs != last.CPUs {
		t.Errorf("%+v", s)
	}
	if n := r.tick(); n.Counters[CPUTime] != s.Counters[CPUTime] || n.Counters[CPUWaiting] != s.Counters[CPUWaiting] {
		t.Errorf("the next sample counts %v, the look %v", n.Counters, s.Counters)
	}
}

// Two meters of the same VM, one of which is looked at between: their samples do
// not differ.
func TestLookDisturbsNothing(t *testing.T) {
	plain, looked := newRig(t), newRig(t)
	plain.probe.tick, looked.probe.tick = 0, 0
	for i := range 30 {
		for _, r := range []*rig{plain, looked} {
			if i%10 < 6 { // then it stands still
				r.step(i)
			}
		}
		for j := range 3 {
			looked.look(j == 1)
		}
		if a, b := plain.tick(), looked.tick(); a.Counters != b.Counters || !alike(a, b) {
			t.Fatalf("second %d: %+v\nlooked at: %+v", i, a, b)
		}
	}
	if plain.probe.quiet != looked.probe.quiet || plain.probe.tick != looked.probe.tick || plain.probe.now != looked.probe.now || plain.probe.raw != looked.probe.raw {
		t.Error("the probe is another")
	}
}

func alike(a, b Sample) bool {
	var x, y [vmSeries]float64
	a.values(&x)
	b.values(&y)
	for i := range x {
		if x[i] != y[i] && (x[i] == x[i] || y[i] == y[i]) { // NaN is the same as NaN
			return false
		}
	}
	return a.StatAt.Equal(b.StatAt) && a.IOAt.Equal(b.IOAt) && a.Unreclaimable == b.Unreclaimable && a.CPUAvg10 == b.CPUAvg10
}

func TestStatIsDated(t *testing.T) {
	r := newRig(t)
	r.probe.tick = 0
	first := r.tick()
	if first.StatAt != r.now || first.IOAt != r.now || first.Unreclaimable != 102400+155648-47064 || first.Lacks != (Lacks{}) {
		t.Errorf("%+v", first)
	}
	r.step(1)
	if s := r.tick(); s.StatAt != first.StatAt || s.IOAt != first.IOAt {
		t.Errorf("memory.stat of %v is dated %v", first.StatAt, s.StatAt)
	}
	if s := r.look(true); s.StatAt != s.At || s.IOAt != first.IOAt || r.probe.Last().StatAt != first.StatAt {
		t.Errorf("a look is dated %v", s.StatAt)
	}
}

func TestWhatALookLacks(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"io.pressure", "memory.events", "memory.stat", "io.stat"} {
		if err := os.Remove(filepath.Join(string(r.vm), name)); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.look(true); s.Lacks != (Lacks{Pressure: true, Memory: true, Stat: true}) || s.Memory == 0 || !s.StatAt.IsZero() {
		t.Errorf("look: %+v", s)
	}
	if s := r.tick(); s.Lacks != (Lacks{Pressure: true, Memory: true, Stat: true, IO: true}) || !s.StatAt.IsZero() || !s.IOAt.IsZero() {
		t.Errorf("sample: %+v", s)
	}
}

func TestLookFails(t *testing.T) {
	r := newRig(t)
	r.tick()
	r.vm.write(t, "memory.current", "?\n")
	before := r.probe.now
	if _, err := r.probe.Look(false); err == nil || r.probe.now != before {
		t.Errorf("rubble: %v", err)
	}
	r.probe.Close()
	if _, err := r.probe.Look(false); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	dir := newTree(t)
	gone, err := r.meter.VM("vm2", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if err := os.RemoveAll(string(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Look(true); !errors.Is(err, cgroup.ErrGone) {
		t.Errorf("gone: %v", err)
	}
}

// For the race detector.
func TestLookBesideThePass(t *testing.T) {
	r := newRig(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			r.meter.Pass(time.Now())
		}
	}()
	var had Counters
	for open := true; open; {
		select {
		case <-done:
			open = false
		default:
		}
		s := r.look(true)
		for c, n := range s.Counters {
			if n < had[c] {
				t.Fatalf("counter %d goes back", c)
			}
		}
		had = s.Counters
	}
}

func TestLookAllocatesNothing(t *testing.T) {
	r := newRig(t)
	r.tick()
	r.look(true)
	if n := testing.AllocsPerRun(100, func() { r.look(true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkLook is on captured files: what the kernel itself does for them comes on top.
func BenchmarkLook(b *testing.B) {
	r := newRig(b)
	r.tick()
	for name, stat := range map[string]bool{"stat": true, "no stat": false} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.look(stat)
			}
		})
	}
}

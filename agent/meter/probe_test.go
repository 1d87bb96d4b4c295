package meter

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloudflash/cgroup"
)

// tree is a directory of captured files that is read as if it were a cgroup.
type tree string

func (d tree) OpenReader() (*cgroup.Reader, error) { return cgroup.OpenReader(string(d)) }

func newTree(tb testing.TB) tree {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../cgroup/testdata/6.12")); err != nil {
		tb.Fatal(err)
	}
	d := tree(dir)
	d.write(tb, "cgroup.procs", "")
	d.write(tb, "memory.swap.current", "4096\n")
	d.cpu(tb, 1_000_000)
	return d
}

// write changes a file in place, as the kernel does.
func (d tree) write(tb testing.TB, name, text string) {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func (d tree) cpu(tb testing.TB, us int) {
	d.write(tb, "cpu.stat", fmt.Sprintf("usage_usec %d\nuser_usec %d\nsystem_usec 0\nnr_periods %d\nnr_throttled %d\nthrottled_usec 5\n", us, us, us/100_000, us/200_000))
}

func (d tree) pressure(tb testing.TB, resource string, us int) {
	d.write(tb, resource+".pressure", fmt.Sprintf("some avg10=12.50 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=%d\n", us, us/2))
}

// rig is a Meter with one VM on a tree and a clock of its own.
type rig struct {
	tb    testing.TB
	meter *Meter
	vm    tree
	probe *Probe
	now   time.Time
	log   bytes.Buffer
}

func newRig(tb testing.TB) *rig {
	r := &rig{tb: tb, vm: newTree(tb), now: time.Unix(start, 0)}
	r.meter = New(Config{StateDir: tb.TempDir(), File: filepath.Join(tb.TempDir(), "history"), Log: slog.New(slog.NewTextHandler(&r.log, nil))})
	tb.Cleanup(r.meter.Close)
	var err error
	if r.probe, err = r.meter.VM("vm1", r.vm); err != nil {
		tb.Fatal(err)
	}
	r.probe.since = func(time.Time) time.Duration { return 0 } // however busy this machine is
	tb.Cleanup(r.probe.Close)
	return r
}

// tick takes one sample, a second after the last.
func (r *rig) tick() Sample {
	r.tb.Helper()
	r.now = r.now.Add(time.Second)
	r.probe.mu.Lock()
	defer r.probe.mu.Unlock()
	if err := r.probe.sample(r.now); err != nil {
		r.tb.Fatal(err)
	}
	return r.probe.last
}

func TestSampleRates(t *testing.T) {
	r := newRig(t)
	r.vm.pressure(t, "cpu", 0)
	if s := r.tick(); s.CPUs != 0 || s.Counters[CPUTime] != 1_000_000 || s.Memory == 0 || s.Anon == 0 || s.Swap != 4096 ||
		s.WorkingSet != s.Memory-s.inactiveFile || s.Counters[ReadBytes] == 0 || s.PIDs == 0 {
		t.Errorf("first sample %+v", s)
	}
	r.vm.cpu(t, 1_600_000)
	r.vm.pressure(t, "cpu", 250_000)
	r.probe.Tell(Given{Traffic: Traffic{ReceivedBytes: 1000, SentBytes: 500}})
	s := r.tick()
	if s.CPUs != 0.6 || s.throttled != 0.5 || s.cpuWait != 0.25 || s.CPUAvg10 != 0.125 || s.received != 8000 || s.sent != 4000 {
		t.Errorf("cpus %v, throttled %v, waiting %v (%v), %v and %v bit/s", s.CPUs, s.throttled, s.cpuWait, s.CPUAvg10, s.received, s.sent)
	}
	if s.Counters[CPUStalled] != 125_000 || s.Counters[ReceivedBytes] != 1000 {
		t.Errorf("%+v", s.Counters)
	}
	if s := r.tick(); !math.IsNaN(s.throttled) || s.CPUs != 0 || s.received != 0 {
		t.Errorf("without a period: throttled %v, cpus %v", s.throttled, s.CPUs)
	}
}

// memory.stat and io.stat are read every five seconds, and a read rate stands
// until the next.
func TestSlowFiles(t *testing.T) {
	r := newRig(t)
	r.probe.tick = 0
	r.tick()
	had := r.probe.last.Counters[ReadBytes]
	r.vm.write(t, "io.stat", fmt.Sprintf("8:0 rbytes=%d wbytes=0 rios=18 wios=10 dbytes=0 dios=0\n", had+10<<20))
	for i := 1; i <= 6; i++ {
		r.vm.cpu(t, 1_000_000+i)
		s := r.tick()
		want := 0.0
		if i >= 5 {
			want = 2 << 20
		}
		if s.read != want {
			t.Errorf("second %d: %v bytes/s, want %v", i, s.read, want)
		}
	}
}

// A VM that stands still is asked for its CPU time alone, until that moves.
func TestIdleBacksOff(t *testing.T) {
	r := newRig(t)
	r.probe.tick = 1
	for range 2 + quietTicks {
		r.tick()
	}
	r.vm.write(t, "memory.current", "777\n")
	for r.probe.tick%idleTicks != 0 {
		if s := r.tick(); s.Memory == 777 || s.At != r.now {
			t.Fatalf("tick %d: an idle VM is read in full", r.probe.tick)
		}
	}
	if s := r.tick(); s.Memory != 777 {
		t.Error("an idle VM is never read in full")
	}
	for range 2 + quietTicks {
		r.tick()
	}
	r.vm.write(t, "memory.current", "888\n")
	r.vm.cpu(t, 1_000_001)
	if s := r.tick(); s.Memory != 888 {
		t.Error("a VM that moves again is not read at once")
	}
}

func TestCountersNeverGoBack(t *testing.T) {
	r := newRig(t)
	r.tick()
	r.vm.cpu(t, 400_000) // back by 600,000
	r.tick()
	r.vm.cpu(t, 500_000)
	s := r.tick()
	if s.Counters[CPUTime] != 1_100_000 || math.Abs(s.CPUs-0.1) > 1e-9 {
		t.Errorf("%d us, %v cpus", s.Counters[CPUTime], s.CPUs)
	}
	r.vm.cpu(t, 100_000)
	r.tick()
	if n := strings.Count(r.log.String(), "went back"); n != 1 {
		t.Errorf("logged %d times: %s", n, &r.log)
	}
	r.probe.Tell(Given{Traffic: Traffic{ReceivedBytes: 900}})
	r.tick()
	r.probe.Tell(Given{Traffic: Traffic{ReceivedBytes: 100}}) // the link was made anew
	if s := r.tick(); s.Counters[ReceivedBytes] != 1000 {
		t.Errorf("received %d", s.Counters[ReceivedBytes])
	}
}

func TestClockStepsDoNotMoveRates(t *testing.T) {
	r := newRig(t)
	r.now = time.Now() // has the clock that nobody sets beside
	r.tick()
	r.vm.cpu(t, 1_500_000)
	if s := r.tick(); s.CPUs != 0.5 {
		t.Errorf("cpus %v", s.CPUs)
	}
}

// What a kernel does not have is asked for once, and does without.
func TestFeaturesThatAreMissing(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"cpu.pressure", "memory.pressure", "io.pressure", "memory.peak", "memory.swap.current"} {
		if err := os.Remove(filepath.Join(string(r.vm), name)); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.tick(); s.Memory == 0 || s.MemoryPeak != 0 || s.Counters[CPUWaiting] != 0 || !math.IsNaN(s.cpuWait) {
		t.Errorf("%+v", s)
	}
	for range 3 {
		r.meter.Pass(time.Now())
	}
	if c := r.meter.Collectors()["pressure"]; c.OK || !strings.Contains(c.Error, "CONFIG_PSI") {
		t.Errorf("pressure: %+v", c)
	}
	if n := strings.Count(r.log.String(), "collector fails"); n != 1 {
		t.Errorf("logged %d times: %s", n, &r.log)
	}
}

func TestVMVanishesAndIsSpoilt(t *testing.T) {
	r := newRig(t)
	r.meter.Pass(r.now)
	r.vm.write(t, "cpu.stat", "usage_usec ?\n")
	for range 3 {
		r.meter.Pass(time.Now())
	}
	if c := r.meter.Collectors()["vms"]; c.OK || !strings.Contains(c.Error, "cpu.stat") {
		t.Errorf("vms: %+v", c)
	}
	if n := strings.Count(r.log.String(), "level=WARN"); n != 2 { // of the probe, and of the collector
		t.Errorf("logged %d times: %s", n, &r.log)
	}
	r.vm.cpu(t, 1)
	r.meter.Pass(time.Now())
	if c := r.meter.Collectors()["vms"]; !c.OK || c.Error != "" || !strings.Contains(r.log.String(), "works again") {
		t.Errorf("vms: %+v", c)
	}
	r.probe.Close()
	r.meter.Pass(time.Now())
	if _, err := r.meter.VMWindow("vm1", time.Now(), time.Minute, nil); err != nil {
		t.Error("closing forgets")
	}
	r.meter.Forget("vm1")
	if _, err := r.meter.VMWindow("vm1", time.Now(), time.Minute, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("a deleted VM is remembered: %v", err)
	}
	gone := newTree(t)
	p, err := r.meter.VM("vm2", gone)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := os.RemoveAll(string(gone)); err != nil {
		t.Fatal(err)
	}
	r.log.Reset()
	r.meter.Pass(time.Now())
	if c := r.meter.Collectors()["vms"]; !c.OK || r.log.Len() > 0 {
		t.Errorf("a VM that is gone is an error: %+v %s", c, &r.log)
	}
}

// Nobody waits for the kernel to answer a read, and what is closed meanwhile is closed after it.
func TestNobodyWaitsForARead(t *testing.T) {
	r := newRig(t)
	r.probe.mu.Lock() // as a read does
	done := make(chan Sample)
	go func() {
		r.probe.Tell(Given{})
		s := r.probe.Last()
		r.probe.Close()
		done <- s
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("they wait for the read")
	}

	if _, err := r.probe.r.CPU(); err != nil {
		t.Errorf("the files were closed under the read: %v", err)
	}
	r.probe.unlock()
	if _, err := r.probe.r.CPU(); err == nil {
		t.Error("the files are left open")
	}
}

func TestNewProbeReplacesTheOld(t *testing.T) {
	r := newRig(t)
	r.probe.Tell(Given{Traffic: Traffic{ReceivedBytes: 34056}})
	r.meter.Pass(time.Now())
	again, err := r.meter.VM("vm1", newTree(t))
	if err != nil {
		t.Fatal(err)
	}
	if !r.probe.closed.Load() || len(r.meter.vms) != 1 {
		t.Error("the old probe keeps its files")
	}
	r.meter.Pass(time.Now()) // before the new one is told anything
	if n := again.Last().Counters[ReceivedBytes]; n != 34056 {
		t.Errorf("%d bytes were received", n)
	}
	r.probe.Close() // late
	if r.meter.vms["vm1"] != again {
		t.Error("closing the old one ends the new")
	}
	again.Close()
	if len(r.meter.vms) != 0 || len(r.meter.past) != 1 {
		t.Errorf("%d probes, %d histories", len(r.meter.vms), len(r.meter.past))
	}
}

func TestReadOnce(t *testing.T) {
	s := Read(newTree(t))
	if s.CPUs != 0 || s.Counters[CPUTime] != 1_000_000 || s.Memory == 0 || s.Counters[WriteOps] != 0 && s.Counters[ReadOps] == 0 {
		t.Errorf("%+v", s)
	}
	if s := Read(tree(t.TempDir() + "/none")); s != (Sample{}) {
		t.Errorf("%+v", s)
	}
}

// busy makes a VM move, so that nothing is spared.
func (r *rig) busy() { r.probe.raw[CPUTime]++ }

func TestSampleAllocatesNothing(t *testing.T) {
	r := newRig(t)
	sec := int64(start)
	pass := func() {
		for range 10 { // all rates are due
			sec++
			r.busy()
			if err := r.probe.pass(sec, sec, &r.meter.scratch); err != nil {
				t.Fatal(err)
			}
		}
	}
	sec += 30 * 3600
	feedDay(r.probe.past, start, sec, func(int64, int) float64 { return 1 }) // every tier has packed chunks once
	for range 100 {
		pass()
	}
	if n := testing.AllocsPerRun(100, pass); n != 0 {
		t.Errorf("%v allocations in ten samples", n)
	}
}

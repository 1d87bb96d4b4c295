package scaling

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/meter"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
	"cloudflash/agent/state/statetest"
	"cloudflash/cgroup"

	"golang.org/x/sys/unix"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// captured is a slice whose files stand still.
type captured string

func (d captured) OpenReader() (*cgroup.Reader, error) { return cgroup.OpenReader(string(d)) }

// rig is a loop over VMs whose slices are files on disk: all is done for them that a look
// costs, but what the kernel takes to make the numbers.
type rig struct {
	*Loop
	t     testing.TB
	meter *meter.Meter
	vms   map[string]*fakeVM
}

type fakeVM struct {
	now  Now
	work sync.Mutex
}

func (v *fakeVM) Slice() *cgroup.Slice       { return new(cgroup.Parent).Slice("") }
func (v *fakeVM) Now(state.View) (Now, bool) { return v.now, true }
func (v *fakeVM) Release()                   { v.work.Unlock() }
func (v *fakeVM) Work() (Lease, bool)        { return v, v.work.TryLock() }

func (v *fakeVM) Write(_ context.Context, d autoscale.Decision) (limit, high float64, err error) {
	return d.To, d.HighTo, nil
}

func (v *fakeVM) Took(res autoscale.Resource, limit, high float64) {
	v.now.Limits[res] = limit
	if res == autoscale.Memory {
		v.now.High = high
	}
}

type nobody struct{}

func (nobody) Add(string, time.Time, time.Duration, autoscale.Limits, [autoscale.Resources]bool) {}
func (nobody) OOM(string, time.Time, float64)                                                    {}

func fakeVMs(t testing.TB, n int) *rig {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../cgroup/testdata/6.12")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"cgroup.procs": "", "memory.swap.current": "4096\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db, _ := statetest.Open(t, t.TempDir())

	spec := state.Spec{CPUs: 0.5, MemoryBytes: 64 * mib, StorageBytes: gib, BandwidthBPS: 100e6, PIDs: 100}
	r := &rig{t: t, meter: meter.New(meter.Config{StateDir: t.TempDir()}), vms: map[string]*fakeVM{}}
	t.Cleanup(r.meter.Close)
	room := autoscale.Limits{autoscale.CPU: 8, autoscale.Memory: 8 * float64(gib), autoscale.Storage: 100 * float64(gib)}
	r.Loop = New(Config{
		Log:     slog.New(slog.DiscardHandler),
		State:   db,
		Learner: nobody{},
		Rules: func() *policy.Host {
			return &policy.Host{Mode: "auto", CPUs: 8, Defaults: spec, Ranges: policy.Ranges{
				CPUs:         policy.Range[float64]{Min: 0.1, Max: 32},
				MemoryBytes:  policy.Range[int64]{Min: 32 * mib, Max: 256 * gib},
				StorageBytes: policy.Range[int64]{Min: 64 * mib, Max: 10240 * gib},
				BandwidthBPS: policy.Range[int64]{Min: 1e6, Max: 10e9},
			}}
		},
		Room:    func() autoscale.Limits { return room },
		RoomNow: func(state.View) autoscale.Room { return autoscale.Room{All: room, Free: room} },
		VM:      func(id string) VM { return r.vms[id] },
		Spawn:   func(func(context.Context)) bool { return false }, // what would be done in the kernel is dropped
		Count:   func(state.Decision) {},
	})
	for i := range n {
		id := fmt.Sprint("vm", i)
		probe, err := r.meter.VM(id, captured(dir))
		if err != nil {
			t.Fatal(err)
		}
		r.vms[id] = &fakeVM{now: Now{Probe: probe, Limits: policy.Amounts(spec), High: 57 * float64(mib), Bounded: true}}
		r.change(func(tx *state.Tx) { tx.PutVM(state.VM{ID: id, Name: id, State: state.VMRunning, Spec: spec}) })
	}
	r.meter.Pass(time.Now())
	return r
}

func (r *rig) change(do func(*state.Tx)) {
	r.t.Helper()
	statetest.Change(r.t, r.cfg.State, do)
}

func (r *rig) edit(id string, do func(*state.VM)) {
	r.t.Helper()
	r.change(func(tx *state.Tx) {
		v := *tx.VM(id)
		do(&v)
		tx.PutVM(v)
	})
}

// Between two rounds the scaler of a VM has the policy of before, and the loop may look
// ten times: what was changed meanwhile must not be undone.
func TestNothingIsDecidedByThePolicyOfBefore(t *testing.T) {
	for name, change := range map[string]func(*rig){
		"the VM's own":  func(a *rig) { a.edit("vm0", func(r *state.VM) { r.Own.Gen++ }) },
		"the host's":    func(a *rig) { a.change(func(tx *state.Tx) { tx.SetPolicy(state.OwnPolicy{Gen: 1}) }) },
		"the VM's size": func(a *rig) { a.edit("vm0", func(r *state.VM) { r.Spec.CPUs = 1 }) },
	} {
		t.Run(name, func(t *testing.T) {
			a := fakeVMs(t, 1)
			a.scaleRound(a.followAll(), false)
			f := a.followers["vm0"]
			looks := func() bool {
				before := f.last.At
				f.looks = 1
				a.scaleRound(a.hottest(), true)
				return f.last.At.After(before)
			}
			if !looks() {
				t.Fatal("it is not looked at")
			}
			change(a)
			if looks() {
				t.Error("it is looked at with the policy of before")
			}
			a.scaleRound(a.followAll(), true)
			if !looks() {
				t.Error("it is not looked at with the new one")
			}
		})
	}
}

func TestRefusedLimitsAreTriedLessAndLessOften(t *testing.T) {
	var f follower
	now, waits := time.Unix(1e9, 0), ""
	for range 9 {
		f.failed(autoscale.Storage, now, true)
		waits += fmt.Sprint(f.wait[autoscale.Storage].Sub(now), " ")
	}
	if waits != "10s 20s 40s 1m20s 2m40s 5m20s 10m0s 10m0s 10m0s " {
		t.Error(waits)
	}
	f.failed(autoscale.Storage, now, false)
	f.failed(autoscale.Storage, now, true)
	if got := f.wait[autoscale.Storage].Sub(now); got != failAgain {
		t.Errorf("%v after one that was not refused", got)
	}
}

// BenchmarkScaling is what the loop takes: each second for so many VMs, and for the
// looks of the fast path, of which there are at most 200 in a second however many VMs
// are saturated.
func BenchmarkScaling(b *testing.B) {
	cpu := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for _, n := range []int{50, 1000} {
		b.Run(fmt.Sprintf("vms=%d/second", n), func(b *testing.B) {
			a := fakeVMs(b, n)
			b.ReportAllocs()
			used := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				a.meter.Pass(time.Now()) // counted by the meter's own benchmark
				began := cpu()
				b.StartTimer()
				a.scaleRound(a.followAll(), false)
				a.seeEffects()
				used += cpu() - began
			}
			b.ReportMetric(100*used.Seconds()/float64(b.N), "%core")
		})
		b.Run(fmt.Sprintf("vms=%d/fast", n), func(b *testing.B) {
			a := fakeVMs(b, n)
			a.scaleRound(a.followAll(), false)
			began := cpu()
			for b.Loop() {
				a.mu.Lock()
				for _, f := range a.followers {
					f.looks = wakeLooks
				}
				a.mu.Unlock()
				a.scaleRound(a.hottest(), true)
			}
			perSecond := (cpu() - began) / time.Duration(b.N) * (time.Second / hotEvery)
			b.ReportMetric(100*perSecond.Seconds(), "%core")
		})
	}
}

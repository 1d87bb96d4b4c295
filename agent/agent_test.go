package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/host"
	"cloudflash/agent/meter"
	"cloudflash/agent/outcomes"
	"cloudflash/agent/pages"
	"cloudflash/agent/policy"
	"cloudflash/agent/schedule"
	"cloudflash/agent/state"
	"cloudflash/agent/store"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"

	"golang.org/x/sys/unix"
)

// bare is an agent with a store and no kernel behind it.
func bare(t testing.TB) *Agent {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(filepath.Join(dir, "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	h, err := host.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.StateDir, cfg.RunDir, cfg.Log = dir, dir, slog.New(slog.DiscardHandler)
	a := &Agent{
		boot:      "this boot",
		cfg:       cfg,
		log:       cfg.Log,
		store:     st,
		host:      h,
		policy:    schedule.FirstFit{},
		outcomes:  outcomes.New(),
		parent:    new(cgroup.Parent), // no VM has a cgroup
		vms:       map[string]*heldVM{},
		cloudlets: map[string]*heldCloudlet{},
		sessions:  map[string]*session{},
		updates:   make(chan struct{}),
		wake:      make(chan struct{}, 1),
	}
	if err := a.load(""); err != nil {
		t.Fatal(err)
	}
	a.Pages = pages.Open(pages.Config{
		Log:     cfg.Log,
		State:   a.state,
		Budget:  -1,
		Report:  func(time.Duration, error) {},
		Changed: a.tellUpdates,
	})
	t.Cleanup(func() { _ = a.Pages.Close() })
	a.advisor = a.newAdvisor()
	return a
}

// must is a change that nobody refuses.
func (a *Agent) must(t testing.TB, do func(*state.Tx)) {
	t.Helper()
	if err := a.state.Update(func(tx *state.Tx) error { do(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

// add stores a VM, and returns the agent's hold on it.
func (a *Agent) add(t testing.TB, r vmRecord) *heldVM {
	t.Helper()
	v := &heldVM{VM: a.platform.VM(&r)}
	a.held.Lock()
	a.vms[v.ID] = v
	a.held.Unlock()
	a.must(t, func(tx *state.Tx) { tx.PutVM(r) })
	return v
}

// runs lets a VM have a connection to its init, and a meter.
func (v *heldVM) runs(g *guest.Guest, p *meter.Probe) {
	l := v.Work()
	defer l.Release()
	l.Adopt(vm.Running{Guest: g, Probe: p})
}

// edit changes what is stored of a VM.
func (a *Agent) edit(t testing.TB, id string, change func(*vmRecord)) {
	t.Helper()
	a.must(t, func(tx *state.Tx) {
		r := *tx.VM(id)
		change(&r)
		tx.PutVM(r)
	})
}

// own sets the host's policy.
func (a *Agent) own(t testing.TB, p ownPolicy) {
	t.Helper()
	a.must(t, func(tx *state.Tx) { tx.SetPolicy(p) })
}

func TestRangesNameFieldValueAndLimit(t *testing.T) {
	ok := DefaultConfig().Defaults
	tests := map[string]struct {
		change  func(*Spec)
		pointer string
	}{
		"the defaults pass":     {func(*Spec) {}, ""},
		"cpus too many":         {func(s *Spec) { s.CPUs = 33 }, "/cpus"},
		"cpus negative":         {func(s *Spec) { s.CPUs = -1 }, "/cpus"},
		"cpus not a number":     {func(s *Spec) { s.CPUs = math.NaN() }, "/cpus"},
		"cpus infinite":         {func(s *Spec) { s.CPUs = math.Inf(1) }, "/cpus"},
		"memory too little":     {func(s *Spec) { s.MemoryBytes = 1 }, "/memory_bytes"},
		"storage too much":      {func(s *Spec) { s.StorageBytes = 11 * tib }, "/storage_bytes"},
		"bandwidth too much":    {func(s *Spec) { s.BandwidthBPS = 1e11 }, "/bandwidth_bps"},
		"pids too few":          {func(s *Spec) { s.PIDs = 1 }, "/pids"},
		"io of 1":               {func(s *Spec) { s.IO.ReadBPS = 1 }, "/io/rbps"},
		"iops of 1":             {func(s *Spec) { s.IO.WriteIOPS = 1 }, "/io/wiops"},
		"iops of 32 bits":       {func(s *Spec) { s.IO.ReadIOPS = math.MaxUint32 }, "/io/riops"},
		"iops beyond 32 bits":   {func(s *Spec) { s.IO.WriteIOPS = 1 << 32 }, "/io/wiops"},
		"the most iops pass":    {func(s *Spec) { s.IO.ReadIOPS = math.MaxUint32 - 1 }, ""},
		"the most bytes pass":   {func(s *Spec) { s.IO.ReadBPS = math.MaxInt64 }, ""},
		"io negative":           {func(s *Spec) { s.IO.WriteBPS = -5 }, "/io/wbps"},
		"the lowest cpus pass":  {func(s *Spec) { s.CPUs = 0.1 }, ""},
		"the highest cpus pass": {func(s *Spec) { s.CPUs = 32 }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := ok
			tt.change(&s)
			err := DefaultConfig().Ranges.Check(s)
			var e *fault.Error
			switch {
			case tt.pointer == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.pointer != "" && (!errors.As(err, &e) || !errors.Is(err, fault.ErrInvalid)):
				t.Errorf("err = %v, want an invalid-field error", err)
			case tt.pointer != "" && (e.Fields[0].Pointer != tt.pointer || e.Fields[0].Min == nil || e.Fields[0].Max == nil):
				t.Errorf("fields = %+v, want %s with its range", e.Fields, tt.pointer)
			}
		})
	}
}

func TestVMNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"web": true, "a": true, "web-1": true, strings.Repeat("a", 63): true,
		"": false, "-web": false, "web-": false, "Web": false, "a/b": false, "..": false, "a\nb": false,
		"a b": false, strings.Repeat("a", 64): false, strings.Repeat("x", 300): false, "wéb": false, "a\x00": false,
		"host": false, "deleted": false, "host-1": true,
	} {
		if err := checkVMName(name); (err == nil) != ok {
			t.Errorf("%q: err = %v, want accepted = %v", name, err, ok)
		}
	}
	var e *fault.Error
	if err := checkVMName(pages.OwnerHost); !errors.As(err, &e) || !errors.Is(err,
		fault.ErrInvalid) || len(e.Fields) != 1 || e.Fields[0].Pointer != "/name" || !strings.Contains(e.Detail, "owner") {
		t.Errorf("a name of an owner: %+v", err)
	}
}

func TestEventsAreKeptInOrderAndBounded(t *testing.T) {
	a := bare(t)
	for range state.KeepEvents/100 + 2 {
		a.must(t, func(tx *state.Tx) { tx.Tell(make([]Event, 100)...) })
	}
	all, err := a.Events(0, math.MaxInt)
	if err != nil || len(all) != state.KeepEvents {
		t.Fatalf("%d events, %v", len(all), err)
	}
	stored, err := store.All[Event](a.store, store.Events)
	if err != nil || len(stored) != state.KeepEvents || stored[0].Seq != all[0].Seq {
		t.Errorf("%d stored from %d, %v", len(stored), stored[0].Seq, err)
	}
	if got, _ := a.Events(all[5].Seq, 2); len(got) != 2 || got[0].Seq != all[5].Seq+1 {
		t.Errorf("after %d: %+v", all[5].Seq, got)
	}
	if _, err := a.Events(1, 1); !errors.Is(err, fault.ErrExpired) {
		t.Errorf("history that is gone: %v", err)
	}
	if got, err := a.Events(math.MaxUint64, 10); err != nil || len(got) != 0 {
		t.Errorf("the future: %v %v", got, err)
	}
}

// Whatever is asked of a VM that is not there is refused, and the agent goes on.
func TestUnknownVMs(t *testing.T) {
	a := bare(t)
	asked := map[string]func() error{
		"show":   func() error { _, err := a.VM("nosuch"); return err },
		"change": func() error { _, err := a.ChangeVM(t.Context(), "nosuch", VMChange{}); return err },
		"keep":   func() error { _, err := a.KeepVM("nosuch"); return err },
		"delete": func() error { _, err := a.DeleteVM(t.Context(), "nosuch", 0); return err },
		"submit": func() error { _, err := a.SubmitCloudlet(t.Context(), cloudlet.Submit{VM: "nosuch"}); return err },
		"cancel": func() error { _, err := a.CancelCloudlet(t.Context(), "nosuch"); return err },
		"freeze": func() error { _, err := a.FreezeVM(t.Context(), "nosuch"); return err },
		"thaw":   func() error { _, err := a.ThawVM(t.Context(), "nosuch"); return err },
	}
	for what, ask := range asked {
		done := make(chan error, 2)
		go func() {
			done <- ask()
			a.VMs() // wants the lock
			done <- nil
		}()
		for range 2 {
			select {
			case err := <-done:
				if err != nil && !errors.Is(err, fault.ErrNotFound) {
					t.Errorf("%s: %v", what, err)
				}
			case <-time.After(time.Minute):
				t.Fatalf("%s: the agent holds its lock", what)
			}
		}
	}
}

// What the disk has no room for is refused in words, and what has ended all the same is
// stored once it has.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(t, policy.Idle{})
		v := r.vm("web")
		r.submit("web")
		id := r.Cloudlets()[0].ID
		var full atomic.Bool
		full.Store(true)
		var err error
		r.state, err = state.Load(r.store, state.Config{
			Unstored: r.unstored,
			Commit: func(changes ...store.Change) error {
				if full.Load() {
					return fmt.Errorf("write: %w", unix.ENOSPC)
				}
				return r.store.Commit(changes...)
			},
		})
		r.ok(err)

		var e *fault.Error
		_, err = r.SubmitCloudlet(t.Context(), cloudlet.Submit{VM: "web"})
		if !errors.As(err, &e) || !errors.Is(err, fault.ErrFull) || e.Code != "disk_full" || e.Hint == "" {
			t.Errorf("submit: %v", err)
		}
		if _, err := r.CancelCloudlet(t.Context(), id); !errors.Is(err, fault.ErrFull) {
			t.Errorf("cancel: %v", err)
		}
		if c := r.Cloudlets(); len(c) != 1 || c[0].State != CloudletStarting || c[0].Reason != "" {
			t.Errorf("it was changed: %+v", c)
		}

		stored := make(chan bool)
		go func() {
			stored <- untilStored(t.Context(), func() bool { return r.end(id, v.VM, cloudlet.End{Code: 3}, Usage{}, clock.Now()) })
		}()
		time.Sleep(5 * time.Second)
		if c, _ := r.Cloudlet(id); c.State != CloudletStarting {
			t.Errorf("%s", c.State)
		}
		full.Store(false)
		if !<-stored {
			t.Error("it was given up")
		}
		if c, _ := r.Cloudlet(id); c.State != CloudletFailed || *c.ExitCode != 3 {
			t.Errorf("%+v", c)
		}
	})
}

// The scheduler is told of the VMs that are asked for, of all where any will do.
func TestNodesAreThoseThatAreAskedFor(t *testing.T) {
	a := bare(t)
	for _, id := range []string{"a", "b", "c"} {
		v := a.add(t, vmRecord{ID: id, Name: id, State: VMRunning})
		v.runs(new(guest.Guest), nil)
	}
	for want, items := range map[string][]schedule.Item{
		"b":   {{VM: "b"}},
		"ac":  {{VM: "c"}, {VM: "a"}, {VM: "gone"}},
		"abc": {{VM: "b"}, {}},
		"":    nil,
	} {
		got := ""
		for _, n := range a.nodes(a.state.View(), items) {
			got += n.ID
		}
		if got != want {
			t.Errorf("%v: %q, want %q", items, got, want)
		}
	}
}

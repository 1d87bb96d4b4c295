package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/agent/policy"
	"cloudflash/cgroup"
)

// files is a directory that is read as if it were the cgroup of a VM.
type files string

func (d files) OpenReader() (*cgroup.Reader, error) { return cgroup.OpenReader(string(d)) }

// idleRig is an agent whose VMs are files: nothing runs, all decisions are real.
type idleRig struct {
	*Agent
	t     *testing.T
	files files
}

func newIdleRig(t *testing.T, c policy.Idle) *idleRig {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../cgroup/testdata/6.12")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &idleRig{Agent: bare(t), t: t, files: files(dir)}
	r.cfg.Idle = c
	r.meter = meter.New(meter.Config{StateDir: dir, Log: r.cfg.Log})
	r.tasks, r.stopped = make(chan func(context.Context)), make(chan struct{})
	close(r.stopped) // what would be done in the kernel is dropped
	t.Cleanup(r.meter.Close)
	return r
}

// vm adds a running one.
func (r *idleRig) vm(name string) *heldVM {
	r.t.Helper()
	p, err := r.meter.VM(name, r.files)
	if err != nil {
		r.t.Fatal(err)
	}
	v := r.add(r.t, vmRecord{ID: name, Name: name, State: VMRunning, Spec: r.cfg.Defaults, Network: Network{Mode: NetworkIsolated}})
	v.runs(&guest.Guest{}, p)
	return v
}

// look is what the sampler does every second.
func (r *idleRig) look() {
	now := time.Now()
	r.meter.Pass(now)
	r.watchIdle(now)
}

// pass lets some seconds go by.
func (r *idleRig) pass(seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		r.look()
	}
}

// kinds are the events so far, with whom they are about.
func (r *idleRig) kinds() string {
	all, err := r.Events(0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		if e.VM != "" {
			out = append(out, e.Kind+" "+e.VM)
		}
	}
	return strings.Join(out, ", ")
}

func (r *idleRig) want(events string, states ...VMState) {
	r.t.Helper()
	if got := r.kinds(); got != events {
		r.t.Errorf("events:\n%s, want:\n%s", got, events)
	}
	var got []VMState
	for _, v := range r.VMs() {
		got = append(got, v.State)
	}
	if !slices.Equal(got, states) {
		r.t.Errorf("states %v, want %v", got, states)
	}
}

var minuteAndHalf = policy.Idle{After: time.Minute, Notice: 30 * time.Second}

func TestIdleVMIsAnnouncedThenDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(t, minuteAndHalf)
		r.vm("web")
		r.look()
		if v, _ := r.VM("web"); v.IdleSince != nil {
			t.Error("idle at first sight")
		}
		r.pass(59)
		r.want("", VMRunning)
		if v, _ := r.VM("web"); v.IdleSince == nil || v.Autoscale.DeleteAt != nil || v.Autoscale.IdleAfterSeconds != 60 || v.Autoscale.IdleNoticeSeconds != 30 {
			t.Errorf("after 59 s: since %v, %+v", v.IdleSince, v.Autoscale)
		}
		r.pass(1)
		r.want("vm.idle web", VMRunning)
		v, _ := r.VM("web")
		if at := v.Autoscale.DeleteAt; at == nil || at.Sub(*v.IdleSince) != 90*time.Second {
			t.Errorf("idle since %v, to be deleted at %v", v.IdleSince, at)
		}
		e, _ := r.Events(0, 10)
		if !strings.Contains(e[0].Message, "idle for 1m0s") || !strings.Contains(e[0].Message, "in 30s") || !strings.Contains(e[0].Message, "vm set web --keep") || e[0].Level != LevelWarn {
			t.Errorf("it says: %s %s", e[0].Level, e[0].Message)
		}
		r.pass(29)
		r.want("vm.idle web", VMRunning)
		r.pass(1)
		r.want("vm.idle web, vm.idle_deleted web, vm.deleting web", VMDeleting)
		if ops := r.Operations(); len(ops) != 1 || ops[0].Kind != "vm.delete" || ops[0].Target != "web" {
			t.Errorf("operations: %+v", ops)
		}
		r.pass(200)
		r.want("vm.idle web, vm.idle_deleted web, vm.deleting web", VMDeleting)
	})
}

// Whatever happens in the notice ends it, and the counting begins anew.
func TestWhatEndsTheNotice(t *testing.T) {
	keep := true
	for name, c := range map[string]struct {
		act func(*idleRig, *heldVM)
		why string
	}{
		"a cloudlet in it": {func(r *idleRig, v *heldVM) { r.submit("web") }, "a cloudlet is in it"},
		"a cloudlet for it": {func(r *idleRig, v *heldVM) {
			v.runs(nil, v.Probe())
			r.submit("web")
		}, "a cloudlet waits for it"},
		"a cloudlet for any": {func(r *idleRig, v *heldVM) { r.submit(""); r.startQueued() }, "a cloudlet is in it"},
		"a session":          {func(r *idleRig, v *heldVM) { _, _, _, _, err := r.openSession("web"); r.ok(err) }, "a command of vm exec runs in it"},
		"kept":               {func(r *idleRig, v *heldVM) { _, err := r.KeepVM("web"); r.ok(err) }, "it is kept"},
		"kept through a change": {func(r *idleRig, v *heldVM) {
			_, err := r.ChangeVM(t.Context(), "web", VMChange{Keep: &keep})
			r.ok(err)
		}, "it is kept"},
		"frozen":                  {func(r *idleRig, v *heldVM) { _, err := r.storeFreezer(v.VM, VMRunning, VMFrozen, "frozen"); r.ok(err) }, "it is frozen"},
		"no sample":               {func(r *idleRig, v *heldVM) { v.runs(v.Guest(), nil) }, "its CPU use cannot be told"},
		"no init":                 {func(r *idleRig, v *heldVM) { v.runs(nil, v.Probe()) }, "its CPU use cannot be told"},
		"traffic cannot be read":  {func(r *idleRig, v *heldVM) { v.Network.Mode = NetworkNAT }, "its traffic cannot be told"},
		"CPU":                     {func(r *idleRig, v *heldVM) { r.cpu(20_000) }, "its processes run"},
		"nobody looked for long":  {func(r *idleRig, v *heldVM) { time.Sleep(5 * time.Second) }, "the agent had lost sight of it"},
		"switched off meanwhile":  {func(r *idleRig, v *heldVM) { r.cfg.Idle.After = 0 }, "idle VMs are not deleted any more"},
		"a longer time meanwhile": {func(r *idleRig, v *heldVM) { r.cfg.Idle.After = time.Hour }, "idle VMs are announced after 1h0m0s now"},
		"more VMs are to be kept": {func(r *idleRig, v *heldVM) { r.cfg.Idle.MinVMs = 1 }, "at least 1 running VMs are kept"},
		"suspended in between":    {func(r *idleRig, v *heldVM) { r.woke.boot -= time.Hour }, "the machine was suspended"},
		"a change":                {func(r *idleRig, v *heldVM) { _, _, err := r.planChange(v.VM, VMChange{}); r.ok(err) }, "it was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newIdleRig(t, minuteAndHalf)
				v := r.vm("web")
				r.look()
				r.pass(75)
				if r.kinds() != "vm.idle web" {
					t.Fatalf("not announced: %s", r.kinds())
				}
				c.act(r, v)
				r.pass(1)
				all, _ := r.Events(0, 100)
				i := slices.IndexFunc(all, func(e Event) bool { return e.Kind == "vm.busy" })
				if i < 0 || all[i].Message != "VM web is not deleted: "+c.why {
					t.Errorf("events %+v, want one that says: %s", all, c.why)
				}
				if got, err := r.VM("web"); err != nil || got.Autoscale.DeleteAt != nil || got.State == VMDeleting {
					t.Errorf("%+v, %v", got.Autoscale, err)
				}
				r.pass(58)
				if strings.Contains(r.kinds(), "deleted") || strings.Count(r.kinds(), "vm.idle ") != 1 {
					t.Errorf("counting did not begin anew: %s", r.kinds())
				}
			})
		})
	}
}

// A cloudlet that any VM may run is submitted in the last second, and the sampler
// gets there before the queue.
func TestCloudletForAnyKeepsTheOnlyVM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(t, minuteAndHalf)
		r.vm("web")
		r.look()
		r.pass(89)
		r.submit("")
		r.pass(1)
		all := r.Cloudlets()
		if v, err := r.VM("web"); err != nil || v.State != VMRunning || v.Cloudlets != 1 || all[0].State != CloudletStarting {
			t.Errorf("VM %s with %d cloudlets, cloudlet %s, %v", v.State, v.Cloudlets, all[0].State, err)
		}
	})
}

func (r *idleRig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Error(err)
	}
}

func (r *idleRig) submit(vm string) {
	r.t.Helper()
	_, err := r.SubmitCloudlet(r.t.Context(), cloudlet.Submit{VM: vm})
	r.ok(err)
}

// cpu lets the processes of all VMs have run so many microseconds more.
func (r *idleRig) cpu(us int) {
	r.t.Helper()
	path := filepath.Join(string(r.files), "cpu.stat")
	b, err := os.ReadFile(path)
	r.ok(err)
	var usage int
	_, err = fmt.Sscanf(string(b), "usage_usec %d", &usage)
	r.ok(err)
	_, rest, _ := strings.Cut(string(b), "\n")
	r.ok(os.WriteFile(path, []byte(fmt.Sprintf("usage_usec %d\n%s", usage+us, rest)), 0o600))
}

func TestKeptVMsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(t, minuteAndHalf)
		r.vm("web")
		r.edit(t, "web", func(r *vmRecord) { r.Keep = true })
		r.look()
		r.pass(300)
		r.want("", VMRunning)
		if v, _ := r.VM("web"); v.IdleSince == nil || !v.Autoscale.Keep || v.Autoscale.IdleAfterSeconds != 0 {
			t.Errorf("%v %+v", v.IdleSince, v.Autoscale)
		}
		if _, err := r.ChangeVM(t.Context(), "web", VMChange{Keep: new(bool)}); err != nil {
			t.Fatal(err)
		}
		r.pass(92)
		r.want("vm.keep web, vm.idle web, vm.idle_deleted web, vm.deleting web", VMDeleting)
		if _, err := r.KeepVM("web"); !errors.Is(err, fault.ErrConflict) {
			t.Errorf("a VM that is being deleted is kept: %v", err)
		}
	})
}

// The longest idle go first, and so many stay, kept ones counted.
func TestPoolMinimum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(t, policy.Idle{After: time.Minute, Notice: 30 * time.Second, MinVMs: 2})
		r.vm("kept")
		r.edit(t, "kept", func(r *vmRecord) { r.Keep = true })
		for _, name := range []string{"c", "b", "a"} {
			r.vm(name)
			r.pass(2)
		}
		r.pass(400)
		r.want("vm.idle c, vm.idle b, vm.idle_deleted c, vm.deleting c, vm.idle_deleted b, vm.deleting b", VMRunning, VMDeleting, VMDeleting, VMRunning)
		r.vm("d")
		r.pass(10)                                                  // a is the one too many
		r.edit(t, "kept", func(r *vmRecord) { r.State = VMFailed }) // one fewer runs: none may go
		r.pass(400)
		if got := r.kinds(); !strings.HasSuffix(got, "vm.idle a, vm.busy a") {
			t.Errorf("events: %s", got)
		}
	})
}

func TestNeverDeletesWhenSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(t, policy.Idle{})
		r.vm("web")
		r.look()
		r.pass(4000)
		r.want("", VMRunning)
		if v, _ := r.VM("web"); v.IdleSince == nil {
			t.Error("it is not shown as idle")
		}
	})
}

func TestWhereIdlePolicyComesFrom(t *testing.T) {
	r := newIdleRig(t, policy.Idle{After: time.Minute, Notice: 7 * time.Second, MinVMs: 3})
	p := r.rules().ShowIdle(ownPolicy{})
	if p.AfterSeconds != 60 || p.NoticeSeconds != 7 || p.MinVMs != 3 ||
		p.Sources["after_seconds"] != policy.SourceDefault || p.Sources["notice_seconds"] != policy.SourceServe || p.Sources["min_vms"] != policy.SourceServe {
		t.Errorf("%+v", p)
	}
	after, most := 12.5, 1
	own := ownPolicy{Layer: PolicyLayer{Idle: &IdleChange{AfterSeconds: &after, MinVMs: &most}}}
	if got, want := r.rules().IdleFor(own), (policy.Idle{After: 12500 * time.Millisecond, Notice: 7 * time.Second, MinVMs: 1}); got != want {
		t.Errorf("in force: %+v, want %+v", got, want)
	}
	p = r.rules().ShowIdle(own)
	if p.AfterSeconds != 12.5 || p.Sources["after_seconds"] != policy.SourceHost || p.Sources["notice_seconds"] != policy.SourceServe {
		t.Errorf("%+v", p)
	}
}

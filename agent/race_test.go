package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
	"cloudflash/agent/state"
	"cloudflash/agent/tokens"
	"cloudflash/agent/vm"

	"github.com/google/go-cmp/cmp"
)

// Everything that changes VMs and cloudlets at once with everything that reads them:
// the race detector says what is wrong, and in the end memory is what is stored.
func TestEveryChangeBesideEveryReader(t *testing.T) {
	r := newIdleRig(t, policy.Idle{})
	r.scaling = r.newScaling()
	const vms = 4
	for i := range vms {
		r.vm(fmt.Sprint("vm", i))
	}
	r.publish()
	_, secret, err := r.Tokens.Create("all", tokens.RoleViewer)
	r.ok(err)

	ctx := t.Context()
	some := func() *vm.VM { return r.known(fmt.Sprint("vm", rand.IntN(vms))) }
	job := func() string { return fmt.Sprint("job", rand.IntN(20)) }
	id := func() string {
		if c := r.state.View().FindCloudlet(job()); c != nil {
			return c.ID
		}
		return ""
	}
	yes, no := true, false
	var loop sync.Mutex

	changes := map[string]func(v *vm.VM) error{
		"submit": func(v *vm.VM) error {
			_, err := r.SubmitCloudlet(ctx, cloudlet.Submit{Name: job(), VM: v.ID, DeadlineSeconds: 0.01 + rand.Float64()})
			return err
		},
		"place": func(*vm.VM) error { return r.startQueued() },
		"start": func(v *vm.VM) error {
			r.started(id(), v, nil, guest.Running{PID: 1, StartedAt: time.Now()})
			return nil
		},
		"end": func(v *vm.VM) error {
			r.end(id(), v, cloudlet.End{}, Usage{CPUSeconds: 1}, clock.Now(), time.Now())
			return nil
		},
		"lose": func(*vm.VM) error { r.lose(id(), Usage{}); return nil },
		"cancel": func(*vm.VM) error {
			_, _ = r.CancelCloudlet(ctx, job())
			c, err := r.SubmitCloudlet(ctx, cloudlet.Submit{}) // one that nobody else ends
			if err != nil {
				return err
			}
			_, err = r.CancelCloudlet(ctx, c.ID)
			return err
		},
		"deadlines": func(*vm.VM) error { r.enforceDeadlines(clock.SinceBoot()); return nil },
		"thrash":    func(v *vm.VM) error { r.killThrashing(v, id(), 1); return nil },
		"keep":      func(v *vm.VM) error { _, err := r.ChangeVM(ctx, v.ID, VMChange{Keep: &yes}); return err },
		"unkeep":    func(v *vm.VM) error { _, err := r.ChangeVM(ctx, v.ID, VMChange{Keep: &no}); return err },
		"plan":      func(v *vm.VM) error { _, _, err := r.planChange(v, VMChange{CPUs: new(0.5)}); return err },
		"resize": func(v *vm.VM) error {
			return r.update(v, func(rec *vmRecord) {
				rec.Spec.CPUs += 0.01
				rec.Sized = scaling.Resized(rec, 0, rec.Spec.CPUs, 0)
			})
		},
		"policy": func(v *vm.VM) error { _, err := r.storePolicy(v.ID, PolicyLayer{}, ""); return err },
		"host policy": func(*vm.VM) error {
			_, err := r.storePolicy("", PolicyLayer{Rules: map[string]RuleChange{"all": {Up: new(0.9)}}}, "")
			return err
		},
		"freeze": func(v *vm.VM) error { _, err := r.storeFreezer(v, VMRunning, VMFrozen, "frozen"); return err },
		"thaw":   func(v *vm.VM) error { _, err := r.storeFreezer(v, VMFrozen, VMRunning, "thawed"); return err },
		"fail":   func(v *vm.VM) error { r.fail(v, errors.New("it was tried")); return nil },
		"recover": func(v *vm.VM) error {
			_, err := r.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.recovered", VM: v.ID})
			return err
		},
		"session": func(v *vm.VM) error {
			_, _, id, _, err := r.openSession(v.ID)
			if err == nil {
				r.closed(id)
			}
			return err
		},
		"create and delete": func(*vm.VM) error {
			v, _, err := r.admit(VMCreate{Name: "more", Spec: Spec{CPUs: 0.1, MemoryBytes: 32 * mib}}.withDefaults(r.cfg.Defaults), asked{})
			if err != nil {
				return err
			}
			if _, err := r.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.created", VM: v.ID}); err != nil {
				return err
			}
			if _, err := r.DeleteVM(ctx, v.ID, 0); err != nil {
				return err
			}
			r.deleteFailed(v, errors.New("busy"))
			return r.state.Update(func(tx *state.Tx) error {
				tx.DeleteVM(v.ID)
				tx.Then(func() { r.forget(v) })
				return nil
			})
		},
		"token": func(*vm.VM) error {
			if _, _, err := r.Tokens.Create("ci", tokens.RoleViewer); err != nil {
				return err
			}
			return r.Tokens.Revoke("ci")
		},
		"decide": func(v *vm.VM) error {
			return r.state.Update(func(tx *state.Tx) error {
				seq := tx.AddDecision(Decision{VM: v.ID, Resource: "cpus", Action: "grow", Result: DecisionApplied})
				d := *tx.Decision(seq)
				d.Effect = &Effect{}
				tx.PutDecision(d)
				return nil
			})
		},
		"limits": func(v *vm.VM) error {
			l := v.Work()
			defer l.Release()
			_ = l.ReadLimits() // there is no kernel
			l.Took(autoscale.CPU, rand.Float64(), 0)
			return nil
		},
		"sample": func(*vm.VM) error {
			r.takeUsages(r.state.View(), time.Now())
			r.watchIdle(time.Now())
			r.publish()
			return nil
		},
		"scale": func(*vm.VM) error {
			loop.Lock() // there is one
			defer loop.Unlock()
			r.scaling.Round()
			return nil
		},
	}
	readers := map[string]func(){
		"vm":         func() { _, _ = r.VM("vm0") },
		"vms":        func() { r.VMs() },
		"cloudlet":   func() { _, _ = r.Cloudlet(job()) },
		"cloudlets":  func() { r.Cloudlets() },
		"host":       func() { r.Host() },
		"snapshot":   func() { r.Snapshot() },
		"scaling":    func() { r.ScalingStatus() },
		"policy":     func() { _, _ = r.Policy("vm1") },
		"advice":     func() { _, _ = r.Advice("") },
		"operations": func() { r.Operations() },
		"events":     func() { _, _ = r.Events(0, 100) },
		"decisions":  func() { _, _ = r.Decisions(0, 100) },
		"tokens":     func() { r.Tokens.List() },
		"login": func() {
			if _, err := r.Tokens.Authenticate(secret); err != nil {
				t.Error(err)
			}
		},
		"updates": func() {
			select {
			case <-r.Updates():
			case <-time.After(time.Millisecond):
			}
		},
	}

	var writing, reading sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	for _, read := range readers {
		reading.Go(func() {
			for stop.Err() == nil {
				read()
				time.Sleep(time.Millisecond) // or nobody else would get a processor
			}
		})
	}
	for name, change := range changes {
		writing.Go(func() {
			went := false
			for n := 0; n < 12 || !went && n < 1000; n++ {
				err := change(some())
				var refusal *fault.Error
				if err != nil && !errors.As(err, &refusal) {
					t.Errorf("%s: %v", name, err)
				}
				went = went || err == nil
			}
			if !went {
				t.Errorf("%s was always refused", name)
			}
		})
	}
	writing.Wait()
	cancel()
	reading.Wait()

	s := r.state.View()
	again, err := state.Load(r.store, state.Config{})
	r.ok(err)
	stored := again.View()
	if diff := cmp.Diff(contents(stored), contents(s)); diff != "" {
		t.Errorf("stored and in memory:\n%s", diff)
	}
	n := 0
	for range s.Live() {
		n++
	}
	if n != s.LiveCount() {
		t.Errorf("%d live cloudlets, counted %d", n, s.LiveCount())
	}
}

// contents are all records of a view.
func contents(s state.View) map[string]any {
	all := map[string]any{"policy": s.Policy(), "counts": s.CloudletCounts()}
	for r := range s.VMs() {
		all["vm "+r.ID] = r
	}
	for r := range s.Live() {
		all["cloudlet "+r.ID] = r
	}
	for r := range s.Ended() {
		all["cloudlet "+r.ID] = r
	}
	for r := range s.Operations() {
		all["operation "+r.ID] = r
	}
	all["decisions"], _ = s.Decisions(0, state.KeepDecisions)
	return all
}

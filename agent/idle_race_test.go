package agent

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// In every round the notice of a VM is just over when work for it arrives, of many
// kinds at once: each is refused or goes elsewhere, or the VM stays.
func TestNoWorkGoesWithAnIdleVM(t *testing.T) {
	r := newIdleRig(t, minuteAndHalf)
	deleted, stayed, refused := 0, 0, 0
	for round := range 80 {
		name := fmt.Sprint("vm", round)
		v := r.overdue(name)
		work := []func() error{
			func() error { _, err := r.SubmitCloudlet(t.Context(), cloudlet.Submit{VM: name}); return err },
			func() error { _, err := r.SubmitCloudlet(t.Context(), cloudlet.Submit{}); return err },
			func() error { _, _, id, _, err := r.openSession(name); r.closed(id); return err },
			func() error { _, err := r.KeepVM(name); return err },
			func() error { _, err := r.storeFreezer(v.VM, VMRunning, VMFrozen, "frozen"); return err },
		}
		var wg, working sync.WaitGroup
		errs := make([]error, 4)
		looked := make(chan struct{})
		for i := range errs {
			working.Go(func() {
				if round%4 == 1 {
					<-looked
				}
				time.Sleep(time.Duration((round*7+i*3)%11) * 20 * time.Microsecond)
				if i == 3 {
					r.startQueued()
					return
				}
				errs[i] = work[(round+i)%len(work)]()
			})
		}
		wg.Go(func() {
			defer close(looked)
			if round%4 == 0 { // on one processor that is busy, one of them might always come first
				working.Wait()
			}
			for range 3 {
				r.look()
			}
		})
		working.Wait()
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				refused++
				if !errors.Is(err, fault.ErrConflict) && !errors.Is(err, fault.ErrNotFound) {
					t.Error(err)
				}
			}
		}
		if r.settle(v) {
			deleted++
		} else {
			stayed++
		}
	}
	t.Logf("%d VMs deleted, %d stayed, %d refusals", deleted, stayed, refused)
	if deleted < 5 || stayed < 5 || refused < 5 {
		t.Error("it has hardly been tried")
	}
}

// overdue adds a VM whose notice has been over for long.
func (r *idleRig) overdue(name string) *heldVM {
	v := r.vm(name)
	r.look()
	r.held.Lock()
	defer r.held.Unlock()
	now := time.Now()
	v.idle.Last, v.idle.Sign, v.idle.Announced = now.Add(-time.Hour), "", now.Add(-time.Minute)
	return v
}

func (r *idleRig) closed(session string) {
	r.held.Lock()
	defer r.held.Unlock()
	delete(r.sessions, session)
}

// settle holds every cloudlet against its VM, then ends them all and takes the VM
// away. It reports whether that was being deleted.
func (r *idleRig) settle(v *heldVM) (deleted bool) {
	s := r.state.View()
	rec := s.VM(v.ID)
	deleted = rec.State == VMDeleting
	if deleted && rec.Keep {
		r.t.Errorf("%s was kept and is deleted", v.Name)
	}
	r.must(r.t, func(tx *state.Tx) {
		for c := range s.Live() {
			if c.VM == v.ID && deleted || c.Stop == stopDelete {
				r.t.Errorf("cloudlet %s is %s in VM %s, which is deleted", c.ID, c.State, v.Name)
			}
			over := *c
			over.State = CloudletCancelled
			tx.PutCloudlet(over)
		}
		tx.DeleteVM(v.ID)
	})
	r.held.Lock()
	delete(r.vms, v.ID)
	r.held.Unlock()
	r.meter.Forget(v.ID)
	return deleted
}

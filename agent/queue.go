package agent

import (
	"context"
	"slices"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/schedule"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
)

// runQueue starts what is queued and ends what is due, whenever either may
// have changed.
func (a *Agent) runQueue(ctx context.Context) {
	for {
		next := a.enforceDeadlines(clock.SinceBoot())
		if a.startQueued() != nil {
			next = min(next, queueAgain)
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// queueAgain is when it is tried again to store who goes where.
const queueAgain = 5 * storeAgain

// startQueued asks the policy who goes where, and starts them.
func (a *Agent) startQueued() error {
	if a.state.View().CloudletCounts()[CloudletQueued] == 0 {
		return nil
	}
	var placed []placement
	err := a.state.Update(func(tx *state.Tx) error {
		placed = a.placeQueued(tx)
		return nil
	})
	if err == nil {
		a.startPlaced(placed)
	}
	return err
}

// placement is a cloudlet that is to start in a VM.
type placement struct {
	id string
	v  *vm.VM
}

// placeQueued stores who goes where. What waits learns why; that is shown, not stored:
// it is worked out anew.
func (a *Agent) placeQueued(tx *state.Tx) []placement {
	items := queue(tx.View)
	plan := a.policy.Plan(items, a.nodes(tx.View, items))
	var placed []placement
	a.held.Lock()
	defer a.held.Unlock()
	a.waiting = plan.Waiting
	for _, p := range plan.Placements {
		v := a.vms[p.VM]
		rec := *tx.Cloudlet(p.Item)
		rec.State, rec.VM, rec.VMName, rec.Reason = CloudletStarting, v.ID, v.Name, ""
		tx.PutCloudlet(rec)
		v.idle.Touch(time.Now(), "a cloudlet was started in it")
		placed = append(placed, placement{rec.ID, v.VM})
	}
	return placed
}

// startPlaced starts what was placed.
func (a *Agent) startPlaced(placed []placement) {
	for _, p := range placed {
		a.spawn(func(ctx context.Context) { a.start(ctx, p.id, p.v) })
	}
}

func queue(s state.View) []schedule.Item {
	var items []schedule.Item
	for c := range s.LiveAs(CloudletQueued) {
		it := schedule.Item{
			ID:          c.ID,
			SLA:         c.SLA,
			Submitted:   c.SubmittedBoot,
			Deadline:    schedule.NoDeadline,
			CPUs:        c.Request.CPUs,
			MemoryBytes: c.Request.MemoryBytes,
			GPUs:        c.Request.GPUs,
		}
		if c.Pinned {
			it.VM = c.VM
		}
		if c.DeadlineAt != nil {
			it.Deadline = c.DeadlineBoot
		}
		items = append(items, it)
	}
	return items
}

// nodes are the running VMs that items may go to, by name, with what they have not
// promised.
func (a *Agent) nodes(s state.View, items []schedule.Item) []schedule.Node {
	any := slices.ContainsFunc(items, func(it schedule.Item) bool { return it.VM == "" })
	asked := map[string]bool{}
	for _, it := range items {
		asked[it.VM] = true
	}

	var nodes []schedule.Node
	for r := range s.VMs() {
		if !any && !asked[r.ID] {
			continue
		}
		if v := a.known(r.ID); r.State != VMRunning || v == nil || v.Guest() == nil {
			continue
		}
		n := schedule.Node{
			ID:          r.ID,
			Name:        r.Name,
			CPUs:        r.Spec.CPUs,
			MemoryBytes: r.Spec.MemoryBytes,
			GPUs:        len(r.GPUs),
		}
		for c := range s.HoldIn(r.ID) {
			n.CPUs -= c.Request.CPUs
			n.MemoryBytes -= c.Request.MemoryBytes
			n.GPUs -= c.Request.GPUs
		}
		nodes = append(nodes, n)
	}
	return nodes
}

package agent

import (
	"cmp"
	"context"
	"fmt"
	"syscall"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"
)

// never is how long the queue loop sleeps when nothing is due.
const never = time.Hour

// storeAgain is when what could not be stored is tried again.
const storeAgain = time.Second

// enforceDeadlines ends what is past its deadline or its grace, and returns how
// long until the next is due.
func (a *Agent) enforceDeadlines(now time.Duration) time.Duration {
	s := a.state.View()
	next := never
	var late []string
	for c := range s.Deadlines() {
		if wait := c.DeadlineBoot - now; wait > 0 {
			next = min(next, wait)
			break
		}
		late = append(late, c.ID)
	}
	if len(late) > 0 && a.stop(stopDeadline, theseStill(late)) != nil {
		next = min(next, storeAgain)
	}

	for c := range s.Stopping() {
		wait := c.StoppingBoot + a.cfg.Grace - now
		if wait <= 0 {
			wait = a.kill(c, now)
		}
		if wait > 0 {
			next = min(next, wait)
		}
		if c.StoppingBoot+a.cfg.Grace > now {
			break
		}
	}
	return next
}

// theseStill are those that have not ended meanwhile.
func theseStill(ids []string) func(state.View) ([]*cloudletRecord, error) {
	return func(s state.View) (live []*cloudletRecord, _ error) {
		for _, id := range ids {
			if c := s.Cloudlet(id); c != nil && !c.State.Final() {
				live = append(live, c)
			}
		}
		return live, nil
	}
}

// kill ends a cloudlet whose grace is over; else it returns what is left of that.
func (a *Agent) kill(c *cloudletRecord, now time.Duration) time.Duration {
	a.held.Lock()
	v, hold := a.vms[c.VM], a.cloudlets[c.ID]
	again := false
	if hold != nil {
		if wait := hold.termed + a.cfg.Grace - now; wait > 0 {
			a.held.Unlock()
			return wait
		}
		again, hold.killing = hold.killing, true
	}
	a.held.Unlock()
	if v == nil || again {
		return 0
	}
	scope := v.Scope(c.ID)
	a.spawn(func(ctx context.Context) {
		if err := cgroup.IgnoreGone(scope.Kill(ctx)); err != nil {
			a.log.Error("kill cloudlet", "cloudlet", c.Name, "err", err)
		}
	})
	return 0
}

// stop begins to end cloudlets: a queued one is over at once, a running one gets
// SIGTERM and then, from the queue loop, cgroup.kill. Which says whom, or refuses.
func (a *Agent) stop(why string, which func(state.View) ([]*cloudletRecord, error)) error {
	var told []cloudletRecord
	err := a.state.UpdateAnyway(func(tx *state.Tx) error {
		some, err := which(tx.View)
		m := clock.Now()
		for _, c := range some {
			switch {
			case c.State != CloudletQueued && c.Stop != "": // it was told before
			case c.State == CloudletQueued:
				a.held.Lock()
				waits := cmp.Or(a.waiting[c.ID], c.Reason)
				a.held.Unlock()
				rec := cloudlet.Unstarted(c, why, waits, m)
				tx.PutCloudlet(rec)
				tx.Tell(cloudlet.Finished(&rec))
				tx.Then(func() { a.over(&rec, false) })
			default:
				rec := *c
				rec.Stop, rec.StoppingBoot = why, m.Boot
				tx.PutCloudlet(rec)
				tx.Tell(Event{Level: LevelInfo, Kind: "cloudlet.stopping", VM: c.VM, Cloudlet: c.ID,
					Message: fmt.Sprintf("cloudlet %s gets SIGTERM: %s", c.Name, why)})
				told = append(told, rec)
			}
		}
		return err
	})
	if err != nil {
		return err
	}

	for _, c := range told {
		a.held.Lock()
		if hold := a.cloudlets[c.ID]; hold != nil {
			hold.termed = clock.SinceBoot()
		}
		a.held.Unlock()
		if v := a.known(c.VM); v != nil && c.State != CloudletStarting { // else started sends it
			a.spawn(func(context.Context) { a.sendTERM(v.Scope(c.ID)) })
		}
	}
	if len(told) > 0 {
		a.poke()
	}
	return nil
}

// sendTERM tells all processes of a cloudlet to end: a shell does not pass it on to what it
// waits for.
func (a *Agent) sendTERM(scope *cgroup.Scope) {
	if err := cgroup.IgnoreGone(scope.Signal(syscall.SIGTERM)); err != nil {
		a.log.Warn("send SIGTERM", "err", err)
	}
}

// exited is called for every exit in a VM's journal, perhaps more than once for
// the same, and for several at once. What the command left running goes down with it,
// unless it was told to end: then that has the rest of the grace.
func (a *Agent) exited(ctx context.Context, v *vm.VM, g *guest.Guest, e guest.Exit) {
	c := a.state.View().Cloudlet(e.ID)
	scope := v.Scope(e.ID)
	told := c != nil && c.Graceful() && (e.FinishedBoot == 0 || e.FinishedBoot >= c.StoppingBoot) // before it ended
	if !told || scope.Empty() {
		a.conclude(ctx, v, g, e)
		return
	}
	a.spawn(func(ctx context.Context) {
		err := cgroup.IgnoreGone(scope.AwaitEmpty(ctx))
		if ctx.Err() != nil {
			return // the journal has it for the next agent
		}
		if err != nil {
			a.log.Warn("wait for what a command has left", "cloudlet", e.ID, "err", err)
		}
		e.FinishedAt, e.FinishedBoot = time.Now(), clock.SinceBoot()
		a.conclude(ctx, v, g, e)
	})
}

// conclude kills what a command has left, and stores its end. What a command of vm exec has
// left when its caller has hung up has the rest of a grace, see hangUp.
func (a *Agent) conclude(ctx context.Context, v *vm.VM, g *guest.Guest, e guest.Exit) {
	c := a.state.View().Cloudlet(e.ID)
	scope := v.Scope(e.ID)
	if a.hungUp(e.ID) {
		a.sessionEnded(e)
		_ = g.Acknowledge(ctx, e.ID)
		return
	}

	left := 0
	if !scope.Empty() {
		pids, _ := scope.PIDs() // what cannot be read is killed all the same
		left = len(pids)
		if err := cgroup.IgnoreGone(scope.Kill(ctx)); err != nil {
			a.log.Warn("clear scope", "cloudlet", e.ID, "err", err)
		}
	}
	if a.sessionEnded(e) {
		_ = g.Acknowledge(ctx, e.ID)
		return
	}
	if c == nil || c.State.Final() {
		a.cleared(ctx, g, e, scope)
		return
	}

	use := usageOf(meter.Read(scope))
	end := cloudlet.End{Code: e.Code, Signal: e.Signal, OOM: use.OOMKills > 0}
	if c.Stop == "" && !end.OOM { // else they were about to end, or were killed already
		end.Left = left
	}
	at := momentOf(e, c.SubmittedBoot)
	stored := func() bool { return a.end(e.ID, v, end, use, at, e.StartedAt) }
	if stored() {
		a.boundOutput(v.ID, e.ID)
		a.cleared(ctx, g, e, scope)
		return
	}
	// Others may be able to end: they do not wait for this one. The journal keeps it
	// until then, also for an agent to come.
	a.spawn(func(ctx context.Context) {
		if untilStored(ctx, stored) {
			a.boundOutput(v.ID, e.ID)
			a.cleared(ctx, g, e, scope)
		}
	})
}

// cleared removes what is left of a cloudlet whose end is stored.
func (a *Agent) cleared(ctx context.Context, g *guest.Guest, e guest.Exit, scope *cgroup.Scope) {
	if err := scope.Remove(ctx); err != nil {
		a.log.Warn("remove scope", "cloudlet", e.ID, "err", err)
	}
	if err := g.Acknowledge(ctx, e.ID); err != nil && ctx.Err() == nil {
		a.log.Warn("acknowledge exit", "cloudlet", e.ID, "err", err)
	}
}

// untilStored does something again and again until it is stored: the disk may be full.
// False means that ctx has ended before.
func untilStored(ctx context.Context, do func() bool) bool {
	for wait := storeAgain; !do(); wait = min(2*wait, 30*storeAgain) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
	return true
}

// end stores how a cloudlet ended; false means that it could not.
func (a *Agent) end(id string, v *vm.VM, end cloudlet.End, use Usage, at clock.Moment, startedAt ...time.Time) bool {
	over := false
	err := a.state.UpdateAnyway(func(tx *state.Tx) error {
		c := tx.Cloudlet(id)
		if over = c == nil || c.State.Final(); over {
			return nil
		}
		rec := *c
		unseen := rec.StartedAt == nil && len(startedAt) == 1 // it ended before its start was stored
		if unseen {
			t := startedAt[0].UTC()
			rec.StartedAt = &t
			rec.StartedBoot = at.BootOf(t, rec.SubmittedBoot)
			tx.Tell(cloudlet.Started(&rec))
		}
		cloudlet.Conclude(&rec, end, use, at)
		tx.PutCloudlet(rec)
		tx.Tell(cloudlet.Finished(&rec))
		a.touch(v.ID, "a cloudlet has ended in it")
		tx.Then(func() { a.over(&rec, unseen) })
		return nil
	})
	if err != nil {
		return false
	}
	if !over {
		a.poke()
	}
	return true
}

// over counts a cloudlet that has ended, also as one that began where nobody has seen
// that, and lets go of it.
func (a *Agent) over(r *cloudletRecord, began bool) {
	a.held.Lock()
	defer a.held.Unlock()
	if began {
		a.outcomes.CloudletBegan(r)
	}
	a.outcomes.CloudletEnded(r)
	a.unmeter(r.ID)
}

// momentOf is when a process ended: not before from.
func momentOf(e guest.Exit, from time.Duration) clock.Moment {
	m := clock.Now()
	at := clock.Moment{Boot: min(e.FinishedBoot, m.Boot), Day: e.FinishedAt}
	if e.FinishedBoot == 0 { // an older init tells the time of day only
		at.Boot = m.BootOf(e.FinishedAt, from)
	}
	return at
}

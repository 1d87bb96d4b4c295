package agent

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/agent/store"
	"golang.org/x/sys/unix"
)

// never is how long the queue loop sleeps when nothing is due.
const never = time.Hour

// enforceDeadlines ends what is past its deadline or its grace, and returns how
// long until the next is due.
func (a *Agent) enforceDeadlines(now time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := never
	for _, c := range a.cloudlets {
		if due, ok := a.due(c); ok {
			if wait := due - now; wait > 0 {
				next = min(next, wait)
				continue
			}
			a.act(c)
		}
	}
	return next
}

// due is when, since the machine booted, the agent has to act on a cloudlet, if ever.
func (a *Agent) due(c *cloudlet) (time.Duration, bool) {
	switch {
	case c.State.Final() || c.killing || c.State == CloudletStarting:
		return 0, false
	case c.Stop != "":
		return c.StoppingBoot + a.cfg.Grace, true
	case c.DeadlineAt != nil && c.OnDeadline == OnDeadlineKill:
		return c.DeadlineBoot, true
	}
	return 0, false
}

// act does what is due. The caller holds a.mu.
func (a *Agent) act(c *cloudlet) {
	if c.Stop == "" {
		_ = a.stop(c, stopDeadline) // commit has logged why; tried again at the next wake
		return
	}
	v := a.vms[c.VM]
	if v == nil {
		return
	}
	c.killing = true
	scope := v.slice.Scope(scopeName(c.ID))
	a.spawn(func(ctx context.Context) {
		if err := ignoreGone(scope.Kill(ctx)); err != nil {
			a.log.Error("kill cloudlet", "cloudlet", c.Name, "err", err)
		}
	})
}

// stop begins to end a cloudlet: a queued one is over at once, a running one
// gets SIGTERM and then, from the queue loop, cgroup.kill. The caller holds a.mu.
func (a *Agent) stop(c *cloudlet, why string) error {
	if c.State == CloudletQueued {
		return a.endQueued(c, why)
	}
	if c.Stop != "" {
		return nil
	}
	rec := c.cloudletRecord
	rec.Stop, rec.StoppingBoot = why, sinceBoot()
	if err := a.commit([]store.Change{putCloudlet(rec)}, Event{Level: LevelInfo, Kind: "cloudlet.stopping", VM: c.VM, Cloudlet: c.ID,
		Message: fmt.Sprintf("cloudlet %s gets SIGTERM: %s", c.Name, why)}); err != nil {
		return err
	}
	c.cloudletRecord = rec
	if v := a.vms[c.VM]; v != nil && v.guest != nil {
		g := v.guest
		a.spawn(func(ctx context.Context) { a.sendTERM(ctx, g, c.ID) })
	}
	a.poke()
	return nil
}

func (a *Agent) sendTERM(ctx context.Context, g *guest.Guest, id string) {
	if g == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Grace)
	defer cancel()
	_ = g.Signal(ctx, id, syscall.SIGTERM) // one that has ended meanwhile is fine
}

func (a *Agent) endQueued(c *cloudlet, why string) error {
	rec := c.cloudletRecord
	m := now()
	rec.FinishedAt, rec.State, rec.Reason = &m.day, CloudletCancelled, "cancelled while queued"
	if why == stopDeadline {
		rec.State, rec.Reason = CloudletDeadlineExceeded, "not started before its deadline: "+c.Reason
		rec.OverrunSeconds = rec.overrun(m)
	}
	rec.tellDeadline(m)
	if err := a.commit([]store.Change{putCloudlet(rec)}, finishedEvent(rec)); err != nil {
		return err
	}
	c.cloudletRecord = rec
	a.outcomes.ended(rec)
	return nil
}

// ending is how a cloudlet's process ended.
type ending struct {
	code   int
	signal syscall.Signal // 0 when it exited
	oom    bool
	reason string // set when there is more to say than the code
}

// exited is called for every exit in a VM's journal, perhaps more than once for
// the same. What the command left running goes down with it.
func (a *Agent) exited(ctx context.Context, v *vm, g *guest.Guest, e guest.Exit) {
	a.mu.Lock()
	c := a.cloudlets[e.ID]
	known := c != nil && !c.State.Final()
	a.mu.Unlock()
	scope := v.slice.Scope(scopeName(e.ID))
	if err := ignoreGone(scope.Kill(ctx)); err != nil {
		a.log.Warn("clear scope", "cloudlet", e.ID, "err", err)
	}
	if a.sessionEnded(e) {
		_ = g.Acknowledge(ctx, e.ID)
		return
	}
	if known {
		use := usageOf(meter.Read(scope))
		if !a.end(c, v, ending{code: e.Code, signal: e.Signal, oom: use.OOMKills > 0}, use, momentOf(e, c.SubmittedBoot), e.StartedAt) {
			return // not stored: the journal keeps it for the next start
		}
		a.boundOutput(v.ID, e.ID)
	}
	if err := scope.Remove(ctx); err != nil {
		a.log.Warn("remove scope", "cloudlet", e.ID, "err", err)
	}
	if err := g.Acknowledge(ctx, e.ID); err != nil && ctx.Err() == nil {
		a.log.Warn("acknowledge exit", "cloudlet", e.ID, "err", err)
	}
}

// end stores how a cloudlet ended.
func (a *Agent) end(c *cloudlet, v *vm, end ending, use Usage, at moment, startedAt ...time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.State.Final() {
		return true
	}
	rec := c.cloudletRecord
	unseen := rec.StartedAt == nil && len(startedAt) == 1 // it ended before its start was stored
	if unseen {
		t := startedAt[0].UTC()
		rec.StartedAt = &t
		rec.StartedBoot = at.bootOf(t, rec.SubmittedBoot)
	}
	rec.conclude(end, use, at)
	if a.commit([]store.Change{putCloudlet(rec)}, finishedEvent(rec)) != nil {
		return false
	}
	c.cloudletRecord = rec
	v.idle.touch(time.Now(), "a cloudlet has ended in it")
	if unseen {
		a.outcomes.began(rec)
	}
	a.outcomes.ended(rec)
	c.unmeter()
	a.poke()
	return true
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "SIG" + strconv.Itoa(int(sig)) // the real-time ones have no name
}

// conclude works out the final state. What the agent did on purpose comes
// first, then the OOM killer, then the command's own code.
func (r *cloudletRecord) conclude(end ending, use Usage, at moment) {
	if r.Stop == stopOOM {
		use.OOMKills = max(use.OOMKills, 1)
	}
	r.FinishedAt, r.PID, r.Usage = new(at.day.UTC()), 0, use
	r.OverrunSeconds = r.overrun(at)
	r.tellDeadline(at)
	r.Signal, r.ExitCode = "", nil
	if end.signal != 0 {
		r.Signal = signalName(end.signal)
	} else {
		r.ExitCode = &end.code
	}
	switch {
	case r.Stop == stopCancel:
		r.State, r.Reason = CloudletCancelled, "cancelled"
	case r.Stop == stopDeadline:
		r.State, r.Reason = CloudletDeadlineExceeded, "killed at its deadline"
	case r.Stop == stopDelete:
		r.State, r.Reason = CloudletCancelled, reasonVMDeleted
	case r.Stop == stopOOM, end.oom && (end.signal != 0 || end.code != 0):
		r.State, r.Reason = CloudletFailed, "oom"
	case end.signal != 0:
		r.State, r.Reason = CloudletFailed, "killed by "+r.Signal
	case end.code != 0 || end.reason != "":
		r.State, r.Reason = CloudletFailed, end.reason
		if end.reason == "" {
			r.Reason = fmt.Sprintf("exit code %d", end.code)
		}
	case r.OverrunSeconds > 0:
		r.State, r.Reason = CloudletDeadlineExceeded, "finished after its deadline"
	default:
		r.State, r.Reason = CloudletSucceeded, ""
	}
}

// overrun is how many seconds after its deadline a cloudlet ended, or 0.
func (r *cloudletRecord) overrun(at moment) float64 {
	if r.DeadlineAt == nil {
		return 0
	}
	return max((at.boot - r.DeadlineBoot).Seconds(), 0)
}

// tellDeadline makes the deadline that is shown one of the clock by which the
// end is shown, so that what lies between them is true.
func (r *cloudletRecord) tellDeadline(at moment) {
	if r.DeadlineAt != nil {
		r.DeadlineAt = new(at.dayOf(r.DeadlineBoot, *r.DeadlineAt))
	}
}

// momentOf is when a process ended, and was not there before from.
func momentOf(e guest.Exit, from time.Duration) moment {
	m := now()
	at := moment{min(e.FinishedBoot, m.boot), e.FinishedAt}
	if e.FinishedBoot == 0 { // an older init tells the time of day only
		at.boot = m.bootOf(e.FinishedAt, from)
	}
	return at
}

func finishedEvent(r cloudletRecord) Event {
	e := Event{Level: LevelInfo, Kind: "cloudlet.finished", VM: r.VM, Cloudlet: r.ID,
		Message: fmt.Sprintf("cloudlet %s %s", r.Name, r.State),
		Data: map[string]any{"state": r.State, "exit_code": r.ExitCode, "signal": r.Signal, "cpu_seconds": r.Usage.CPUSeconds,
			"memory_peak_bytes": r.Usage.MemoryPeakBytes, "overrun_seconds": r.OverrunSeconds}}
	if r.Reason != "" {
		e.Message += ": " + r.Reason
	}
	if r.State != CloudletSucceeded && r.State != CloudletCancelled {
		e.Level = LevelWarn
	}
	return e
}

package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/idle"
	"cloudflash/agent/meter"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
)

// idleBatch is how many idle VMs at most are deleted in one second: to erase them all
// at once would take the kernel and the disk from everybody else.
const idleBatch = 8

const (
	// idleStale is the age at which a sample tells nothing of now.
	idleStale = 3 * time.Second
	// idleIOStale is the same of io.stat: that of a quiet VM is read every 10 s.
	idleIOStale = 15 * time.Second
)

// watchIdle looks for signs of life in every VM, announces those that have shown
// none for long, and deletes those whose notice is over. What it decides on cannot
// change before it is stored: it is one change, and so is all that gives a VM work.
// While no VM is idle for long there is nothing to decide, and no change to wait for.
func (a *Agent) watchIdle(now time.Time) {
	if !a.lookForLife(a.state.View(), now) {
		return
	}

	var placed []placement
	var gone []*heldVM
	err := a.state.Update(func(tx *state.Tx) error {
		c := a.rules().IdleFor(tx.Policy())
		a.held.Lock()
		due := a.idleDue(tx.View, c, now)
		a.endNotices(tx, c, due, now)
		a.announceIdle(tx, c, due, now)
		over := idleOver(c, due, now)
		a.held.Unlock()
		if len(over) > 0 {
			placed = a.placeQueued(tx) // first: what is queued may go to one of them
			gone = a.deleteIdle(tx, over, now)
		}
		return nil
	})
	if err != nil {
		return // tried again: nobody is deleted without notice, and a VM that was told to be busy stays
	}
	a.startPlaced(placed)
	for _, v := range gone {
		a.spawn(func(ctx context.Context) { a.delete(ctx, v.VM, a.cfg.Grace) })
	}
}

// lookForLife looks at every VM, and reports whether one may have to be told of or
// deleted. A VM that was given work since the view is not idle for long: the time of that
// sign stays.
func (a *Agent) lookForLife(s state.View, now time.Time) (decide bool) {
	busy := a.occupied(s)
	a.held.Lock()
	defer a.held.Unlock()
	slept := a.slept(now)
	if slept {
		a.poke() // timers stood still meanwhile, deadlines did not
	}
	for _, v := range a.vms {
		v.idle.Look(now, v.signs(v.Record(s), now, busy[v.ID], slept))
		decide = decide || !v.idle.Announced.IsZero()
	}
	return decide || len(a.idleDue(s, a.rules().IdleFor(s.Policy()), now)) > 0
}

// slept reports whether the machine was suspended since the last call. The
// monotonic clock stands still meanwhile, CLOCK_BOOTTIME does not. The caller has a.held.
func (a *Agent) slept(now time.Time) bool {
	boot := clock.SinceBoot()
	before := a.woke
	a.woke = awake{at: now, boot: boot}
	return !before.at.IsZero() && (boot-before.boot)-now.Sub(before.at) > idle.Gap
}

// awake is one moment on two clocks.
type awake struct {
	at   time.Time
	boot time.Duration // since the machine booted, suspended time included
}

// occupied says of each VM what the agent knows to go on in it.
func (a *Agent) occupied(s state.View) map[string]string {
	held, queued, entered := map[string]int{}, map[string]int{}, map[string]int{}
	for c := range s.Live() {
		switch {
		case c.Holds():
			held[c.VM]++
		case c.Pinned:
			queued[c.VM]++
		}
	}
	a.held.Lock()
	for _, s := range a.sessions {
		entered[s.vm]++
	}
	a.held.Unlock()
	busy := map[string]string{}
	say := func(counts map[string]int, one, many string) {
		for id, n := range counts {
			busy[id] = one
			if n > 1 {
				busy[id] = fmt.Sprintf(many, n)
			}
		}
	}
	say(entered, "a command of vm exec runs in it", "%d commands of vm exec run in it")
	say(queued, "a cloudlet waits for it", "%d cloudlets wait for it")
	say(held, "a cloudlet is in it", "%d cloudlets are in it")
	return busy
}

// signs are what is known of a VM now. What cannot be read or is old is a sign
// of life. The caller has a.held.
func (v *heldVM) signs(r *vmRecord, now time.Time, busy string, slept bool) idle.Signs {
	var s meter.Sample
	if p := v.Probe(); p != nil {
		s = p.Last()
	}
	n := func(c meter.Count) uint64 { return s.Counters[c] }
	out := idle.Signs{
		CPUs:    s.CPUs,
		IO:      n(meter.ReadBytes) + n(meter.WrittenBytes),
		Traffic: n(meter.ReceivedBytes) + n(meter.SentBytes),
	}
	switch {
	case r.State != VMRunning:
		out.Busy = "it is " + string(r.State)
	case busy != "":
		out.Busy = busy
	case slept:
		out.Busy = "the machine was suspended"
	case v.Guest() == nil, s.At.IsZero(), now.Sub(s.At) > idleStale:
		out.Busy = "its CPU use cannot be told"
	case s.Lacks.IO, s.IOAt.IsZero(), now.Sub(s.IOAt) > idleIOStale:
		out.Busy = "its IO cannot be told"
	case !v.TrafficIsCounted() && v.Network.Mode != vm.NetworkIsolated:
		out.Busy = "its traffic cannot be told"
	}
	return out
}

// idleDue are the VMs that may be announced or deleted, longest idle first: so
// many that the others make the minimum of the pool. The caller has a.held.
func (a *Agent) idleDue(s state.View, c policy.Idle, now time.Time) []*heldVM {
	running := 0
	var due []*heldVM
	for _, v := range a.vms {
		r := v.Record(s)
		if r.State != VMRunning {
			continue
		}
		running++
		if c.After > 0 && !r.Keep && v.idle.For(now) >= c.After {
			due = append(due, v)
		}
	}
	slices.SortFunc(due, func(x, y *heldVM) int { return cmp.Or(x.idle.Last.Compare(y.idle.Last), cmp.Compare(x.ID, y.ID)) })
	return due[:min(len(due), max(running-c.MinVMs, 0))]
}

// endNotices takes the notice of every VM back that is not due any more.
func (a *Agent) endNotices(tx *state.Tx, c policy.Idle, due []*heldVM, now time.Time) {
	var ended []*heldVM
	for _, v := range a.vms {
		if v.idle.Announced.IsZero() || slices.Contains(due, v) {
			continue
		}
		ended = append(ended, v)
		if r := v.Record(tx.View); r.State != VMDeleting {
			why := v.stays(r, c, now)
			tx.Tell(Event{Level: LevelInfo, Kind: "vm.busy", VM: v.ID,
				Message: fmt.Sprintf("VM %s is not deleted: %s", v.Name, why), Data: map[string]any{"activity": why}})
		}
	}
	tx.Then(func() {
		a.held.Lock()
		defer a.held.Unlock()
		for _, v := range ended {
			v.idle.Announced, v.idle.DeleteAt = time.Time{}, time.Time{}
		}
	})
}

// stays is why a VM that was announced is not deleted.
func (v *heldVM) stays(r *vmRecord, c policy.Idle, now time.Time) string {
	switch {
	case r.Keep:
		return "it is kept"
	case c.After <= 0:
		return "idle VMs are not deleted any more"
	case v.idle.Sign != "":
		return v.idle.Sign
	case v.idle.For(now) >= c.After:
		return fmt.Sprintf("at least %d running VMs are kept", c.MinVMs)
	case v.idle.Last.Before(v.idle.Told):
		return fmt.Sprintf("idle VMs are announced after %v now", c.After)
	}
	return v.idle.Lately
}

// announceIdle gives notice to those that have none yet.
func (a *Agent) announceIdle(tx *state.Tx, c policy.Idle, due []*heldVM, now time.Time) {
	at := idle.Shown(time.Time{}, now, now.Add(c.Notice))
	var some []*heldVM
	for _, v := range due {
		if !v.idle.Announced.IsZero() {
			v.idle.DeleteAt = idle.Shown(v.idle.DeleteAt, now, v.idle.Announced.Add(c.Notice))
			continue
		}
		some = append(some, v)
		tx.Tell(Event{Level: LevelWarn, Kind: "vm.idle", VM: v.ID,
			Message: fmt.Sprintf("VM %s has been idle for %s and will be deleted in %s unless it gets busy; keep it: cloudflash vm set %s --keep",
				v.Name, v.idle.For(now).Round(time.Second), c.Notice, v.Name),
			Data: map[string]any{
				"idle_since":     v.idle.Since,
				"delete_at":      at,
				"after_seconds":  c.After.Seconds(),
				"notice_seconds": c.Notice.Seconds(),
			}})
	}
	tx.Then(func() {
		a.held.Lock()
		defer a.held.Unlock()
		for _, v := range some {
			v.idle.Announced, v.idle.Told, v.idle.DeleteAt = now, now, at
		}
	})
}

// idleOver are those whose notice is over.
func idleOver(c policy.Idle, due []*heldVM, now time.Time) []*heldVM {
	return slices.DeleteFunc(slices.Clone(due), func(v *heldVM) bool {
		return v.idle.Announced.IsZero() || now.Sub(v.idle.Announced) < c.Notice
	})
}

// deleteIdle marks those whose notice is over, and returns those that are to be
// deleted.
func (a *Agent) deleteIdle(tx *state.Tx, over []*heldVM, now time.Time) (gone []*heldVM) {
	busy := a.occupied(tx.View)
	for _, v := range over[:min(len(over), idleBatch)] {
		if busy[v.ID] != "" {
			continue // its notice is taken back at the next look
		}
		a.held.Lock()
		since, quiet := v.idle.Since, v.idle.For(now)
		a.held.Unlock()
		_, started, err := markDeleting(tx, v.Record(tx.View), Event{Level: LevelInfo, Kind: "vm.idle_deleted", VM: v.ID,
			Message: fmt.Sprintf("VM %s is deleted: idle for %s", v.Name, quiet.Round(time.Second)),
			Data:    map[string]any{"idle_since": since, "idle_seconds": quiet.Seconds()}})
		if err == nil && started {
			gone = append(gone, v)
		}
	}
	return gone
}

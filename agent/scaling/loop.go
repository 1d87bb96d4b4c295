// Package scaling has the loop that keeps the limits of VMs in line with what they need:
// it looks at VMs, has agent/autoscale decide, stores what was decided, has it written and
// tells what came of it. It sees a VM of the agent as a VM, and works on it by a Lease.
package scaling

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/clock"
	"cloudflash/agent/meter"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

const (
	hotEvery = 100 * time.Millisecond
	// hotLooks is how many VMs are looked at in one hotEvery: a look costs some 50 µs,
	// and with 1,000 VMs saturated at once the other looks wait for the next turn.
	hotLooks = 20
	// wakeLooks is for how many looks a VM that the kernel woke us for counts as
	// saturated: the first look may fall into the middle of a period.
	wakeLooks = 4
)

// VM is what the loop needs of a VM that the agent has.
type VM interface {
	Slice() *cgroup.Slice
	// Now is how the VM stands. It is not to be scaled where ok is false: it is not there,
	// is frozen, or is about to be deleted.
	Now(state.View) (now Now, ok bool)
	// Work takes the right to change the VM in the kernel; ok is false while somebody else
	// has it.
	Work() (lease Lease, ok bool)
}

// Lease is the right to change one VM in the kernel. Who has it may hand it on; the last
// one gives it back, once.
type Lease interface {
	// Write makes the kernel have a new limit, and returns what it has then. An error that
	// is fault.ErrCapacity may pass.
	Write(context.Context, autoscale.Decision) (limit, high float64, err error)
	// Took notes a limit that was written.
	Took(res autoscale.Resource, limit, high float64)
	Release()
}

// Now is how a VM stands.
type Now struct {
	Probe   *meter.Probe     // nil while it is not metered
	Limits  autoscale.Limits // as the kernel has them, 0 where there is none
	High    float64          // memory.high
	Use     autoscale.Limits // as last sampled, of what a sample tells
	Stored  int64            // bytes of its files
	Bounded bool             // they have a limit
}

// Learner learns what VMs need, to advise on sizes.
type Learner interface {
	Add(vmID string, at time.Time, dt time.Duration, needs autoscale.Limits, known [autoscale.Resources]bool)
	OOM(vmID string, at time.Time, used float64)
}

// Config is what a Loop is told at the start. It asks the agent by it too.
type Config struct {
	Log     *slog.Logger
	State   *state.DB
	Parent  *cgroup.Parent
	Learner Learner

	Rules   func() *policy.Host
	Room    func() autoscale.Limits          // what limits of VMs together may be at most
	RoomNow func(state.View) autoscale.Room  // and what of it is left
	VM      func(id string) VM               // nil where the agent has none
	Spawn   func(func(context.Context)) bool // runs a task of its own, unless the agent is stopping
	Count   func(state.Decision)             // is told of each decision that has come to its end
}

// Loop keeps the limits of VMs in line with what they need. All of its followers are
// guarded by mu, which is taken after a lease and before the locks of the agent.
type Loop struct {
	cfg       Config
	sampled   chan struct{}   // the sampler has been round
	woken     chan string     // the kernel says that a VM needs looking at
	done      chan carried    // a decision was carried out
	watcher   *cgroup.Watcher // nil where the kernel tells nothing
	mu        sync.Mutex
	polling   string // why the loop only polls, empty where it need not
	followers map[string]*follower
	wishes    []autoscale.Decision // scratch of a round
}

// New is a loop that follows no VM yet.
func New(cfg Config) *Loop {
	return &Loop{
		cfg:       cfg,
		sampled:   make(chan struct{}, 1),
		woken:     make(chan string, 64),
		done:      make(chan carried, 256),
		followers: map[string]*follower{},
	}
}

// Sampled tells that all VMs have been sampled.
func (l *Loop) Sampled() {
	select {
	case l.sampled <- struct{}{}:
	default: // the last round is not over yet
	}
}

// follower is what is known of one VM.
type follower struct {
	v       VM
	id      string
	name    string
	scaler  *autoscale.Scaler
	gen     policyGen
	last    meter.Sample
	kills   int64 // cloudlets killed for want of memory, up to last
	looks   int   // to come, every 100 ms
	watched bool  // these two are the loop's alone
	woken   bool
	told    [autoscale.Resources]told
	recent  [autoscale.Resources]*state.Decision
	effects []effect // to be seen a second later
	wait    [autoscale.Resources]time.Time
	fails   [autoscale.Resources]int // in a row
}

// policyGen tells whether a policy may have changed.
type policyGen struct {
	host, own, sla int
	spec           state.Spec
}

// told is a decision that was not granted, and has been told of.
type told struct {
	result   state.DecisionResult
	at, seen time.Time // told of, and wished for last
	decision autoscale.Decision
}

// Run looks at every VM once a second after the sampler, at one that is
// saturated ten times as often, and at once at one that the kernel says is short of
// CPU or has met a memory limit.
func (l *Loop) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	l.watchPressure(ctx, &wg)
	hot := time.NewTimer(time.Hour)
	defer hot.Stop()
	due := false // hot is set
	woken := 0   // looked at because of the kernel since hot was due last
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.sampled:
			l.Round()
		case id := <-l.woken:
			if some := l.awake(id); len(some) > 0 && woken < hotLooks {
				woken += len(some)
				l.scaleRound(some, true)
			}
		case <-hot.C:
			due, woken = false, 0
			l.scaleRound(l.hottest(), true)
		case c := <-l.done:
			l.finishDecisions(c)
			continue // it changes nothing of who is hot
		}
		if !due && l.anyHot() {
			hot.Reset(hotEvery)
			due = true
		}
	}
}

// Round looks at every VM once, as Run does after each sample.
func (l *Loop) Round() {
	l.scaleRound(l.followAll(), false)
	l.seeEffects()
}

// watchPressure asks the kernel to say when a VM needs looking at.
func (l *Loop) watchPressure(ctx context.Context, wg *sync.WaitGroup) {
	w, err := cgroup.NewWatcher()
	if err != nil {
		l.mu.Lock()
		l.polling = err.Error()
		l.mu.Unlock()
		l.cfg.Log.Warn("autoscaling polls once a second", "err", err)
		return
	}
	l.watcher = w
	wg.Go(func() {
		defer func() { _ = w.Close() }()
		err := w.Run(ctx, func(id string) {
			select {
			case l.woken <- id:
			case <-ctx.Done():
			}
		})
		if err != nil && ctx.Err() == nil {
			l.cfg.Log.Error("watch pressure of VMs", "err", err)
		}
	})
}

// followAll brings the followers in line with the VMs there are, and returns those to
// look at.
func (l *Loop) followAll() []*follower {
	all, gone := l.follow()
	if len(gone) > 0 {
		// Closing a trigger waits for the kernel's readers (RCU), some 10 ms.
		l.cfg.Spawn(func(context.Context) {
			for _, id := range gone {
				l.watcher.Remove(id)
			}
		})
	}
	l.watchCPU()
	for _, f := range all {
		l.watchMemory(f)
	}
	return all
}

// follow returns those to look at, and the ids that need not be watched any more.
func (l *Loop) follow() (all []*follower, gone []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	view := l.cfg.State.View()
	for id, f := range l.followers {
		if view.VM(id) == nil {
			delete(l.followers, id)
			if f.watched {
				gone = append(gone, id)
			}
		}
	}

	room := l.cfg.Room()
	for r := range view.VMs() {
		f := l.followers[r.ID]
		if f == nil {
			v := l.cfg.VM(r.ID)
			if v == nil {
				continue
			}
			f = &follower{v: v, id: r.ID, name: r.Name}
			l.followers[r.ID] = f
		}
		if _, ok := f.v.Now(view); !ok {
			f.looks = 0 // a gap begins anew
			continue
		}
		if l.refreshPolicy(f, view, r, room) {
			all = append(all, f)
		}
	}
	return all, gone
}

// refreshPolicy follows changes of the policy of a VM, of its spec and of what runs in
// it, and reports whether it has one that holds. The caller holds l.mu.
func (l *Loop) refreshPolicy(f *follower, s state.View, r *state.VM, room autoscale.Limits) bool {
	gen := policyGen{s.Policy().Gen, r.Own.Gen, policy.SLAOf(s, r.ID), r.Spec}
	if gen == f.gen {
		return f.scaler != nil
	}
	f.gen = gen
	p, _ := l.cfg.Rules().Of(s, r, room)
	var err error
	if f.scaler == nil {
		f.scaler, err = autoscale.NewScaler(f.id, p)
	} else {
		err = f.scaler.SetPolicy(p)
	}
	if err != nil { // the host has become smaller than its bounds, or the agent is told other ranges
		f.scaler = nil
		l.cfg.Log.Error("a VM is not scaled", "vm", f.name, "err", err)
	}
	return err == nil
}

// allSlices is the id under which all slices together are watched: no VM's.
const allSlices = ""

// watchCPU has the kernel wake us when some VM is short of CPU. One trigger for all of
// them does: it is told of twice a second at most, and which VM it was is quickly
// found. One for each would cost a thread of the kernel each, and an agent that is
// killed would be gone only after 40 ms for each. Only the loop calls it.
func (l *Loop) watchCPU() {
	if l.watcher == nil {
		return
	}
	why := ""
	if err := l.watcher.Add(allSlices, l.cfg.Parent.All(), cgroup.WatchCPU); err != nil {
		why = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if why != l.polling {
		l.cfg.Log.Warn("how autoscaling is told of VMs that are short of CPU has changed; without, it looks once a second", "lacks", why)
	}
	l.polling = why
}

// watchMemory has the kernel wake us when a VM meets a limit of its memory, and again
// when it has: at most once a second. Only the loop calls it.
func (l *Loop) watchMemory(f *follower) {
	if l.watcher == nil {
		return
	}
	auto := f.scaler.Policy().Rules[autoscale.Memory].Mode == autoscale.Auto
	switch {
	case f.watched && !auto:
		l.watcher.Remove(f.id)
		f.watched = false
	case f.watched && f.woken:
		l.watcher.Rearm(f.id)
		f.woken = false
	case auto && !f.watched:
		err := l.watcher.Add(f.id, f.v.Slice(), cgroup.WatchMemory)
		if err != nil && !errors.Is(err, cgroup.ErrGone) {
			l.cfg.Log.Warn("watch memory.events", "vm", f.name, "err", err)
		}
		f.watched = err == nil
	}
}

// awake are the VMs that the kernel tells of and that are worth looking at now: less
// than half a period tells nothing. They are looked at the next few times too.
func (l *Loop) awake(id string) (now []*follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wake := func(f *follower) {
		f.looks = max(f.looks, wakeLooks)
		if time.Since(f.last.At) >= hotEvery/2 && len(now) < hotLooks {
			now = append(now, f)
		}
	}
	if id == allSlices {
		for _, f := range l.throttled() {
			wake(f)
		}
		l.watcher.Rearm(allSlices)
		return now
	}
	if f := l.followers[id]; f != nil && f.scaler != nil {
		f.woken = true
		wake(f)
	}
	return now
}

// throttled are the VMs that have used up their quota since they were last looked at,
// and that may have more. The caller holds l.mu.
func (l *Loop) throttled() (some []*follower) {
	s := l.cfg.State.View()
	probes := make(map[*follower]*meter.Probe, len(l.followers))
	for _, f := range l.followers {
		if f.scaler == nil || f.looks > 0 || f.last.At.IsZero() {
			continue
		}
		if now, ok := f.v.Now(s); ok {
			probes[f] = now.Probe
		}
	}
	for f, p := range probes {
		if f.scaler.Policy().Rules[autoscale.CPU].Mode != autoscale.Auto || f.scaler.Pegged(autoscale.CPU) {
			continue
		}
		if n, err := p.Throttled(); err == nil && n > f.last.Counters[meter.ThrottledPeriods] {
			some = append(some, f)
		}
	}
	return some
}

func (l *Loop) anyHot() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.followers {
		if f.looks > 0 {
			return true
		}
	}
	return false
}

// hottest are the saturated VMs that were not looked at for the longest time.
func (l *Loop) hottest() []*follower {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*follower
	for _, f := range l.followers {
		if f.looks > 0 && f.scaler != nil {
			all = append(all, f)
		}
	}
	if len(all) > hotLooks {
		slices.SortFunc(all, func(x, y *follower) int { return x.last.At.Compare(y.last.At) })
		all = all[:hotLooks]
	}
	return all
}

// scaleRound looks at some VMs and does what should be done. Fresh reads the kernel
// now; else the sampler's last reading will do.
func (l *Loop) scaleRound(some []*follower, fresh bool) {
	began := time.Now()
	l.mu.Lock()
	wishes := l.wishes[:0]
	leases := map[*follower]Lease{} // of VMs for which something is wished
	for _, f := range some {
		lease, ok := f.v.Work()
		if !ok {
			continue // somebody is changing it
		}
		n := len(wishes)
		wishes = l.observe(f, fresh, wishes)
		if len(wishes) == n {
			lease.Release()
			continue
		}
		leases[f] = lease
	}
	l.wishes = wishes
	var plan []autoscale.Decision
	if len(wishes) > 0 {
		plan = l.arrange(wishes)
	}
	l.mu.Unlock()
	if len(plan) > 0 {
		l.carryOut(plan, leases, began)
	}
	for _, lease := range leases { // of those of which nothing is carried out
		lease.Release()
	}
}

// observe shows a VM to its scaler. The caller has its lease and l.mu.
func (l *Loop) observe(f *follower, fresh bool, wishes []autoscale.Decision) []autoscale.Decision {
	s := l.cfg.State.View()
	r := s.VM(f.id)
	now, ok := f.v.Now(s)
	if r == nil || !ok || f.scaler == nil {
		f.looks = 0
		return wishes
	}
	if r.Spec != f.gen.spec || r.Own.Gen != f.gen.own || s.Policy().Gen != f.gen.host {
		return wishes // the scaler has the policy of before; followAll brings it in line
	}
	probe := now.Probe
	m := probe.Last()
	if fresh || f.scaler.NeedsStat() {
		var err error
		if m, err = probe.Look(f.scaler.NeedsStat()); err != nil {
			f.looks = 0
			return wishes
		}
	}
	if m.At.IsZero() || !m.At.After(f.last.At) {
		return wishes
	}
	n := len(wishes)
	sample := sampleOf(&m, now.Stored, r.Thrashed, now.Bounded)
	wishes = f.scaler.Observe(&sample, now.Limits, now.High, wishes)
	l.learned(f, &m, r.Thrashed)
	f.last = m
	f.looks--
	if f.scaler.Next() < time.Second {
		f.looks = max(f.looks, 1)
	}
	f.looks = max(f.looks, 0)
	return f.ready(wishes, n, m.At)
}

// ready leaves out what failed a moment ago.
func (f *follower) ready(wishes []autoscale.Decision, n int, at time.Time) []autoscale.Decision {
	kept := wishes[:n]
	for _, d := range wishes[n:] {
		if at.After(f.wait[d.Resource]) || d.Action == autoscale.Drift {
			kept = append(kept, d)
		}
	}
	return kept
}

// learned tells what was needed to whoever advises on sizes.
func (l *Loop) learned(f *follower, m *meter.Sample, thrashed int64) {
	kills := int64(m.Counters[meter.OOMKills]) + thrashed
	before := f.kills
	f.kills = kills
	if f.last.At.IsZero() {
		return
	}
	needs, known := f.scaler.Needs()
	l.cfg.Learner.Add(f.id, m.At, m.At.Sub(f.last.At), needs, known)
	if kills > before {
		l.cfg.Learner.OOM(f.id, m.At, float64(max(m.WorkingSet, f.last.WorkingSet)))
	}
}

// arrange sorts wishes and says which the host has room for. The caller holds l.mu.
func (l *Loop) arrange(wishes []autoscale.Decision) []autoscale.Decision {
	s := l.cfg.State.View()
	room := l.cfg.RoomNow(s)
	grows := false
	for i := range wishes {
		d := &wishes[i]
		if r := s.VM(d.VM); r != nil {
			d.Owed = policy.Amounts(r.Spec)[d.Resource]
		}
		grows = grows || d.Up()
	}
	var offers []autoscale.Offer
	if grows {
		offers = l.offers(s)
	}
	return autoscale.Arrange(wishes, offers, room)
}

// offers are what VMs hold above their specs and do not need.
func (l *Loop) offers(s state.View) []autoscale.Offer {
	var all []autoscale.Offer
	for _, f := range l.followers {
		r := s.VM(f.id)
		if f.scaler == nil || r == nil || r.State != state.VMRunning {
			continue
		}
		spec := policy.Amounts(r.Spec)
		for _, res := range [...]autoscale.Resource{autoscale.CPU, autoscale.Memory, autoscale.Storage} {
			o, ok := f.scaler.Offer(res)
			if o.Spare = min(o.Spare, o.From-spec[res]); ok && o.Spare > 0 {
				all = append(all, o)
			}
		}
	}
	return all
}

// sampleOf is what the meter has read, as a scaler wants it.
func sampleOf(m *meter.Sample, storage, thrashed int64, stored bool) autoscale.Sample {
	c := &m.Counters
	seconds := func(k meter.Count) float64 { return float64(c[k]) / 1e6 }
	at := clock.ToSteady(m.At) // a clock that is set ends no window and no cooldown
	when := func(t time.Time) time.Time {
		if t.IsZero() {
			return t
		}
		return at.Add(t.Sub(m.At))
	}
	return autoscale.Sample{
		At: at, CPUSeconds: seconds(meter.CPUTime), Periods: int64(c[meter.Periods]), ThrottledPeriods: int64(c[meter.ThrottledPeriods]),
		CPUWaitingSeconds: seconds(meter.CPUWaiting), CPUStalledSeconds: seconds(meter.CPUStalled),
		MemoryBytes: m.Memory, WorkingSetBytes: m.WorkingSet, UnreclaimableBytes: m.Unreclaimable, SwapBytes: m.Swap,
		Refaults: int64(c[meter.Refaults]), MemoryHighEvents: int64(c[meter.MemoryHigh]), MemoryMaxEvents: int64(c[meter.MemoryMax]),
		OOMKills: int64(c[meter.OOMKills]) + thrashed, MemoryWaitingSeconds: seconds(meter.MemoryWaiting), MemoryStalledSeconds: seconds(meter.MemoryStalled),
		IOWaitingSeconds: seconds(meter.IOWaiting), StatAt: when(m.StatAt), IOAt: when(m.IOAt),
		ReadBytes: int64(c[meter.ReadBytes]), WrittenBytes: int64(c[meter.WrittenBytes]), ReadOps: int64(c[meter.ReadOps]), WriteOps: int64(c[meter.WriteOps]),
		ReceivedBytes: int64(c[meter.ReceivedBytes]), SentBytes: int64(c[meter.SentBytes]), DroppedPackets: int64(c[meter.DroppedPackets]),
		StorageBytes: storage, NoStorage: !stored,
		NoPressure: m.Lacks.Pressure, NoMemory: m.Lacks.Memory || m.Lacks.Stat, NoIO: m.Lacks.IO,
	}
}

// Expect tells the scaler of a VM that its limits were changed on request. The caller has
// the lease.
func (l *Loop) Expect(id string, now autoscale.Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.followers[id]
	if f == nil || f.scaler == nil {
		return
	}
	at := clock.Steady()
	for res, limit := range now {
		f.scaler.Expect(autoscale.Resource(res), limit, at)
	}
}

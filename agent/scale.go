package agent

import (
	"context"
	"errors"
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

// scaling is the loop that keeps the limits of VMs in line with what they need. All
// of its followers are guarded by mu, which is taken after v.work and before a.held.
type scaling struct {
	sampled   chan struct{}   // the sampler has been round
	woken     chan string     // the kernel says that a VM needs looking at
	done      chan carried    // a decision was carried out
	watcher   *cgroup.Watcher // nil where the kernel tells nothing
	mu        sync.Mutex
	polling   string // why the loop only polls, empty where it need not
	followers map[string]*follower
	wishes    []autoscale.Decision // scratch of a round
}

// follower is what is known of one VM.
type follower struct {
	v       *vm
	scaler  *autoscale.Scaler
	gen     policyGen
	last    meter.Sample
	kills   int64 // cloudlets killed for want of memory, up to last
	looks   int   // to come, every 100 ms
	watched bool  // these two are the loop's alone
	woken   bool
	told    [autoscale.Resources]told
	recent  [autoscale.Resources]*Decision
	effects []effect // to be seen a second later
	wait    [autoscale.Resources]time.Time
	fails   [autoscale.Resources]int // in a row
}

// policyGen tells whether a policy may have changed.
type policyGen struct {
	host, own, sla int
	spec           Spec
}

// told is a decision that was not granted, and has been told of.
type told struct {
	result   DecisionResult
	at, seen time.Time // told of, and wished for last
	decision autoscale.Decision
}

func newScaling() scaling {
	return scaling{sampled: make(chan struct{}, 1), woken: make(chan string, 64), done: make(chan carried, 256),
		followers: map[string]*follower{}}
}

// runScaling looks at every VM once a second after the sampler, at one that is
// saturated ten times as often, and at once at one that the kernel says is short of
// CPU or has met a memory limit.
func (a *Agent) runScaling(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	a.watchPressure(ctx, &wg)
	hot := time.NewTimer(time.Hour)
	defer hot.Stop()
	due := false // hot is set
	woken := 0   // looked at because of the kernel since hot was due last
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.scaling.sampled:
			a.scaleRound(a.followAll(), false)
			a.seeEffects()
		case id := <-a.scaling.woken:
			if some := a.awake(id); len(some) > 0 && woken < hotLooks {
				woken += len(some)
				a.scaleRound(some, true)
			}
		case <-hot.C:
			due, woken = false, 0
			a.scaleRound(a.hottest(), true)
		case c := <-a.scaling.done:
			a.finishDecisions(c)
			continue // it changes nothing of who is hot
		}
		if !due && a.anyHot() {
			hot.Reset(hotEvery)
			due = true
		}
	}
}

// watchPressure asks the kernel to say when a VM needs looking at.
func (a *Agent) watchPressure(ctx context.Context, wg *sync.WaitGroup) {
	w, err := cgroup.NewWatcher()
	if err != nil {
		a.scaling.mu.Lock()
		a.scaling.polling = err.Error()
		a.scaling.mu.Unlock()
		a.log.Warn("autoscaling polls once a second", "err", err)
		return
	}
	a.scaling.watcher = w
	wg.Go(func() {
		defer func() { _ = w.Close() }()
		err := w.Run(ctx, func(id string) {
			select {
			case a.scaling.woken <- id:
			case <-ctx.Done():
			}
		})
		if err != nil && ctx.Err() == nil {
			a.log.Error("watch pressure of VMs", "err", err)
		}
	})
}

// followAll brings the followers in line with the VMs there are, and returns those to
// look at.
func (a *Agent) followAll() []*follower {
	all, gone := a.followers()
	if len(gone) > 0 {
		// Closing a trigger waits for the kernel's readers (RCU), some 10 ms.
		a.spawn(func(context.Context) {
			for _, id := range gone {
				a.scaling.watcher.Remove(id)
			}
		})
	}
	a.watchCPU()
	for _, f := range all {
		a.watchMemory(f)
	}
	return all
}

// followers returns those to look at, and the ids that need not be watched any more.
func (a *Agent) followers() (all []*follower, gone []string) {
	s := &a.scaling
	s.mu.Lock()
	defer s.mu.Unlock()
	view := a.state.View()
	for id, f := range s.followers {
		if view.VM(id) == nil {
			delete(s.followers, id)
			if f.watched {
				gone = append(gone, id)
			}
		}
	}

	room := a.roomFor()
	for r := range view.VMs() {
		f := s.followers[r.ID]
		if f == nil {
			v := a.known(r.ID)
			if v == nil {
				continue
			}
			f = &follower{v: v}
			s.followers[r.ID] = f
		}
		if !a.followed(f.v, r) {
			f.looks = 0 // a gap begins anew
			continue
		}
		if a.refreshPolicy(f, view, r, room) {
			all = append(all, f)
		}
	}
	return all, gone
}

// followed reports whether a VM is to be scaled now: not one that is frozen, about to
// be deleted, or not there.
func (a *Agent) followed(v *vm, r *vmRecord) bool {
	a.held.Lock()
	defer a.held.Unlock()
	return v.probe != nil && r.State == VMRunning && v.guest != nil && v.deleteAt(r) == nil
}

// refreshPolicy follows changes of the policy of a VM, of its spec and of what runs in
// it, and reports whether it has one that holds. The caller holds scaling.mu.
func (a *Agent) refreshPolicy(f *follower, s state.View, r *vmRecord, room autoscale.Limits) bool {
	gen := policyGen{s.Policy().Gen, r.Own.Gen, policy.SLAOf(s, r.ID), r.Spec}
	if gen == f.gen {
		return f.scaler != nil
	}
	f.gen = gen
	p, _ := a.rules().Of(s, r, room)
	var err error
	if f.scaler == nil {
		f.scaler, err = autoscale.NewScaler(f.v.ID, p)
	} else {
		err = f.scaler.SetPolicy(p)
	}
	if err != nil { // the host has become smaller than its bounds, or the agent is told other ranges
		f.scaler = nil
		a.log.Error("a VM is not scaled", "vm", f.v.Name, "err", err)
	}
	return err == nil
}

// allSlices is the id under which all slices together are watched: no VM's.
const allSlices = ""

// watchCPU has the kernel wake us when some VM is short of CPU. One trigger for all of
// them does: it is told of twice a second at most, and which VM it was is quickly
// found. One for each would cost a thread of the kernel each, and an agent that is
// killed would be gone only after 40 ms for each. Only the loop calls it.
func (a *Agent) watchCPU() {
	s := &a.scaling
	if s.watcher == nil {
		return
	}
	why := ""
	if err := s.watcher.Add(allSlices, a.parent.All(), cgroup.WatchCPU); err != nil {
		why = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if why != s.polling {
		a.log.Warn("how autoscaling is told of VMs that are short of CPU has changed; without, it looks once a second", "lacks", why)
	}
	s.polling = why
}

// watchMemory has the kernel wake us when a VM meets a limit of its memory, and again
// when it has: at most once a second. Only the loop calls it.
func (a *Agent) watchMemory(f *follower) {
	s := &a.scaling
	if s.watcher == nil {
		return
	}
	auto := f.scaler.Policy().Rules[autoscale.Memory].Mode == autoscale.Auto
	switch {
	case f.watched && !auto:
		s.watcher.Remove(f.v.ID)
		f.watched = false
	case f.watched && f.woken:
		s.watcher.Rearm(f.v.ID)
		f.woken = false
	case auto && !f.watched:
		err := s.watcher.Add(f.v.ID, f.v.slice, cgroup.WatchMemory)
		if err != nil && !errors.Is(err, cgroup.ErrGone) {
			a.log.Warn("watch memory.events", "vm", f.v.Name, "err", err)
		}
		f.watched = err == nil
	}
}

// awake are the VMs that the kernel tells of and that are worth looking at now: less
// than half a period tells nothing. They are looked at the next few times too.
func (a *Agent) awake(id string) (now []*follower) {
	s := &a.scaling
	s.mu.Lock()
	defer s.mu.Unlock()
	wake := func(f *follower) {
		f.looks = max(f.looks, wakeLooks)
		if time.Since(f.last.At) >= hotEvery/2 && len(now) < hotLooks {
			now = append(now, f)
		}
	}
	if id == allSlices {
		for _, f := range a.throttled() {
			wake(f)
		}
		s.watcher.Rearm(allSlices)
		return now
	}
	if f := s.followers[id]; f != nil && f.scaler != nil {
		f.woken = true
		wake(f)
	}
	return now
}

// throttled are the VMs that have used up their quota since they were last looked at,
// and that may have more. The caller holds s.mu.
func (a *Agent) throttled() (some []*follower) {
	s := a.state.View()
	a.held.Lock()
	probes := make(map[*follower]*meter.Probe, len(a.scaling.followers))
	for _, f := range a.scaling.followers {
		if f.scaler != nil && f.looks == 0 && f.v.probe != nil && f.v.in(s).State == VMRunning && !f.last.At.IsZero() {
			probes[f] = f.v.probe
		}
	}
	a.held.Unlock()
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

func (a *Agent) anyHot() bool {
	s := &a.scaling
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.followers {
		if f.looks > 0 {
			return true
		}
	}
	return false
}

// hottest are the saturated VMs that were not looked at for the longest time.
func (a *Agent) hottest() []*follower {
	s := &a.scaling
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*follower
	for _, f := range s.followers {
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
func (a *Agent) scaleRound(some []*follower, fresh bool) {
	began := time.Now()
	s := &a.scaling
	s.mu.Lock()
	wishes := s.wishes[:0]
	locked := map[string]*follower{} // whose work is ours, because something is wished for
	for _, f := range some {
		if !f.v.work.TryLock() {
			continue // somebody is changing it
		}
		n := len(wishes)
		wishes = a.observe(f, fresh, wishes)
		if len(wishes) == n {
			f.v.work.Unlock()
			continue
		}
		locked[f.v.ID] = f
	}
	s.wishes = wishes
	var plan []autoscale.Decision
	if len(wishes) > 0 {
		plan = a.arrange(wishes)
	}
	s.mu.Unlock()
	if len(plan) > 0 {
		a.carryOut(plan, locked, began)
	}
	for _, f := range locked { // those of which nothing is carried out
		f.v.work.Unlock()
	}
}

// observe shows a VM to its scaler. The caller holds v.work and s.mu.
func (a *Agent) observe(f *follower, fresh bool, wishes []autoscale.Decision) []autoscale.Decision {
	v, s := f.v, a.state.View()
	r := v.in(s)
	live, thrashed := r.State == VMRunning, r.Thrashed
	changed := r.Spec != f.gen.spec || r.Own.Gen != f.gen.own || s.Policy().Gen != f.gen.host
	a.held.Lock()
	probe, now, high := v.probe, currentOf(v.limits), highOf(v.limits)
	storage, stored := v.usage.StorageBytes, v.limits.StorageBytes != nil
	a.held.Unlock()
	if changed {
		return wishes // the scaler has the policy of before; followAll brings it in line
	}
	if probe == nil || !live || f.scaler == nil {
		f.looks = 0
		return wishes
	}
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
	sample := sampleOf(&m, storage, thrashed, stored)
	wishes = f.scaler.Observe(&sample, now, high, wishes)
	a.learned(f, &m, thrashed)
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
func (a *Agent) learned(f *follower, m *meter.Sample, thrashed int64) {
	kills := int64(m.Counters[meter.OOMKills]) + thrashed
	before := f.kills
	f.kills = kills
	if f.last.At.IsZero() {
		return
	}
	needs, known := f.scaler.Needs()
	a.advisor.Add(f.v.ID, m.At, m.At.Sub(f.last.At), needs, known)
	if kills > before {
		a.advisor.OOM(f.v.ID, m.At, float64(max(m.WorkingSet, f.last.WorkingSet)))
	}
}

// arrange sorts wishes and says which the host has room for. The caller holds s.mu.
func (a *Agent) arrange(wishes []autoscale.Decision) []autoscale.Decision {
	s := a.state.View()
	room := a.roomNow(s)
	grows := false
	for i := range wishes {
		d := &wishes[i]
		d.Owed = policy.Amounts(a.scaling.followers[d.VM].v.in(s).Spec)[d.Resource]
		grows = grows || d.Up()
	}
	var offers []autoscale.Offer
	if grows {
		offers = a.offers(s)
	}
	return autoscale.Arrange(wishes, offers, room)
}

// offers are what VMs hold above their specs and do not need.
func (a *Agent) offers(s state.View) []autoscale.Offer {
	var all []autoscale.Offer
	for _, f := range a.scaling.followers {
		r := f.v.in(s)
		if f.scaler == nil || r.State != VMRunning {
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

// currentOf are the limits as the kernel has them; 0 is none.
func currentOf(l Limits) autoscale.Limits {
	var out autoscale.Limits
	if l.CPUs != nil {
		out[autoscale.CPU] = *l.CPUs
	}
	out[autoscale.Memory], out[autoscale.Storage], out[autoscale.Bandwidth] = bounded(l.MemoryBytes), bounded(l.StorageBytes), bounded(l.BandwidthBPS)
	if l.IO != nil {
		out[autoscale.ReadBPS], out[autoscale.WriteBPS] = float64(l.IO.ReadBPS), float64(l.IO.WriteBPS)
		out[autoscale.ReadIOPS], out[autoscale.WriteIOPS] = float64(l.IO.ReadIOPS), float64(l.IO.WriteIOPS)
	}
	return out
}

func highOf(l Limits) float64 { return bounded(l.MemoryHighBytes) }

func bounded(limit *int64) float64 {
	if limit == nil || *limit == cgroup.Max {
		return 0
	}
	return float64(*limit)
}

// expect tells the scaler of a VM that its limits were changed on request. The caller
// holds v.work.
func (a *Agent) expect(v *vm) {
	a.scaling.mu.Lock()
	defer a.scaling.mu.Unlock()
	f := a.scaling.followers[v.ID]
	if f == nil || f.scaler == nil {
		return
	}
	a.held.Lock()
	now := currentOf(v.limits)
	a.held.Unlock()
	at := clock.Steady()
	for res, limit := range now {
		f.scaler.Expect(autoscale.Resource(res), limit, at)
	}
}

package agent

import (
	"context"
	"errors"
	"time"

	"cloudflash/agent/advice"
	"cloudflash/agent/meter"
	"cloudflash/agent/output"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

const (
	sampleEvery = time.Second
	// snapshotEnded is how many ended cloudlets stay in the snapshot.
	snapshotEnded = 200
)

// loadHistory takes over what an earlier agent remembers of the VMs that still
// exist.
func (a *Agent) loadHistory() {
	if err := a.meter.Load(); err != nil {
		a.log.Warn("load history", "err", err)
	}
	a.meter.Keep(func(id string) bool { return a.known(id) != nil })
}

// runSampler meters everything once a second and tells those who wait for the numbers.
func (a *Agent) runSampler(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	limitsAt := time.Time{}
	for {
		now := time.Now()
		a.sampleAll(now)
		a.scaling.Sampled()
		a.endThrash()
		if now.Sub(limitsAt) >= a.cfg.UpkeepEvery {
			a.refreshLimits()
			a.boundOutputs()
			limitsAt = now
		}
		a.publish()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sampleAll meters every VM and every running cloudlet. Nobody waits for it: a.held
// is free while the kernel is read.
func (a *Agent) sampleAll(now time.Time) {
	began := time.Now()
	traffic, err := a.platform.Traffic()
	a.meter.Report("network", time.Since(began), err)
	a.meter.TellHost(meter.HostGiven{VMs: a.state.View().VMCount(), Fragmentation: a.Pages.Fragmentation()})
	for _, v := range a.vmList() {
		v.TellMeter(traffic)
	}
	a.meter.Pass(now)
	if h := a.meter.Host(); !h.At.IsZero() {
		a.advisor.LookHost(h.At, h.CPURatio)
	}
	a.takeUsages(a.state.View(), now)
	a.watchIdle(time.Now())
}

// takeUsages keeps what the meter has read at now.
func (a *Agent) takeUsages(s state.View, now time.Time) {
	a.held.Lock()
	defer a.held.Unlock()
	for _, v := range a.vms {
		if p := v.Probe(); p != nil {
			v.takeUsage(p.Last(), v.Record(s).Thrashed)
			a.advisor.Look(v.ID, v.Labels[advice.TemplateLabel], &v.usage)
		}
	}
	for _, c := range a.cloudlets {
		if c.probe == nil {
			continue
		}
		if s := c.probe.Last(); !s.At.IsZero() {
			c.usage = usageOf(s)
		}
	}
	a.sampledAt = now
}

// takeUsage keeps what the files of the slice do not tell: so many cloudlets were
// killed because the VM thrashed.
func (v *heldVM) takeUsage(s meter.Sample, thrashed int64) {
	if s.At.IsZero() {
		return
	}
	v.usage = usageOf(s)
	v.usage.StorageBytes = v.StoredBytes()
	v.usage.OOMKills += thrashed
	use := v.GPUUse()
	v.usage.GPUMemoryBytes, v.usage.GPUBusy = use.MemoryBytes, use.Busy
}

// refreshLimits reads back what the kernel has, should somebody else write it.
func (a *Agent) refreshLimits() {
	for _, v := range a.vmList() {
		l := v.TryWork()
		if l == nil {
			continue // somebody is changing it and reads it back
		}
		if err := l.ReadLimits(); err != nil && !errors.Is(err, cgroup.ErrGone) {
			a.log.Warn("read limits", "vm", v.Name, "err", err)
		}
		l.Release()
	}
}

// publish tells everybody that there are new numbers. The snapshot that has them is made
// for the first who asks: an agent that nobody looks at makes none.
func (a *Agent) publish() {
	a.held.Lock()
	defer a.held.Unlock()
	a.metered = true
	a.changed()
}

// Snapshot returns the newest picture of everything, a new one when something has changed
// since the last. It is nil before the first numbers.
func (a *Agent) Snapshot() *Snapshot {
	a.showing.Lock() // who comes second has the one that the first makes
	defer a.showing.Unlock()
	a.held.Lock()
	s, stale := a.snapshot, a.dirty && a.metered
	a.held.Unlock()
	if !stale {
		return s
	}
	return a.rebuild()
}

// rebuild makes a new snapshot. The caller has a.showing.
func (a *Agent) rebuild() *Snapshot {
	a.held.Lock()
	a.dirty = false // what changes from here on may not be in it
	a.held.Unlock()
	s := a.state.View()
	next := &Snapshot{
		At:        time.Now().UTC(),
		Host:      a.viewHost(s),
		Memory:    a.Pages.Last(),
		Cloudlets: a.viewCloudlets(s, snapshotEnded),
	}

	a.held.Lock()
	defer a.held.Unlock()
	next.VMs = a.viewVMs(s)
	next.Outcomes = a.outcomes.Clone()
	next.Seq = 1
	if a.snapshot != nil {
		next.Seq = a.snapshot.Seq + 1
	}
	a.snapshot = next
	return next
}

// boundOutputs gives back the disk space of all but the newest part of outputs
// that outgrow their share. A VM can hold up whoever works on its files; the other VMs do not
// wait for that.
func (a *Agent) boundOutputs() {
	live := map[string][]string{}
	for c := range a.state.View().Live() {
		if c.Holds() {
			live[c.VM] = append(live[c.VM], c.ID)
		}
	}
	for _, v := range a.heldVMs() {
		if len(live[v.ID]) == 0 || v.bounding.Swap(true) {
			continue
		}
		a.spawn(func(context.Context) {
			defer v.bounding.Store(false)
			for _, id := range live[v.ID] {
				a.boundOutput(v.ID, id)
			}
		})
	}
}

// boundOutput is boundOutputs for one cloudlet.
func (a *Agent) boundOutput(vmID, cloudletID string) {
	err := a.outputs(vmID).Bound(cloudletID, a.cfg.OutputKeep)
	if err != nil && !errors.Is(err, output.ErrLeased) { // else it is tried again
		a.log.Warn("bound output", "cloudlet", cloudletID, "err", err)
	}
}

package agent

import (
	"context"
	"errors"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
	"cloudflash/agent/state"
	"cloudflash/agent/storage"
	"cloudflash/cgroup"
)

// newScaling is a loop that scales the VMs of this agent.
func (a *Agent) newScaling() *scaling.Loop {
	return scaling.New(scaling.Config{
		Log:     a.log,
		State:   a.state,
		Parent:  a.parent,
		Learner: a.advisor,
		Rules:   a.rules,
		Room:    a.roomFor,
		RoomNow: a.roomNow,
		VM:      a.scaledVM,
		Spawn:   a.spawn,
		Count:   a.countDecision,
	})
}

// scaledVM is a VM as the loop has it; nil where there is none.
func (a *Agent) scaledVM(id string) scaling.VM {
	if v := a.known(id); v != nil {
		return &scaledVM{a, v}
	}
	return nil
}

// scaledVM is what the loop of autoscaling sees of a VM, and does to it.
type scaledVM struct {
	a *Agent
	v *vm
}

func (s *scaledVM) Slice() *cgroup.Slice { return s.v.slice }

func (s *scaledVM) Work() (scaling.Lease, bool) {
	if !s.v.work.TryLock() {
		return nil, false
	}
	return lease{s.v}, true
}

// lease is the right to work on a VM, in the hands of the loop.
type lease struct{ v *vm }

// Release implements scaling.Lease.
func (l lease) Release() { l.v.work.Unlock() }

func (s *scaledVM) Now(view state.View) (now scaling.Now, ok bool) {
	v, r := s.v, s.v.in(view)
	s.a.held.Lock()
	defer s.a.held.Unlock()
	now = scaling.Now{
		Probe:   v.probe,
		Limits:  currentOf(v.limits),
		High:    highOf(v.limits),
		Use:     v.use(),
		Stored:  v.usage.StorageBytes,
		Bounded: v.limits.StorageBytes != nil,
	}
	return now, v.probe != nil && r.State == VMRunning && v.guest != nil && v.deleteAt(r) == nil
}

// use is what the last sample tells of use. The caller has a.held.
func (v *vm) use() autoscale.Limits {
	u := v.usage
	return autoscale.Limits{autoscale.CPU: u.CPUs, autoscale.Memory: float64(u.WorkingSetBytes), autoscale.Storage: float64(u.StorageBytes)}
}

func (s *scaledVM) Took(res autoscale.Resource, limit, high float64) {
	s.a.held.Lock()
	defer s.a.held.Unlock()
	s.v.limits.setLimit(res, limit, high)
}

func (s *scaledVM) Write(ctx context.Context, d autoscale.Decision) (limit, high float64, err error) {
	limit, high, err = s.a.writeLimit(ctx, s.v, d)
	if room := (*storage.RoomError)(nil); errors.As(err, &room) {
		err = &fault.Error{Kind: fault.ErrCapacity, Code: "insufficient_storage", Detail: err.Error()}
	}
	return limit, high, err
}

// expect tells the loop that the limits of a VM were changed on request. The caller holds
// v.work.
func (a *Agent) expect(v *vm) {
	a.held.Lock()
	now := currentOf(v.limits)
	a.held.Unlock()
	a.scaling.Expect(v.ID, now)
}

// countDecision counts one that has come to its end.
func (a *Agent) countDecision(d Decision) {
	a.held.Lock()
	defer a.held.Unlock()
	a.outcomes.DecisionEnded(d)
}

// ScalingStatus is how autoscaling stands.
type ScalingStatus struct {
	Mode     string              `json:"mode" enum:"off,recommend,auto" doc:"Of the host"`
	Wakeups  string              `json:"wakeups" enum:"events,polling" doc:"events: the kernel wakes the agent (PSI triggers, memory.events); polling: it looks once a second"`
	Note     string              `json:"note,omitempty" doc:"Why it only polls"`
	Capacity Capacity            `json:"capacity" doc:"That limits of VMs together may have, the host's reserve taken off"`
	Free     Capacity            `json:"free"`
	Idle     policy.IdlePolicy   `json:"idle"`
	VMs      []scaling.VMScaling `json:"vms"`
}

// ScalingStatus tells how autoscaling stands with every VM.
func (a *Agent) ScalingStatus() ScalingStatus {
	view := a.state.View()
	host, room, rules := view.Policy(), a.roomNow(view), a.rules()
	out := ScalingStatus{
		Mode:     rules.HostMode(host),
		Wakeups:  "events",
		Note:     a.scaling.Polling(),
		Idle:     rules.ShowIdle(host),
		Capacity: capacityOf(room.All),
		Free:     capacityOf(room.Free),
		VMs:      a.scaling.Status(view, room.All),
	}
	if out.Note != "" {
		out.Wakeups = "polling"
	}

	a.held.Lock()
	defer a.held.Unlock()
	for i := range out.VMs {
		one := &out.VMs[i]
		if v, r := a.vms[one.VM], view.VM(one.VM); v != nil {
			one.IdleSince, one.DeleteAt, one.Activity = v.idleSince(r), v.deleteAt(r), v.activity(r)
		}
	}
	return out
}

func capacityOf(l autoscale.Limits) Capacity {
	return Capacity{CPUs: l[autoscale.CPU], MemoryBytes: int64(l[autoscale.Memory]), StorageBytes: int64(l[autoscale.Storage])}
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

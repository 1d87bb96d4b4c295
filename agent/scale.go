package agent

import (
	"cloudflash/agent/autoscale"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
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
	a.held.Lock()
	defer a.held.Unlock()
	if v := a.vms[id]; v != nil {
		return &scaledVM{v, a}
	}
	return nil
}

// scaledVM is what the loop of autoscaling sees of a VM.
type scaledVM struct {
	*heldVM
	a *Agent
}

// Work implements scaling.VM.
func (s *scaledVM) Work() (scaling.Lease, bool) {
	if l := s.TryWork(); l != nil {
		return l, true
	}
	return nil, false
}

// Now implements scaling.VM.
func (s *scaledVM) Now(view state.View) (now scaling.Now, ok bool) {
	r, limits, probe := s.Record(view), s.Limits(), s.Probe()
	s.a.held.Lock()
	defer s.a.held.Unlock()
	now = scaling.Now{
		Probe:   probe,
		Limits:  limits.Amounts(),
		High:    limits.High(),
		Use:     s.use(),
		Stored:  s.StoredBytes(),
		Bounded: limits.StorageBytes != nil,
	}
	return now, probe != nil && r.State == VMRunning && s.Guest() != nil && s.deleteAt(r) == nil
}

// use is what the last sample tells of use. The caller has a.held.
func (v *heldVM) use() autoscale.Limits {
	u := v.usage
	return autoscale.Limits{
		autoscale.CPU:     u.CPUs,
		autoscale.Memory:  float64(u.WorkingSetBytes),
		autoscale.Storage: float64(v.StoredBytes()),
	}
}

// expect tells the loop that the limits of a VM were changed on request.
func (a *Agent) expect(v *vm.VM) { a.scaling.Expect(v.ID, v.Limits().Amounts()) }

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

package agent

import (
	"time"

	"cloudflash/agent/state"
	"cloudflash/agent/vm"
)

// VM is a named share of the host.
type VM struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	State     VMState           `json:"state"`
	Reason    string            `json:"reason,omitempty" doc:"Why the VM is in this state, when it needs saying"`
	Image     string            `json:"image" doc:"host, or the directory or tarball of the root file system"`
	Labels    map[string]string `json:"labels,omitempty"`
	Spec      Spec              `json:"spec"`
	Limits    Limits            `json:"limits"`
	Usage     Usage             `json:"usage"`
	Network   Network           `json:"network"`
	GPUs      []GPU             `json:"gpus,omitempty" doc:"The GPUs that are the VM's own"`
	Autoscale Autoscale         `json:"autoscale"`
	IdleSince *time.Time        `json:"idle_since" doc:"When the VM last showed a sign of life; null while it does"`
	CreatedAt time.Time         `json:"created_at"`
	Cloudlets int               `json:"cloudlets" doc:"Cloudlets that are starting, running or frozen in the VM"`
	InitPID   int               `json:"init_pid" doc:"Host process id of the VM's PID 1, 0 when it does not run"`
}

// Autoscale says in short how a VM's limits are scaled and whether it is deleted
// when idle; AutoscaleStatus has more.
type Autoscale struct {
	Mode     string     `json:"mode" enum:"off,recommend,auto" doc:"auto where any limit of the VM is scaled"`
	Keep     bool       `json:"keep" doc:"The VM is not deleted when idle"`
	DeleteAt *time.Time `json:"delete_at" doc:"When idle clean-up deletes the VM unless it gets busy; null while it is not announced"`
	// As they are for this VM now.
	IdleAfterSeconds  float64 `json:"idle_after_seconds" doc:"Idle for so long, the VM is announced; 0: it is not deleted when idle"`
	IdleNoticeSeconds float64 `json:"idle_notice_seconds" doc:"And deleted so much later"`
}

// VMCreate asks for a VM. Zero values take the defaults of Config.Defaults.
type VMCreate struct {
	Name   string
	Image  string
	Labels map[string]string
	Spec   Spec
	// Network says whom it may talk to; addresses are given by the agent.
	Network Network
	// Autoscale is the VM's own policy, laid over the host's.
	Autoscale PolicyLayer
	// Keep saves it from being deleted when idle.
	Keep bool
	// Key tells the same request, made again, from a second one; empty for none.
	Key string `json:"-"`
}

// VMChange changes a VM's spec; nil leaves a field alone.
type VMChange struct {
	CPUs         *float64
	MemoryBytes  *int64
	StorageBytes *int64
	BandwidthBPS *int64
	IO           *IO
	PIDs         *int64
	Autoscale    *PolicyLayer // in place of the VM's own
	Keep         *bool
}

// forget lets go of a VM whose record is gone.
func (a *Agent) forget(v *vm.VM) {
	a.held.Lock()
	delete(a.vms, v.ID)
	a.held.Unlock()
	a.meter.Forget(v.ID)
	a.advisor.Forget(v.ID)
}

// setState stores a state and publishes the event that tells why.
func (a *Agent) setState(v *vm.VM, s VMState, reason string, e Event) (VM, error) {
	err := a.updateAnyway(v, func(rec *vmRecord) { rec.State, rec.Reason = s, reason }, e)
	if err != nil {
		return VM{}, err
	}
	a.touch(v.ID, "it has become "+string(s))
	a.poke()
	return a.VM(v.ID)
}

// update stores a change of what a VM shall be.
func (a *Agent) update(v *vm.VM, change func(*vmRecord), events ...Event) error {
	return a.state.Update(changed(v.ID, change, events...))
}

// updateAnyway is update for what the VM is already, or will be in any case.
func (a *Agent) updateAnyway(v *vm.VM, change func(*vmRecord), events ...Event) error {
	return a.state.UpdateAnyway(changed(v.ID, change, events...))
}

// changed is a change of the record of a VM, with the events that tell of it.
func changed(id string, change func(*vmRecord), events ...Event) func(*state.Tx) error {
	return func(tx *state.Tx) error {
		if err := tx.EditVM(id, change); err != nil {
			return err
		}
		tx.Tell(events...)
		return nil
	}
}

// touch notes a sign of life of a VM.
func (a *Agent) touch(vmID, sign string) {
	a.held.Lock()
	defer a.held.Unlock()
	if v := a.vms[vmID]; v != nil {
		v.idle.Touch(time.Now(), sign)
	}
}

// lookup returns the VM with that id or name.
func (a *Agent) lookup(ref string) (*vm.VM, error) {
	if r := a.state.View().FindVM(ref); r != nil {
		if v := a.known(r.ID); v != nil {
			return v, nil
		}
	}
	return nil, state.NoVM(ref)
}

// known is the hold on a VM, or nil.
func (a *Agent) known(id string) *vm.VM {
	a.held.Lock()
	defer a.held.Unlock()
	if v := a.vms[id]; v != nil {
		return v.VM
	}
	return nil
}

// VM returns the VM with that id or name.
func (a *Agent) VM(ref string) (VM, error) {
	s := a.state.View()
	r := s.FindVM(ref)
	if r == nil {
		return VM{}, state.NoVM(ref)
	}
	a.held.Lock()
	defer a.held.Unlock()
	return a.viewVM(s, r), nil
}

// VMs returns all VMs by name.
func (a *Agent) VMs() []VM {
	s := a.state.View()
	a.held.Lock()
	defer a.held.Unlock()
	return a.viewVMs(s)
}

// viewVMs is VMs at one moment. The caller has a.held.
func (a *Agent) viewVMs(s state.View) []VM {
	all := make([]VM, 0, s.VMCount())
	for r := range s.VMs() {
		all = append(all, a.viewVM(s, r))
	}
	return all
}

// viewVM is how the world sees a VM. The caller has a.held.
func (a *Agent) viewVM(s state.View, r *vmRecord) VM {
	v := a.vms[r.ID]
	if v == nil { // it is being forgotten
		v = &heldVM{VM: a.platform.VM(r)}
	}
	usage := v.usage
	usage.StorageBytes = v.StoredBytes() // as new as the limits
	out := VM{
		ID:        r.ID,
		Name:      r.Name,
		State:     r.State,
		Reason:    r.Reason,
		Image:     r.Image,
		Labels:    r.Labels,
		Spec:      r.Spec,
		Limits:    v.Limits(),
		Usage:     usage,
		Network:   v.Addressed(),
		GPUs:      v.OwnGPUs(),
		Autoscale: a.viewAutoscale(s.Policy(), v, r),
		IdleSince: v.idleSince(r),
		CreatedAt: r.CreatedAt,
		Cloudlets: active(s, r.ID),
	}
	if g := v.Guest(); g != nil {
		out.InitPID = g.PID()
	}
	return out
}

// active counts the cloudlets that hold a share of a VM.
func active(s state.View, vmID string) int {
	n := 0
	for range s.HoldIn(vmID) {
		n++
	}
	return n
}

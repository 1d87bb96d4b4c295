package state

import (
	"time"

	"cloudflash/agent/fault"
)

// VMState is where a VM is in its life.
type VMState string

// The states of a VM. Idle is a fact about a running VM, not a state.
const (
	VMCreating VMState = "creating"
	VMRunning  VMState = "running"
	VMFrozen   VMState = "frozen"
	VMDeleting VMState = "deleting"
	VMFailed   VMState = "failed"
)

// VM is a VM's stored intent. What the kernel knows is not stored. A record that
// was read is never written to, nor are the maps and slices in it.
type VM struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	State     VMState           `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	Image     string            `json:"image"`
	Labels    map[string]string `json:"labels,omitempty"`
	Spec      Spec              `json:"spec"`
	Network   Network           `json:"network"`
	GPUs      []string          `json:"gpus,omitempty"` // ids of its units
	Slot      int               `json:"slot"`           // of user ids, addresses and quotas
	CreatedAt time.Time         `json:"created_at"`
	Thrashed  int64             `json:"thrashed,omitempty"` // cloudlets killed because it did
	Advice    *AppliedAdvice    `json:"advice,omitempty"`   // taken last, for undoing it
	Own       OwnPolicy         `json:"policy,omitzero"`
	Keep      bool              `json:"keep,omitempty"`   // it is not deleted when idle
	Unmade    bool              `json:"unmade,omitempty"` // it is being deleted since it could not be created
	// Sized are the limits that autoscaling has set in place of the spec's, by resource,
	// and memory_high_bytes.
	Sized map[string]float64 `json:"sized,omitempty"`
	// Traffic is what links have carried that are gone: with each init the VM gets a new one.
	Traffic Traffic `json:"traffic,omitzero"`
}

// Traffic is what a VM's links have counted.
type Traffic struct {
	ReceivedBytes   uint64 `json:"received_bytes,omitempty"`
	SentBytes       uint64 `json:"sent_bytes,omitempty"`
	ReceivedPackets uint64 `json:"received_packets,omitempty"`
	SentPackets     uint64 `json:"sent_packets,omitempty"`
	DroppedPackets  uint64 `json:"dropped_packets,omitempty"`
}

// Plus is both together.
func (t Traffic) Plus(other Traffic) Traffic {
	return Traffic{
		ReceivedBytes:   t.ReceivedBytes + other.ReceivedBytes,
		SentBytes:       t.SentBytes + other.SentBytes,
		ReceivedPackets: t.ReceivedPackets + other.ReceivedPackets,
		SentPackets:     t.SentPackets + other.SentPackets,
		DroppedPackets:  t.DroppedPackets + other.DroppedPackets,
	}
}

// Size is what the limits of a VM shall be: its spec, as autoscaling has changed it.
func (r *VM) Size() Spec {
	s := r.Spec
	for resource, v := range r.Sized {
		s.Set(resource, v)
	}
	return s
}

// Held is what a VM takes of what the host has only once: what it was asked for as,
// or what autoscaling has lent it above that. Cores are lent without being taken from
// anybody: by their weights, all VMs get theirs back at once.
func (r *VM) Held() Spec {
	s, now := r.Spec, r.Size()
	s.MemoryBytes = max(s.MemoryBytes, now.MemoryBytes)
	s.StorageBytes = max(s.StorageBytes, now.StorageBytes)
	return s
}

// Lent is what autoscaling has given a VM above its spec, of what a host has only once.
func (r *VM) Lent() Spec {
	h := r.Held()
	return Spec{
		MemoryBytes:  h.MemoryBytes - r.Spec.MemoryBytes,
		StorageBytes: h.StorageBytes - r.Spec.StorageBytes,
	}
}

// Network is whom a VM may talk to and where it is reached.
type Network struct {
	Mode    string `json:"mode" enum:"nat,isolated,bridge"`
	IPv4    string `json:"ipv4" doc:"Empty when isolated"`
	IPv6    string `json:"ipv6" doc:"Empty when isolated, or where the host has no IPv6"`
	Publish []Port `json:"publish"`
}

// Port is one of the host's that leads to one of a VM's.
type Port struct {
	HostIP    string `json:"host_ip,omitempty" doc:"One address of the host; all of them when empty"`
	HostPort  int    `json:"host_port"`
	GuestPort int    `json:"guest_port"`
	Protocol  string `json:"protocol,omitempty" enum:"tcp,udp" doc:"tcp when left out"`
}

// AppliedAdvice is a change of a spec that was made on advice.
type AppliedAdvice struct {
	At   time.Time `json:"at"`
	From Spec      `json:"from"`
	To   Spec      `json:"to"`
}

// OwnPolicy is a layer of policy as it is stored, with the number of its version.
type OwnPolicy struct {
	Layer PolicyLayer `json:"layer,omitzero"`
	Gen   int         `json:"gen,omitempty"`
}

// PolicyLayer is what was set for the host or for one VM: what a PUT replaces.
type PolicyLayer struct {
	Rules map[string]RuleChange `json:"rules,omitempty" doc:"By resource; all is every resource that is not named"`
	Idle  *IdleChange           `json:"idle,omitempty" doc:"Of the host only"`
}

// RuleChange is what a policy says of one resource; nil leaves a value to the
// layer below. Up, Down, Target and Step are ratios of the limit.
type RuleChange struct {
	Mode            *string  `json:"mode,omitempty" enum:"off,recommend,auto" doc:"recommend decides and shows, and changes nothing"`
	Up              *float64 `json:"up,omitempty" doc:"Use above this share of the limit grows it"`
	Down            *float64 `json:"down,omitempty" doc:"Use below this share of the limit for the cooldown shrinks it"`
	CooldownSeconds *float64 `json:"cooldown_seconds,omitempty" doc:"From any change to a shrink; growing never waits"`
	WindowSeconds   *float64 `json:"window_seconds,omitempty" doc:"Of use that a shrink between down and up looks back on"`
	Target          *float64 `json:"target,omitempty" doc:"Use, of the limit, after growing"`
	Margin          *float64 `json:"margin,omitempty" doc:"Above the peak of the window, after shrinking"`
	Step            *float64 `json:"step,omitempty" doc:"Most that one shrink takes, of the limit"`
	Min             *float64 `json:"min,omitempty" doc:"Of a VM only: the limit is never below, in the unit of the resource"`
	Max             *float64 `json:"max,omitempty" doc:"Of a VM only: the limit is never above"`
}

// IdleChange is what the host's policy says of idle VMs.
type IdleChange struct {
	AfterSeconds  *float64 `json:"after_seconds,omitempty" doc:"Without activity until a VM is announced; 0 never deletes"`
	NoticeSeconds *float64 `json:"notice_seconds,omitempty" doc:"From there until it is deleted"`
	MinVMs        *int     `json:"min_vms,omitempty" doc:"So many running VMs stay, idle or not"`
}

// NoVM is how somebody is refused who asks for a VM that is not there.
func NoVM(ref string) error {
	return fault.Refuse(fault.ErrNotFound, "vm_not_found", "cloudflash vm list shows what there is", "VM %s not found", fault.Quote(ref))
}

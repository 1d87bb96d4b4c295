package vm

import (
	"path/filepath"
	"sync"
	"time"

	"cloudflash/agent/gpu"
	"cloudflash/agent/guest"
	"cloudflash/agent/meter"
	"cloudflash/agent/network"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

// A VM is the hold on a VM in the kernel. What is stored of it and may change is in its
// record.
type VM struct {
	Identity
	p     *Platform
	slice *cgroup.Slice
	work  sync.Mutex // of who has the lease

	mu      sync.Mutex   // guards what follows; nothing is waited for with it
	guest   *guest.Guest // nil while its init cannot be reached
	probe   *meter.Probe // nil while it is not metered
	limits  Limits
	stored  int64             // bytes of its files, read with the limits
	address network.Address   // while it is connected
	taken   []network.Publish // ports it goes without
	gpus    []gpu.Unit        // its own that are there
	gpuUse  GPUUse
	traffic traffic
}

// Identity is what never changes of a VM's record.
type Identity struct {
	ID        string
	Name      string
	Image     string
	Labels    map[string]string
	Network   state.Network
	GPUs      []string // ids of its units
	Slot      int      // its id range, see UIDBase
	CreatedAt time.Time
}

// VM returns a hold on the VM of a record. It does nothing to it.
func (p *Platform) VM(r *state.VM) *VM {
	return &VM{
		Identity: Identity{
			ID:        r.ID,
			Name:      r.Name,
			Image:     r.Image,
			Labels:    r.Labels,
			Network:   r.Network,
			GPUs:      r.GPUs,
			Slot:      r.Slot,
			CreatedAt: r.CreatedAt,
		},
		p:       p,
		slice:   p.cfg.Parent.Slice(r.ID),
		gpus:    p.units(r.GPUs),
		traffic: traffic{before: r.Traffic},
	}
}

// Record is what is stored of the VM. Of one that is gone, or is not stored yet, it says
// that it is being deleted.
func (v *VM) Record(s state.View) *state.VM {
	if r := s.VM(v.ID); r != nil {
		return r
	}
	return &state.VM{
		ID:        v.ID,
		Name:      v.Name,
		State:     state.VMDeleting,
		Image:     v.Image,
		Labels:    v.Labels,
		Network:   v.Network,
		GPUs:      v.GPUs,
		Slot:      v.Slot,
		CreatedAt: v.CreatedAt,
	}
}

// record is what is stored of the VM now.
func (v *VM) record() *state.VM { return v.Record(v.p.cfg.State.View()) }

// Slice is the VM's cgroup.
func (v *VM) Slice() *cgroup.Slice { return v.slice }

// UIDBase is the first of the VM's user ids, its root.
func (v *VM) UIDBase() int { return uidFirst + v.Slot*uidCount }

// Guest is the connection to the VM's init; nil while it cannot be reached.
func (v *VM) Guest() *guest.Guest {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.guest
}

// Probe meters the VM; nil while it is not metered.
func (v *VM) Probe() *meter.Probe {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.probe
}

// Limits are those that the kernel had when they were last read or written.
func (v *VM) Limits() Limits {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.limits
}

// StoredBytes is what the VM's files took when that was last read. It is 0 where nobody
// counts it: Limits has no StorageBytes then.
func (v *VM) StoredBytes() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stored
}

// RunDir has the socket and the journal of the VM's init.
func (v *VM) RunDir() string { return filepath.Join(v.p.cfg.RunDir, "vms", v.ID) }

// DataDir is what the VM has as /data. Whatever is in it is the VM's.
func (v *VM) DataDir() string { return filepath.Join(v.stateDir(), "data") }

// LogDir has the output of the VM's cloudlets.
func (p *Platform) LogDir(vmID string) string {
	return filepath.Join(p.cfg.StateDir, "vms", vmID, "logs")
}

func (v *VM) stateDir() string { return filepath.Join(v.p.cfg.StateDir, "vms", v.ID) }

// upperDir holds what a VM writes to its image.
func (v *VM) upperDir() string { return filepath.Join(v.stateDir(), "upper") }

// unpackedDir is the root file system of a VM whose image is an archive.
func (v *VM) unpackedDir() string { return filepath.Join(v.stateDir(), "image") }

// A Lease is the right to change one VM in the kernel. Who has it may hand it on; the
// last one releases it, once.
type Lease struct{ *VM }

// Work waits for the lease of a VM.
func (v *VM) Work() *Lease {
	v.work.Lock()
	return &Lease{v}
}

// TryWork is Work for who does not wait; nil while somebody has the lease.
func (v *VM) TryWork() *Lease {
	if !v.work.TryLock() {
		return nil
	}
	return &Lease{v}
}

// Release gives the lease back. It is of no use afterwards.
func (l *Lease) Release() {
	v := l.VM
	l.VM = nil
	v.work.Unlock()
}

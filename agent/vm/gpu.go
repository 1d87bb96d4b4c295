package vm

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/gpu"
	"cloudflash/agent/guest"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

// GPU is a whole GPU or a MIG instance that belongs to one VM.
type GPU struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Vendor      string `json:"vendor" enum:"nvidia,amd,intel"`
	MemoryBytes int64  `json:"memory_bytes" doc:"0 where the driver does not tell"`
}

// gpuTimeout bounds a look at the GPUs: NVIDIA's library may hang on a lost one.
const gpuTimeout = 10 * time.Second

// findGPUs looks once, before the VMs that have some are recovered.
func (p *Platform) findGPUs(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, gpuTimeout)
	defer cancel()
	inv, err := gpu.Discover(ctx, gpu.Config{})
	if err != nil {
		p.log.Warn("find GPUs", "err", err)
	}
	for _, note := range inv.Notes() {
		p.log.Info(note)
	}
	p.mu.Lock()
	p.gpus = inv
	p.mu.Unlock()

	for _, v := range p.cfg.VMs() {
		units := p.units(v.GPUs)
		v.mu.Lock()
		v.gpus = units
		v.mu.Unlock()
	}
}

// GPUs are all that VMs can have, with notes on what is not as it could be.
func (p *Platform) GPUs() (units []gpu.Unit, notes []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gpus.Units(), p.gpus.Notes()
}

// units are those of a record that are still there.
func (p *Platform) units(ids []string) []gpu.Unit {
	p.mu.Lock()
	defer p.mu.Unlock()
	var units []gpu.Unit
	for _, id := range ids {
		if u, ok := p.gpus.Find(id); ok {
			units = append(units, u)
		}
	}
	return units
}

// ReserveGPUs chooses units that no VM has, and returns their ids.
func (p *Platform) ReserveGPUs(s state.View, n int) ([]string, error) {
	if n == 0 {
		return nil, nil
	}
	taken := map[string]bool{}
	for r := range s.VMs() {
		for _, id := range r.GPUs {
			taken[id] = true
		}
	}

	all, notes := p.GPUs()
	units, err := gpu.Reserve(all, taken, n)
	if err != nil {
		return nil, gpuRefusal(err, notes)
	}
	ids := make([]string, len(units))
	for i, u := range units {
		ids[i] = u.ID
	}
	return ids, nil
}

func gpuRefusal(err error, notes []string) error {
	e := &fault.Error{
		Kind:   fault.ErrCapacity,
		Code:   "insufficient_gpus",
		Detail: "gpus: " + err.Error(),
		Hint:   "ask for fewer, or delete a VM that has one",
	}

	var none *gpu.NoneError
	if errors.As(err, &none) {
		e.Fields = []fault.Field{{Pointer: "/gpus", Detail: none.Error(), Max: none.Free}}
		if none.Total == 0 {
			e.Hint = "cloudflash host check tells why"
			if len(notes) > 0 {
				e.Detail = "gpus: " + notes[0]
			}
		}
	}
	return e
}

// checkGPUs refuses to run a VM without what it was promised.
func (v *VM) checkGPUs() error {
	v.mu.Lock()
	there := len(v.gpus)
	v.mu.Unlock()
	if there == len(v.GPUs) {
		return nil
	}
	return fault.Refuse(fault.ErrConflict, "gpu_gone", "bring the GPU back and restart the agent, or delete the VM",
		"a GPU of VM %s is not there any more", v.Name)
}

func guestDevices(units []gpu.Unit) []guest.Device {
	var all []guest.Device
	seen := map[string]bool{}
	for _, n := range nodesOf(units) {
		if !seen[n.Path] {
			seen[n.Path] = true
			all = append(all, guest.Device{Path: n.Path, Major: n.Major, Minor: n.Minor})
		}
	}
	return all
}

func nodesOf(units []gpu.Unit) []gpu.Node {
	var nodes []gpu.Node
	for _, u := range units {
		nodes = append(append(nodes, u.Nodes...), u.Shared...)
	}
	return nodes
}

func deviceRules(units []gpu.Unit) []cgroup.DeviceRule {
	var rules []cgroup.DeviceRule
	for _, n := range nodesOf(units) {
		rules = append(rules, cgroup.DeviceRule{
			Type:   'c',
			Major:  int64(n.Major),
			Minor:  int64(n.Minor),
			Access: n.Access,
		})
	}
	return rules
}

func guestFiles(units []gpu.Unit) []string {
	var all []string
	seen := map[string]bool{}
	for _, u := range units {
		for _, f := range u.Files {
			if !seen[f] {
				seen[f] = true
				all = append(all, f)
			}
		}
	}
	return all
}

// gpuEvery is how often the use of GPUs is asked for: drivers are slow to tell.
const gpuEvery = 5 * time.Second

// runGPUs measures what each VM uses of its GPUs, where there are any.
func (p *Platform) runGPUs(ctx context.Context) {
	p.mu.Lock()
	gpus := p.gpus
	p.mu.Unlock()
	if len(gpus.Units()) == 0 {
		return
	}

	m := gpu.NewMeter(gpus)
	defer func() { _ = m.Close() }() // one that hangs goes with the process
	tick := time.NewTicker(gpuEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		sampling, cancel := context.WithTimeout(ctx, gpuTimeout)
		sample, err := m.Sample(sampling, p.ownerOf)
		cancel()
		if ctx.Err() == nil {
			p.cfg.Meter.Report("gpu", time.Since(began), err)
		}
		p.countGPUs(sample)

		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ownerOf finds the VM of a process by its cgroup.
func (p *Platform) ownerOf(pid int) (string, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", false // it has ended
	}
	vm, _, ok := gpu.ParseCgroup(text, p.cfg.Parent.Name()+"/vms")
	return vm, ok
}

// GPUUse is what a VM uses of its GPUs; nil is unknown.
type GPUUse struct {
	MemoryBytes *int64
	Busy        *float64 // 1 is one whole GPU
}

// countGPUs adds up what the processes of each VM use. What no driver tells stays
// unknown.
func (p *Platform) countGPUs(s gpu.Sample) {
	uses := map[string]*GPUUse{}
	for _, one := range s.Processes {
		u := uses[one.VM]
		if u == nil {
			u = &GPUUse{}
			uses[one.VM] = u
		}
		add(&u.MemoryBytes, one.MemoryBytes)
		add(&u.Busy, one.BusyRatio)
	}

	for _, v := range p.cfg.VMs() {
		var now GPUUse
		if u := uses[v.ID]; u != nil {
			now = *u
		}
		v.mu.Lock()
		v.gpuUse = now
		v.mu.Unlock()
	}
}

func add[T int64 | float64](sum **T, v *T) {
	if v == nil {
		return
	}
	if *sum == nil {
		*sum = new(T)
	}
	**sum += *v
}

// GPUUse is what the VM used of its GPUs when that was last asked for.
func (v *VM) GPUUse() GPUUse {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gpuUse
}

// OwnGPUs are those of the VM that are there.
func (v *VM) OwnGPUs() []GPU {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []GPU
	for _, u := range v.gpus {
		all = append(all, GPU{
			ID:          u.ID,
			Name:        u.Name,
			Vendor:      u.Vendor,
			MemoryBytes: u.MemoryBytes,
		})
	}
	return all
}

package agent

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
func (a *Agent) findGPUs(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, gpuTimeout)
	defer cancel()
	inv, err := gpu.Discover(ctx, gpu.Config{})
	if err != nil {
		a.log.Warn("find GPUs", "err", err)
	}
	for _, note := range inv.Notes() {
		a.log.Info(note)
	}
	a.held.Lock()
	defer a.held.Unlock()
	a.gpus = inv
	for _, v := range a.vms {
		v.gpuFor = a.units(v.GPUs)
	}
}

// units are those of a record that are still there.
func (a *Agent) units(ids []string) []gpu.Unit {
	var units []gpu.Unit
	for _, id := range ids {
		if u, ok := a.gpus.Find(id); ok {
			units = append(units, u)
		}
	}
	return units
}

// reserveGPUs chooses units that no VM has.
func (a *Agent) reserveGPUs(s state.View, n int) ([]string, error) {
	if n == 0 {
		return nil, nil
	}
	taken := map[string]bool{}
	for r := range s.VMs() {
		for _, id := range r.GPUs {
			taken[id] = true
		}
	}
	a.held.Lock()
	all := a.gpus.Units()
	a.held.Unlock()
	units, err := gpu.Reserve(all, taken, n)
	if err != nil {
		return nil, a.gpuRefusal(err)
	}
	ids := make([]string, len(units))
	for i, u := range units {
		ids[i] = u.ID
	}
	return ids, nil
}

func (a *Agent) gpuRefusal(err error) error {
	e := &fault.Error{Kind: fault.ErrCapacity, Code: "insufficient_gpus", Detail: "gpus: " + err.Error(),
		Hint: "ask for fewer, or delete a VM that has one"}
	var none *gpu.NoneError
	if errors.As(err, &none) {
		e.Fields = []fault.Field{{Pointer: "/gpus", Detail: none.Error(), Max: none.Free}}
		if none.Total == 0 {
			e.Hint = "cloudflash host check tells why"
			for _, note := range a.gpus.Notes() {
				e.Detail = "gpus: " + note
				break
			}
		}
	}
	return e
}

// checkGPUs refuses to run a VM without what it was promised.
func (v *vm) checkGPUs() error {
	if len(v.gpuFor) == len(v.GPUs) {
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
		rules = append(rules, cgroup.DeviceRule{Type: 'c', Major: int64(n.Major), Minor: int64(n.Minor), Access: n.Access})
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
func (a *Agent) runGPUs(ctx context.Context) {
	if len(a.gpus.Units()) == 0 {
		return
	}
	m := gpu.NewMeter(a.gpus)
	defer func() { _ = m.Close() }() // one that hangs goes with the process
	tick := time.NewTicker(gpuEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		sampling, cancel := context.WithTimeout(ctx, gpuTimeout)
		sample, err := m.Sample(sampling, a.ownerOf)
		cancel()
		if ctx.Err() == nil {
			a.meter.Report("gpu", time.Since(began), err)
		}
		a.countGPUs(sample)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ownerOf finds the VM of a process by its cgroup.
func (a *Agent) ownerOf(pid int) (string, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", false // it has ended
	}
	vm, _, ok := gpu.ParseCgroup(text, a.parent.Name()+"/vms")
	return vm, ok
}

// countGPUs adds up what the processes of each VM use. What no driver tells stays
// unknown.
func (a *Agent) countGPUs(s gpu.Sample) {
	a.held.Lock()
	defer a.held.Unlock()
	for _, v := range a.vms {
		v.gpuUse = gpuUse{}
	}
	for _, p := range s.Processes {
		v := a.vms[p.VM]
		if v == nil {
			continue
		}
		add(&v.gpuUse.memory, p.MemoryBytes)
		add(&v.gpuUse.busy, p.BusyRatio)
	}
}

// gpuUse is what a VM uses of its GPUs; nil is unknown.
type gpuUse struct {
	memory *int64
	busy   *float64 // 1 is one whole GPU
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

func (v *vm) viewGPUs() []GPU {
	var all []GPU
	for _, u := range v.gpuFor {
		all = append(all, GPU{ID: u.ID, Name: u.Name, Vendor: u.Vendor, MemoryBytes: u.MemoryBytes})
	}
	return all
}

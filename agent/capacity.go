package agent

import (
	"fmt"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// capacity is what all VMs together may be promised.
func (a *Agent) capacity() Capacity {
	f, o := a.host.Facts(), a.cfg.Overcommit
	units, _ := a.platform.GPUs()
	bytes := f.StorageBytes
	if disk, _ := a.platform.Storage(); disk != nil {
		if c, err := disk.Capacity(); err == nil {
			bytes = c.Total
		}
	}
	return Capacity{
		CPUs:         float64(f.CPUs) * o.CPUs,
		MemoryBytes:  int64(float64(f.MemoryBytes) * o.Memory),
		StorageBytes: int64(float64(bytes) * o.Storage),
		GPUs:         len(units),
	}
}

// reserved is what VMs have been promised, those being deleted included: they
// hold it until they are gone.
func reserved(s state.View) Capacity {
	var r Capacity
	for v := range s.VMs() {
		h := v.Held()
		r.CPUs += h.CPUs
		r.MemoryBytes += h.MemoryBytes
		r.StorageBytes += h.StorageBytes
		r.GPUs += h.GPUs
	}
	return r
}

func (c Capacity) minus(d Capacity) Capacity {
	return Capacity{
		CPUs:         max(c.CPUs-d.CPUs, 0),
		MemoryBytes:  max(c.MemoryBytes-d.MemoryBytes, 0),
		StorageBytes: max(c.StorageBytes-d.StorageBytes, 0),
		GPUs:         max(c.GPUs-d.GPUs, 0),
	}
}

// fits refuses a change from old to new that the host has no room for. Only
// what grows is checked.
func (a *Agent) fits(s state.View, old, new Spec) error {
	free := a.capacity().minus(reserved(s))
	var fields []fault.Field
	short := func(pointer string, need, have any, unit string) {
		fields = append(fields, fault.Field{Pointer: pointer, Max: have,
			Detail: fmt.Sprintf("needs %v%s more, the host has %v%s free to promise", need, unit, have, unit)})
	}
	code := ""
	if d := new.CPUs - old.CPUs; d > free.CPUs+1e-9 {
		short("/cpus", d, free.CPUs, " cpus")
		code = "insufficient_cpus"
	}
	if d := new.MemoryBytes - old.MemoryBytes; d > 0 && d > free.MemoryBytes {
		short("/memory_bytes", d, free.MemoryBytes, " bytes")
		code = "insufficient_memory"
	}
	if d := new.StorageBytes - old.StorageBytes; d > 0 && d > free.StorageBytes {
		short("/storage_bytes", d, free.StorageBytes, " bytes")
		code = "insufficient_storage"
	}
	if d := new.GPUs - old.GPUs; d > 0 && d > free.GPUs {
		short("/gpus", d, free.GPUs, " GPUs")
		code = "insufficient_gpus"
	}
	if len(fields) == 0 {
		return nil
	}
	detail := ""
	for i, f := range fields {
		if i > 0 {
			detail += "; "
		}
		detail += f.Pointer[1:] + " " + f.Detail
	}
	hint := "ask for less, delete or shrink a VM; cloudflash host info shows what is free"
	if lent := lent(s); lent.MemoryBytes > 0 || lent.StorageBytes > 0 {
		hint += fmt.Sprintf("; autoscaling has lent VMs %d MiB of memory and %d MiB of storage above their specs, which come back as they shrink", lent.MemoryBytes>>20, lent.StorageBytes>>20)
	}
	return &fault.Error{Kind: fault.ErrCapacity, Code: code, Fields: fields, Detail: detail, Hint: hint}
}

// lent is what autoscaling has given VMs above their specs.
func lent(s state.View) Spec {
	var all Spec
	for v := range s.VMs() {
		l := v.Lent()
		all.MemoryBytes += l.MemoryBytes
		all.StorageBytes += l.StorageBytes
	}
	return all
}

package vm

import (
	"cloudflash/agent/meter"
	"cloudflash/agent/network"
	"cloudflash/agent/state"
)

// traffic is what the links of a VM have counted.
type traffic struct {
	last      state.Traffic // by the one that it has, when that was last read
	before    state.Traffic // by those that it had before
	unsettled bool          // the record does not have before yet
	counted   bool          // last could be read the last time
}

// Traffic is what the links of all VMs have counted, by VM.
func (p *Platform) Traffic() (map[string]network.Counters, error) { return p.network.Counters() }

// TellMeter tells the meter of a VM what its cgroup does not: its traffic, its GPUs and
// its limits.
func (v *VM) TellMeter(all map[string]network.Counters) {
	v.mu.Lock()
	if v.probe == nil {
		v.mu.Unlock()
		return
	}
	v.traffic.count(all, v.ID)
	unsettled, before := v.traffic.unsettled, v.traffic.before
	given := meter.Given{
		Traffic:        meter.Traffic(before.Plus(v.traffic.last)),
		GPUBusy:        v.gpuUse.Busy,
		GPUMemoryBytes: v.gpuUse.MemoryBytes,
		CPUsLimit:      v.limits.CPUs,
		MemoryLimit:    v.limits.MemoryBytes,
		MemoryHigh:     v.limits.MemoryHighBytes,
		BandwidthLimit: v.limits.BandwidthBPS,
		StorageLimit:   v.limits.StorageBytes,
	}
	if v.limits.StorageBytes != nil { // else nobody counts it
		given.StorageBytes = new(v.stored)
	}
	v.probe.Tell(given)
	v.mu.Unlock()

	if unsettled {
		v.keepTraffic(before)
	}
}

// count takes what the link of a VM has counted. What cannot be read now is as before. A
// link that has counted less is a new one: what the VM is said to have had does not
// go back.
func (t *traffic) count(all map[string]network.Counters, id string) {
	c, ok := all[id]
	t.counted = ok
	if !ok {
		return
	}

	now := state.Traffic{
		ReceivedBytes:   c.RxBytes,
		SentBytes:       c.TxBytes,
		ReceivedPackets: c.RxPackets,
		SentPackets:     c.TxPackets,
		DroppedPackets:  c.RxDropped + c.TxDropped,
	}
	if now.ReceivedBytes < t.last.ReceivedBytes || now.SentBytes < t.last.SentBytes {
		t.before, t.unsettled = t.before.Plus(t.last), true
	}
	t.last = now
}

// keepTraffic stores what links had counted that are gone now. What cannot be stored
// is tried again at the next sample.
func (v *VM) keepTraffic(before state.Traffic) {
	err := v.p.cfg.State.Update(func(tx *state.Tx) error {
		return tx.EditVM(v.ID, func(rec *state.VM) { rec.Traffic = before })
	})
	if err != nil {
		return // it has logged why
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.traffic.unsettled = v.traffic.before != before
}

// TrafficIsCounted reports whether what the VM sends and receives could be read the last
// time.
func (v *VM) TrafficIsCounted() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.traffic.counted
}

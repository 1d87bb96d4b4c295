package vm

import (
	"maps"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// Each VM has 65,536 user ids of its own. They begin above the range that
// systemd-nspawn uses (0x00080000-0x6FFFFFFF) and below 2^31.
const (
	uidFirst = 0x70000000
	uidCount = 65536
	maxSlots = 4094
)

// FreeSlot finds an id range that no VM has, not even one being deleted. The slot
// also decides the addresses: a VM that needs none gets one from the far end, out
// of the way of a small pool.
func (p *Platform) FreeSlot(s state.View, last bool) (int, error) {
	p.mu.Lock()
	worn := maps.Clone(p.worn)
	p.mu.Unlock()
	for slot := range maxSlots {
		if last {
			slot = maxSlots - 1 - slot
		}
		if !worn[slot] && !s.SlotTaken(slot) {
			return slot, nil
		}
	}
	return 0, fault.Refuse(fault.ErrCapacity, "insufficient_ids", "delete a VM",
		"all %d user id ranges are taken", maxSlots)
}

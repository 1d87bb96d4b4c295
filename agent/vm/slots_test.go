package vm

import (
	"errors"
	"log/slog"
	"testing"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/agent/state/statetest"
	"cloudflash/cgroup"
)

// bare is a platform without a kernel.
func bare(t testing.TB) *Platform {
	t.Helper()
	db, _ := statetest.Open(t, t.TempDir())
	p, err := New(Config{
		Log:    slog.New(slog.DiscardHandler),
		State:  db,
		Parent: new(cgroup.Parent),
		Pool:   "10.88.0.0/16",
		ULA:    "fd0c:f1a5:c10d::/64",
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// add stores a VM.
func (p *Platform) add(t testing.TB, r state.VM) {
	t.Helper()
	if err := p.cfg.State.Update(func(tx *state.Tx) error { tx.PutVM(r); return nil }); err != nil {
		t.Fatal(err)
	}
}

func TestIDRangesNeverOverlap(t *testing.T) {
	base := func(slot int) int { return (&VM{Identity: Identity{Slot: slot}}).UIDBase() }
	if end := base(maxSlots-1) + uidCount; end > 1<<31 {
		t.Errorf("the last range ends at %#x, beyond 2^31", end)
	}
	if base(1)-base(0) != uidCount {
		t.Error("neighbouring ranges overlap or leave a gap")
	}
}

func TestSlots(t *testing.T) {
	p := bare(t)
	p.worn = map[int]bool{1: true}
	p.add(t, state.VM{ID: "a", Slot: 0})
	p.add(t, state.VM{ID: "b", Slot: maxSlots - 1})
	for last, want := range map[bool]int{false: 2, true: maxSlots - 2} {
		if got, err := p.FreeSlot(p.cfg.State.View(), last); err != nil || got != want {
			t.Errorf("last %v: %d %v, want %d", last, got, err, want)
		}
	}
	for slot := range maxSlots {
		p.worn[slot] = true
	}
	if _, err := p.FreeSlot(p.cfg.State.View(), false); !errors.Is(err, fault.ErrCapacity) {
		t.Error(err)
	}
}

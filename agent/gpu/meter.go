package gpu

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// A Sample is the use of all units at one time. What a driver does not tell is
// nil, never 0.
type Sample struct {
	At        time.Time
	Units     []UnitUse
	Processes []ProcessUse
}

// UnitUse is the use of a unit by everybody.
type UnitUse struct {
	Unit            string   // ID
	BusyRatio       *float64 // share of time in which anything ran on it, 0-1; unknown for MIG
	MemoryUsedBytes *int64   // with what the driver keeps for itself
}

// ProcessUse is the use of a unit by a process of a VM.
type ProcessUse struct {
	PID         int // on the host
	VM          string
	Unit        string   // ID
	BusyRatio   *float64 // of NVIDIA's multiprocessors, or of the busiest engine, 0-1
	MemoryBytes *int64
}

// Owner finds the VM of a process by its PID on the host.
type Owner func(pid int) (vm string, ok bool)

// ErrBusy says that NVML has not come back from an earlier sample.
var ErrBusy = errors.New("NVML has not answered an earlier question")

// A Meter samples the use of an inventory's units. It is for one goroutine.
type Meter struct {
	host   host
	nvidia bool
	drm    map[string]Unit // by PCI address
	slot   chan struct{}   // held while NVML is asked
	lib    library         // of the holder of slot
	last   drmCounters
	lastAt time.Time
}

// NewMeter opens nothing yet.
func NewMeter(inv Inventory) *Meter {
	m := &Meter{host: newHost(inv.config), drm: map[string]Unit{}, slot: make(chan struct{}, 1)}
	for _, u := range inv.units {
		if u.Vendor == NVIDIA {
			m.nvidia = !inv.stuck
		} else {
			m.drm[u.PCI] = u
		}
	}
	return m
}

// Sample reads every unit and the processes of VMs. The first sample has no
// ratios of AMD's and Intel's processes: they need two. With an error the sample
// has what could be read. An NVML that hangs costs one goroutine and the
// context's time once; ErrBusy follows until it is back.
func (m *Meter) Sample(ctx context.Context, owner Owner) (Sample, error) {
	s := Sample{At: time.Now()}
	var errs []error
	if m.nvidia {
		r, err := m.ask(ctx)
		errs = append(errs, err)
		s.Units = append(s.Units, r.units...)
		s.Processes = append(s.Processes, owned(r.processes, owner)...)
	}
	if len(m.drm) > 0 {
		units, processes, err := m.sampleDRM(ctx, s.At, owner)
		errs = append(errs, err)
		s.Units = append(s.Units, units...)
		s.Processes = append(s.Processes, processes...)
	}
	return s, errors.Join(errs...)
}

// Close gives NVML back, unless it hangs.
func (m *Meter) Close() error {
	select {
	case m.slot <- struct{}{}:
		defer func() { <-m.slot }()
	default:
		return ErrBusy
	}
	if m.lib == nil {
		return nil
	}
	lib := m.lib
	m.lib = nil
	return lib.close()
}

// owned are the processes of VMs.
func owned(all []ProcessUse, owner Owner) []ProcessUse {
	var mine []ProcessUse
	for _, p := range all {
		if vm, ok := owner(p.PID); ok {
			p.VM = vm
			mine = append(mine, p)
		}
	}
	return mine
}

type answer struct {
	units     []UnitUse
	processes []ProcessUse
	err       error
}

// ask samples NVML in a goroutine of its own, one at a time.
func (m *Meter) ask(ctx context.Context) (answer, error) {
	select {
	case m.slot <- struct{}{}:
	default:
		return answer{}, ErrBusy
	}
	done := make(chan answer, 1)
	go func() {
		a := m.readLibrary()
		<-m.slot // first: whoever has the answer may ask again
		done <- a
	}()
	select {
	case a := <-done:
		return a, a.err
	case <-ctx.Done():
		return answer{}, fmt.Errorf("wait for NVML: %w", ctx.Err())
	}
}

// readLibrary opens NVML when it is not open. A build without it is no error:
// Discover has said so.
func (m *Meter) readLibrary() (a answer) {
	if m.lib == nil {
		lib, err := m.host.open()
		if errors.Is(err, errNotBuilt) {
			return answer{}
		}
		if err != nil {
			return answer{err: err}
		}
		m.lib = lib
	}
	a.units, a.processes, a.err = m.lib.sample()
	return a
}

// renderNode is the name of a DRM unit's node, renderD128.
func renderNode(u Unit) string { return filepath.Base(u.Nodes[0].Path) }

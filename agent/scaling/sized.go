package scaling

import (
	"maps"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/state"
)

// SizedHigh is the key of memory.high in state.VM.Sized.
const SizedHigh = "memory_high_bytes"

// Resized is what autoscaling has set once a limit has become v, and, for memory,
// memory.high.
func Resized(r *state.VM, res autoscale.Resource, v, high float64) map[string]float64 {
	next := maps.Clone(r.Sized)
	if next == nil {
		next = map[string]float64{}
	}
	next[res.String()] = v
	if res == autoscale.Memory {
		next[SizedHigh] = high
	}
	return next
}

// Unsized is r.Sized without the resources that are given: their limits are the spec's
// again.
func Unsized(r *state.VM, given func(autoscale.Resource) bool) map[string]float64 {
	var next map[string]float64
	for res := range autoscale.Resources {
		if v, ok := r.Sized[res.String()]; ok && !given(res) {
			rec := state.VM{Sized: next}
			next = Resized(&rec, res, v, r.Sized[SizedHigh])
		}
	}
	return next
}

// Keeping is what autoscaling has set with one limit as another record has it.
func Keeping(r, old *state.VM, res autoscale.Resource) map[string]float64 {
	if v, ok := old.Sized[res.String()]; ok {
		return Resized(r, res, v, old.Sized[SizedHigh])
	}
	return r.Sized
}

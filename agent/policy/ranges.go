package policy

import (
	"math"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// Range is the accepted values of one field, both ends included.
type Range[T int | int64 | float64] struct{ Min, Max T }

// Ranges are the accepted values of a spec.
type Ranges struct {
	CPUs         Range[float64]
	MemoryBytes  Range[int64]
	StorageBytes Range[int64]
	BandwidthBPS Range[int64]
	GPUs         Range[int]
	PIDs         Range[int64]
}

// Check refuses a spec with a value outside of its range.
func (r Ranges) Check(s state.Spec) error {
	var f fault.List
	fault.Within(&f, "/cpus", s.CPUs, r.CPUs.Min, r.CPUs.Max)
	fault.Within(&f, "/memory_bytes", s.MemoryBytes, r.MemoryBytes.Min, r.MemoryBytes.Max)
	fault.Within(&f, "/storage_bytes", s.StorageBytes, r.StorageBytes.Min, r.StorageBytes.Max)
	fault.Within(&f, "/bandwidth_bps", s.BandwidthBPS, r.BandwidthBPS.Min, r.BandwidthBPS.Max)
	fault.Within(&f, "/gpus", s.GPUs, r.GPUs.Min, r.GPUs.Max)
	fault.Within(&f, "/pids", s.PIDs, r.PIDs.Min, r.PIDs.Max)
	unlessNone(&f, "/io/rbps", s.IO.ReadBPS, math.MaxInt64)
	unlessNone(&f, "/io/wbps", s.IO.WriteBPS, math.MaxInt64)
	unlessNone(&f, "/io/riops", s.IO.ReadIOPS, maxIOPS)
	unlessNone(&f, "/io/wiops", s.IO.WriteIOPS, maxIOPS)
	return f.Err("out_of_range")
}

// maxIOPS is the most that io.max takes: the most of 32 bits means no limit to it
// (tg_set_limit in block/blk-throttle.c).
const maxIOPS = math.MaxUint32 - 1

// unlessNone checks a rate of IO; 0 is no limit.
func unlessNone(f *fault.List, pointer string, n, most int64) {
	const least = autoscale.LeastIO
	if n != 0 && (n < least || n > most) {
		f.Add(pointer, least, most, "must be %d to %d, or 0 for no limit, not %d", least, most, n)
	}
}

// Package thrash tells when a VM stands still for want of memory.
//
// A VM that fills its memory limit with what cannot be dropped should meet the
// kernel's OOM killer. It may not for minutes (seen on Linux 6.1 and 6.12): as
// long as reclaim finds pages of the program itself, which is read back at once,
// the kernel takes that for progress. Meanwhile the VM stands still, and reads
// from the disk without end. What systemd-oomd does for a whole host by pressure
// is done here for one VM: by pressure, with next to nothing left to reclaim, and
// only where that little is read again and again. One that is full and writes,
// or reads files once, waits for memory too, but gets on.
package thrash

import (
	"time"

	"cloudflash/agent/state"
)

const (
	full     = 0.98            // memory.current, of the limit
	little   = 0.03            // page cache, of the limit
	waiting  = 0.3             // of the time, some task waited for memory
	refaults = 4               // times the whole cache was read back since the last sample
	gap      = 3 * time.Second // a longer one between samples proves nothing
)

// Samples is how many in a row have to speak for it.
const Samples = 4

// Watch watches one VM for it.
type Watch struct {
	at       time.Time // of the last sample
	waiting  float64   // MemoryWaitingSeconds then
	refaults int64     // bytes, at the last look at the cache; -1: none yet
	times    int       // samples in a row
}

// Cache is the page cache of a slice that is backed by files, in bytes.
type Cache struct{ Size, Unwritten, Refaults int64 }

// Observe takes a new sample and tells whether the VM has thrashed for long
// enough. Look is called only when all else speaks for it.
func (t *Watch) Observe(u state.Usage, limit int64, look func() (Cache, error)) bool {
	took, waited := u.At.Sub(t.at), u.MemoryWaitingSeconds-t.waiting
	if took <= 0 {
		return false // no news
	}
	t.at, t.waiting = u.At, u.MemoryWaitingSeconds
	if took > gap || float64(u.MemoryBytes) < full*float64(limit) || waited < waiting*took.Seconds() {
		t.times, t.refaults = 0, -1
		return false
	}
	c, err := look()
	if err != nil || float64(c.Size) > little*float64(limit) || c.Unwritten > c.Size/2 {
		t.times, t.refaults = 0, -1
		return false
	}
	again := c.Refaults - t.refaults
	first := t.refaults < 0
	t.refaults = c.Refaults
	switch {
	case first:
	case again < refaults*c.Size || again == 0:
		t.times = 0
	default:
		t.times++
	}
	return t.times >= Samples
}

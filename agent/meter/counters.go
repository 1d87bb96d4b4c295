package meter

// A Count is one of the counters of a slice or scope.
type Count int

// The counters. Times are in microseconds, as the kernel has them.
const (
	CPUTime Count = iota
	UserTime
	SystemTime
	ThrottledTime
	Periods
	ThrottledPeriods
	Refaults
	MemoryHigh
	MemoryMax
	OOMs
	OOMKills
	ReadBytes
	WrittenBytes
	ReadOps
	WriteOps
	CPUWaiting
	CPUStalled
	MemoryWaiting
	MemoryStalled
	IOWaiting
	IOStalled
	ReceivedBytes
	SentBytes
	ReceivedPackets
	SentPackets
	DroppedPackets
	counts
)

// Counters are totals since the slice was made. They never go back.
type Counters [counts]uint64

// advance adds what the kernel's counters have grown by, and reports whether one
// went back: io.stat does when a device goes, a link's counters when it is made
// anew. What was lost in between stays lost.
func (c *Counters) advance(before, after *Counters) (back bool) {
	for i := range c {
		switch {
		case after[i] >= before[i]:
			c[i] += after[i] - before[i]
		case i >= int(ReceivedBytes) && i <= int(DroppedPackets): // began again at 0
			c[i] += after[i]
		default:
			back = true
		}
	}
	*before = *after
	return back
}

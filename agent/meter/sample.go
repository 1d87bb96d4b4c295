package meter

import (
	"math"
	"time"

	"cloudflash/cgroup"
)

// Sample is one reading of a slice or scope.
type Sample struct {
	At       time.Time
	CPUs     float64 // cores in use since the sample before
	Counters Counters

	// StatAt and IOAt are when memory.stat and io.stat were read: every five
	// seconds, of an idle VM every ten. Zero: not yet, or not to be had.
	StatAt, IOAt time.Time

	Memory, MemoryPeak, Swap, PIDs int64
	WorkingSet, Anon, File, Kernel int64
	Unreclaimable                  int64   // bytes that cannot be freed without swap, at StatAt: cgroup.MemoryStat
	CPUAvg10, MemoryAvg10, IOAvg10 float64 // PSI some, 0-1
	throttled, received, sent      float64 // ratio, and bits per second
	read, written, ops             float64 // per second
	cpuWait, memoryWait, ioWait    float64 // seconds per second that some task waited
	inactiveFile                   int64
	given                          Given

	Lacks Lacks
}

// Lacks is what a sample cannot tell, because this kernel or this cgroup does not:
// what is lacking reads as zero, or as it was when it was hidden.
type Lacks struct {
	Pressure bool // averages, and the counters of waiting and stalls
	Memory   bool // memory.current or memory.events
	Stat     bool // memory.stat
	IO       bool // io.stat
}

// Traffic is what a VM's link has counted.
type Traffic struct {
	ReceivedBytes, SentBytes, ReceivedPackets, SentPackets, DroppedPackets uint64
}

// Given is what others know of a VM and its history keeps. A nil pointer is
// unknown, or no limit.
type Given struct {
	Traffic        Traffic
	GPUBusy        *float64
	GPUMemoryBytes *int64
	CPUsLimit      *float64
	MemoryLimit    *int64
	BandwidthLimit *int64
	MemoryHigh     *int64
	StorageBytes   *int64
	StorageLimit   *int64
}

// An Opener is a slice or a scope.
type Opener interface {
	OpenReader() (*cgroup.Reader, error)
}

// Read reads a slice or scope once, all of it. What it cannot tell is zero.
func Read(o Opener) Sample {
	p, err := newProbe(o, 0)
	if err != nil {
		return Sample{}
	}
	defer p.release()
	_ = p.sample(time.Now())
	p.last.CPUs = 0
	return p.last
}

// values are those of a VM's history.
func (s *Sample) values(v *[vmSeries]float64) {
	v[vmCPUs], v[vmThrottled] = s.CPUs, s.throttled
	v[vmMemory], v[vmWorkingSet], v[vmAnon], v[vmFile] = float64(s.Memory), float64(s.WorkingSet), float64(s.Anon), float64(s.File)
	v[vmReceived], v[vmSent] = s.received, s.sent
	v[vmRead], v[vmWritten], v[vmOps], v[vmPIDs] = s.read, s.written, s.ops, float64(s.PIDs)
	v[vmCPUPressure], v[vmMemoryPressure], v[vmIOPressure] = s.cpuWait, s.memoryWait, s.ioWait
	v[vmGPUBusy], v[vmGPUMemory] = known(s.given.GPUBusy), known(s.given.GPUMemoryBytes)
	v[vmCPUsLimit], v[vmMemoryLimit], v[vmBandwidthLimit] = known(s.given.CPUsLimit), known(s.given.MemoryLimit), known(s.given.BandwidthLimit)
	v[vmMemoryHigh], v[vmStorage], v[vmStorageLimit] = known(s.given.MemoryHigh), known(s.given.StorageBytes), known(s.given.StorageLimit)
}

func known[T int64 | float64](v *T) float64 {
	if v == nil {
		return math.NaN()
	}
	return float64(*v)
}

package meter

import (
	"errors"
	"time"

	"cloudflash/cgroup"
	"golang.org/x/sys/unix"
)

// lateBy is more than a read takes when nothing comes between.
const lateBy = time.Millisecond

// readCPU reads the CPU time at a time, and returns when that was.
func (p *Probe) readCPU(at time.Time) (time.Time, error) {
	began := time.Now()
	cpu, err := p.r.CPU()
	if err != nil {
		return at, err
	}
	// Who is preempted meanwhile would take the time of one second for the use of two.
	if late := p.since(began); late > lateBy {
		at = at.Add(late)
	}
	p.now.setCPU(cpu)
	return at, nil
}

// readFast reads what is cheap: single numbers, events, pressure.
func (p *Probe) readFast(s *Sample) error {
	err := p.readUrgent(s)
	p.optional(featurePeak, &err, func() (err error) { s.MemoryPeak, err = p.r.MemoryPeak(); return }) // Linux 5.19
	p.optional(featurePIDs, &err, func() (err error) { s.PIDs, err = p.r.PIDs(); return })
	return err
}

// readUrgent reads the part of it that limits are decided by.
func (p *Probe) readUrgent(s *Sample) error {
	var err error
	p.optional(featureMemory, &err, func() (err error) { s.Memory, err = p.r.MemoryCurrent(); return })
	p.optional(featureEvents, &err, p.readEvents)
	p.optional(featurePressure, &err, func() error { return p.readPressure(s) })
	return err
}

func (p *Probe) readEvents() error {
	e, err := p.r.MemoryEvents()
	if err == nil {
		p.now[MemoryHigh], p.now[MemoryMax], p.now[OOMs] = e.High, e.Max, e.OOM
		p.now[OOMKills] = e.OOMGroupKill // oom_kill counts the first process of a group twice
	}
	return err
}

func (p *Probe) readPressure(s *Sample) error {
	cpu, err := p.r.Pressure("cpu")
	if err != nil {
		return err
	}
	memory, err := p.r.Pressure("memory")
	if err != nil {
		return err
	}
	io, err := p.r.Pressure("io")
	if err != nil {
		return err
	}
	s.CPUAvg10, s.MemoryAvg10, s.IOAvg10 = cpu.Some.Avg10/100, memory.Some.Avg10/100, io.Some.Avg10/100
	p.now[CPUWaiting], p.now[CPUStalled] = micros(cpu.Some.Total), micros(cpu.Full.Total)
	p.now[MemoryWaiting], p.now[MemoryStalled] = micros(memory.Some.Total), micros(memory.Full.Total)
	p.now[IOWaiting], p.now[IOStalled] = micros(io.Some.Total), micros(io.Full.Total)
	return nil
}

// readSlow reads what is not: the kernel adds up memory.stat and io.stat over all
// CPUs first.
func (p *Probe) readSlow(s *Sample) error {
	var err error
	p.optional(featureStat, &err, func() error { return p.readStat(s) })
	p.optional(featureIO, &err, p.readIO)
	p.optional(featureSwap, &err, func() (err error) { s.Swap, err = p.r.SwapCurrent(); return })
	return err
}

func (p *Probe) readStat(s *Sample) error {
	m, err := p.r.MemoryStat()
	if err != nil {
		return err
	}
	s.Anon, s.File, s.Kernel, s.inactiveFile = int64(m.Anon), int64(m.File), int64(m.Kernel), int64(m.InactiveFile)
	if m.Kernel == 0 { // before Linux 5.18
		s.Kernel = int64(m.Slab)
	}
	s.Unreclaimable = int64(m.Unreclaimable())
	p.now[Refaults] = m.RefaultAnon + m.RefaultFile
	return nil
}

func (p *Probe) readIO() error {
	io, err := p.r.IO()
	if err == nil {
		p.now[ReadBytes], p.now[WrittenBytes], p.now[ReadOps], p.now[WriteOps] = io.ReadBytes, io.WrittenBytes, io.ReadOps, io.WriteOps
	}
	return err
}

// optional reads, unless something before has failed. It does without what this
// kernel does not have, and does not ask for it again.
func (p *Probe) optional(feature int, failed *error, read func() error) {
	if *failed != nil || p.missing[feature] {
		return
	}
	err := read()
	if err == nil {
		return
	}
	// What is hidden while it is open (cgroup.pressure, Linux 6.1) reads as if the
	// whole cgroup had gone.
	hidden := errors.Is(err, cgroup.ErrGone) && p.alive()
	if hidden || errors.Is(err, cgroup.ErrUnsupported) || errors.Is(err, unix.EOPNOTSUPP) {
		p.missing[feature] = true
		return
	}
	*failed = err
}

func (p *Probe) alive() bool {
	_, err := p.r.CPU()
	return err == nil
}

func micros(d time.Duration) uint64 { return uint64(d / time.Microsecond) }

func (c *Counters) setCPU(s cgroup.CPUStat) {
	c[CPUTime], c[UserTime], c[SystemTime], c[ThrottledTime] = micros(s.Usage), micros(s.User), micros(s.System), micros(s.ThrottledTime)
	c[Periods], c[ThrottledPeriods] = s.Periods, s.Throttled
}

func (c *Counters) setTraffic(t Traffic) {
	c[ReceivedBytes], c[SentBytes] = t.ReceivedBytes, t.SentBytes
	c[ReceivedPackets], c[SentPackets], c[DroppedPackets] = t.ReceivedPackets, t.SentPackets, t.DroppedPackets
}

package agent

import (
	"time"

	"cloudflash/cgroup"
)

// probe reads what one slice or scope uses, through kept files.
type probe struct {
	r    *cgroup.Reader
	at   time.Time
	cpu  time.Duration // usage at that time
	io   cgroup.IOStat
	ioAt time.Time
}

// opener is a slice or a scope.
type opener interface {
	OpenReader() (*cgroup.Reader, error)
}

func newProbe(o opener) (*probe, error) {
	r, err := o.OpenReader()
	if err != nil {
		return nil, err
	}
	return &probe{r: r}, nil
}

// Close closes the kept files. A nil probe is fine.
func (p *probe) Close() {
	if p != nil {
		_ = p.r.Close()
	}
}

// slowEvery is how often the files that are dear to read are read.
const slowEvery = 5 * time.Second

// sample reads the usage now. Files this kernel does not have read as zero.
func (p *probe) sample(now time.Time) (Usage, error) {
	cpu, err := p.r.CPU()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{At: now.UTC(), CPUSeconds: cpu.Usage.Seconds(), ThrottledSeconds: cpu.ThrottledTime.Seconds()}
	if !p.at.IsZero() && now.After(p.at) {
		u.CPUs = max(float64(cpu.Usage-p.cpu)/float64(now.Sub(p.at)), 0)
	}
	p.at, p.cpu = now, cpu.Usage
	if u.MemoryBytes, err = p.r.MemoryCurrent(); err != nil {
		return u, err
	}
	u.MemoryPeakBytes, _ = p.r.MemoryPeak() // absent before 5.19
	u.PIDs, _ = p.r.PIDs()
	if ev, err := p.r.MemoryEvents(); err == nil {
		u.OOMKills = int64(ev.OOMGroupKill) // oom_kill counts the first process of a group twice
	}
	if now.Sub(p.ioAt) >= slowEvery {
		if io, err := p.r.IO(); err == nil {
			p.io, p.ioAt = io, now
		}
	}
	u.ReadBytes, u.WrittenBytes = int64(p.io.ReadBytes), int64(p.io.WrittenBytes)
	if psi, err := p.r.Pressure("memory"); err == nil {
		u.MemoryWaitingSeconds, u.MemoryStalledSeconds = psi.Some.Total.Seconds(), psi.Full.Total.Seconds()
	}
	u.CPUPressure, u.MemoryPressure, u.IOPressure = p.pressure("cpu"), p.pressure("memory"), p.pressure("io")
	return u, nil
}

// pressure is PSI some avg10 as a ratio, 0 where there is no PSI.
func (p *probe) pressure(resource string) float64 {
	psi, err := p.r.Pressure(resource)
	if err != nil {
		return 0
	}
	return psi.Some.Avg10 / 100
}

// lastUsage reads a scope that is about to be removed; what cannot be read any
// more is zero.
func lastUsage(o opener) Usage {
	p, err := newProbe(o)
	if err != nil {
		return Usage{}
	}
	defer p.Close()
	u, _ := p.sample(time.Now())
	u.CPUs = 0
	return u
}

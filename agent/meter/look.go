package meter

import (
	"fmt"
	"os"
	"time"
)

// Look reads now what a decision needs: CPU, pressure, memory, its events, and
// memory.stat when stat is set. All else, the rates too, is as in the last sample:
// who looks twice works out rates from the counters, which are on the scale of
// Last's. It changes nothing of the samples and rates of every second. The error
// is cgroup.ErrGone when the cgroup is, os.ErrClosed after Close.
func (p *Probe) Look(stat bool) (Sample, error) {
	p.mu.Lock()
	defer p.unlock()
	if p.closed.Load() {
		return Sample{}, fmt.Errorf("look at %s: %w", p.id, os.ErrClosed)
	}
	kept := p.now
	defer func() { p.now = kept }()
	s, raw := p.last, p.raw
	var err error
	if s.At, err = p.readCPU(time.Now()); err != nil {
		return Sample{}, err
	}
	if err := p.readUrgent(&s); err != nil {
		return Sample{}, err
	}
	if stat {
		p.optional(featureStat, &err, func() error { return p.readStat(&s) })
		if err != nil {
			return Sample{}, err
		}
		p.dateStat(&s, s.At)
	}
	s.Counters.advance(&raw, &p.now)
	p.derive(&s)
	return s, nil
}

// Throttled reads how many periods the slice was throttled in, on the scale of Last's
// counters. It is the cheapest of looks.
func (p *Probe) Throttled() (uint64, error) {
	p.mu.Lock()
	defer p.unlock()
	if p.closed.Load() {
		return 0, fmt.Errorf("look at %s: %w", p.id, os.ErrClosed)
	}
	cpu, err := p.r.CPU()
	if err != nil {
		return 0, err
	}
	n, raw := p.last.Counters[ThrottledPeriods], p.raw[ThrottledPeriods]
	return n + cpu.Throttled - min(cpu.Throttled, raw), nil
}

package meter

import (
	"errors"
	"hash/maphash"
	"log/slog"
	"maps"
	"sync"
	"time"

	"cloudflash/cgroup"
)

// Config is what a Meter is told.
type Config struct {
	StateDir string // whose file system is metered
	File     string // where the history survives a restart; empty for nowhere
	// SaveEvery is how often Run writes that file, 0 for the constant.
	SaveEvery time.Duration
	// MaxBytes bounds what all histories may take in memory, 0 for 48 MiB. Beyond
	// it the oldest points go first.
	MaxBytes int
	Log      *slog.Logger
}

// A Meter reads the host and everything that has been opened with it. Make one
// with New; its methods may be called from any goroutine, Pass from one at a time.
type Meter struct {
	cfg        Config
	host       *hostProbe
	hostPast   *history
	collectors collectors
	timeline   timeline
	seed       maphash.Seed
	scratch    []byte   // of Pass
	pass       []*Probe // of Pass

	mu     sync.Mutex // guards what follows
	vms    map[string]*Probe
	scopes map[*Probe]struct{}
	past   map[string]*history // by VM, those without a probe too
	saving sync.Mutex
}

// New makes a Meter. It opens nothing.
func New(cfg Config) *Meter {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 48 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Meter{cfg: cfg, host: newHostProbe(cfg.StateDir, ""), hostPast: newHistory(hostSeries),
		collectors: collectors{log: cfg.Log, all: map[string]Collector{}}, timeline: timeline{log: cfg.Log}, seed: maphash.MakeSeed(),
		vms: map[string]*Probe{}, scopes: map[*Probe]struct{}{}, past: map[string]*history{}}
}

// VM begins to meter a slice and to remember it under an id, in place of what was
// metered under that id before; what that was told last holds until the new one is told
// something. Close ends the first, Forget the second. One caller at a time for an id.
func (m *Meter) VM(id string, o Opener) (*Probe, error) {
	p, err := newProbe(o, phaseOf(m.seed, id))
	if err != nil {
		return nil, err
	}
	p.id, p.meter = id, m
	m.mu.Lock()
	old := m.vms[id]
	m.mu.Unlock()
	p.given = old.told()

	m.mu.Lock()
	if m.past[id] == nil {
		m.past[id] = newHistory(vmSeries)
	}
	p.past = m.past[id]
	m.vms[id] = p
	m.mu.Unlock()
	if old != nil {
		old.release()
	}
	return p, nil
}

// Scope begins to meter a scope. Nothing of it is remembered after Close.
func (m *Meter) Scope(id string, o Opener) (*Probe, error) {
	p, err := newProbe(o, phaseOf(m.seed, id))
	if err != nil {
		return nil, err
	}
	p.id, p.meter = id, m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scopes[p] = struct{}{}
	return p, nil
}

func (m *Meter) drop(p *Probe) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.scopes, p)
	if m.vms[p.id] == p {
		delete(m.vms, p.id)
	}
}

// Forget forgets a VM that has been deleted.
func (m *Meter) Forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.past, id)
}

// Keep forgets all VMs but those that exist.
func (m *Meter) Keep(exists func(id string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.past, func(id string, _ *history) bool { return !exists(id) })
}

// Host is the newest sample of the host, zero before the first.
func (m *Meter) Host() HostSample {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	return m.host.last
}

// TellHost takes what the next sample shall say of the host beside.
func (m *Meter) TellHost(g HostGiven) {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.host.given = g
}

// Pass reads everything that is due. It is called once a second.
func (m *Meter) Pass(now time.Time) {
	from, to := m.timeline.advance(now)
	m.passHost(now, from, to)
	began := time.Now()
	pass := m.probes()
	var failed error
	lacking := m.host.noPressure
	for _, p := range pass {
		if err := p.pass(from, to, &m.scratch); err != nil && failed == nil {
			failed = err
		}
		if lacking == nil && p.lacks(featurePressure) {
			lacking = &cgroup.UnsupportedError{Feature: "cpu.pressure", Needs: "PSI: a kernel with CONFIG_PSI, psi=1 where it is off by default, and 1 in cgroup.pressure"}
		}
	}
	clear(pass)
	m.Report("vms", time.Since(began), failed)
	m.Report("pressure", 0, lacking)
	m.shed()
}

// probes lists what there is to read, in the same memory each time.
func (m *Meter) probes() []*Probe {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pass = m.pass[:0]
	for _, p := range m.vms {
		m.pass = append(m.pass, p)
	}
	for p := range m.scopes {
		m.pass = append(m.pass, p)
	}
	return m.pass
}

// pass takes one sample and remembers it. A cgroup that has gone is no error: who
// owns it is about to say so.
func (p *Probe) pass(from, to int64, scratch *[]byte) error {
	p.mu.Lock()
	defer p.unlock()
	if p.closed.Load() {
		return nil
	}
	if err := p.sample(time.Now()); err != nil {
		if errors.Is(err, cgroup.ErrGone) {
			return nil
		}
		p.warn(warnRead, "sample", err)
		return err
	}
	if p.past != nil {
		var v [vmSeries]float64
		p.last.values(&v)
		p.past.add(from, to, v[:], scratch)
	}
	return nil
}

func (p *Probe) lacks(feature int) bool {
	p.mu.Lock()
	defer p.unlock()
	return p.missing[feature]
}

// warn says something of a probe once.
func (p *Probe) warn(about int, what string, detail any) {
	if p.warned[about] || p.meter == nil {
		return
	}
	p.warned[about] = true
	p.meter.cfg.Log.Warn("meter "+p.id+": "+what, "err", detail)
}

func (m *Meter) passHost(now time.Time, from, to int64) {
	began := time.Now()
	before := m.Host()
	s, err := m.host.sample(now)
	m.Report("host", time.Since(began), err)
	began = time.Now()
	err = m.host.readStorage(&s)
	m.Report("storage", time.Since(began), err)
	m.host.mu.Lock()
	m.host.last = s
	given := m.host.given
	m.host.mu.Unlock()
	var v [hostSeries]float64
	s.values(&before, given, m.host.noPressure == nil, &v)
	m.hostPast.add(from, to, v[:], &m.scratch)
}

// shed keeps all histories together within their bound.
func (m *Meter) shed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	total := 0
	for _, h := range m.past {
		total += h.bytes() + h.fixed()
	}
	if total <= m.cfg.MaxBytes {
		return
	}
	for _, h := range m.past {
		h.dropOldest()
	}
}

// Close closes what the Meter itself keeps open.
func (m *Meter) Close() { m.host.close() }

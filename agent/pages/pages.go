// Package pages has the page frames of this host: their numbers, kept fresh once a second,
// the map of single pages by the scan of package pagemap, who owns them, and full scans.
package pages

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
	"cloudflash/pagemap"
)

// How the scan of pages rests when nobody looks at the map.
const (
	idleAfter    = 10 * time.Minute
	idleEvery    = 5 * time.Minute
	refreshEvery = time.Minute // how often memory may turn out to have been plugged in
	readEvery    = time.Second
)

// Config is what Pages are told at the start.
type Config struct {
	Log    *slog.Logger
	State  *state.DB
	Parent *cgroup.Parent
	Budget float64 // cores the rolling scan may take; negative: no scan at all

	Report  func(took time.Duration, err error) // is told how each reading of the counters went
	Changed func()                              // is told when a full pass has begun or ended
}

// Pages has the numbers and the map of this host's page frames.
type Pages struct {
	cfg      Config
	counters *pagemap.Counters // nil: countersErr
	scanner  *pagemap.Scanner  // nil: scannerErr
	off      bool

	countersErr, scannerErr error
	current                 atomic.Pointer[Memory]

	view   sync.Mutex // guards mapped, and the order in which current is replaced
	mapped time.Time  // when Memory.Map was made

	looking chan struct{} // holds one while somebody looks at the mappings of a process

	mu    sync.Mutex                 // guards scans
	scans map[string]state.Operation // full passes: they do not outlive the agent
}

// Open opens the files. A kernel without them is no reason not to run.
func Open(cfg Config) *Pages {
	p := &Pages{
		cfg:     cfg,
		off:     cfg.Budget < 0,
		looking: make(chan struct{}, 1),
		scans:   map[string]state.Operation{},
	}
	fs := pagemap.FS("/")
	if p.counters, p.countersErr = fs.OpenCounters(os.Getpagesize()); p.countersErr != nil {
		cfg.Log.Warn("no numbers of memory pages", "err", p.countersErr)
	}
	p.openScanner(fs)
	if p.counters != nil { // the agent has numbers before anybody can ask for them
		p.read()
	}
	return p
}

func (p *Pages) openScanner(fs pagemap.FS) {
	if p.off {
		p.scannerErr = errors.New("switched off: serve --page-scan off")
		return
	}
	p.scanner, p.scannerErr = fs.NewScanner(pagemap.Options{
		PageSize:  os.Getpagesize(),
		Budget:    p.cfg.Budget,
		Owners:    p.owners,
		IdleAfter: idleAfter,
		IdleEvery: idleEvery,
	})
	if p.scannerErr != nil {
		p.cfg.Log.Warn("no map of memory pages", "err", p.scannerErr)
	}
}

// Close closes the files.
func (p *Pages) Close() error {
	var errs []error
	if p.counters != nil {
		errs = append(errs, p.counters.Close())
	}
	if p.scanner != nil {
		errs = append(errs, p.scanner.Close())
	}
	return errors.Join(errs...)
}

// Run keeps the numbers and the map fresh until ctx ends.
func (p *Pages) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if p.scanner != nil {
		wg.Go(func() { _ = p.scanner.Run(ctx) }) // its errors are in its status
	}
	if p.counters == nil {
		p.cfg.Report(0, p.countersErr)
		return
	}
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for refreshed := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.read()
		if time.Since(refreshed) > refreshEvery {
			refreshed = time.Now()
			if err := p.counters.Refresh(); err != nil {
				p.cfg.Log.Warn("find memory", "err", err)
			}
		}
	}
}

// read reads the counters and publishes them.
func (p *Pages) read() {
	began := time.Now()
	t, err := p.counters.Read()
	p.cfg.Report(time.Since(began), errors.Join(err, p.scanFailed()))
	if err != nil {
		return
	}
	if p.scanner != nil {
		p.scanner.Layout(t)
	}
	p.view.Lock()
	defer p.view.Unlock()
	p.current.Store(p.viewMemory(t, began))
}

// scanFailed is why there is no scan of single pages, though there should be.
func (p *Pages) scanFailed() error {
	switch {
	case p.off:
		return nil
	case p.scanner == nil:
		return p.scannerErr
	}
	if reason := p.scanner.Status().Reason; reason != "" {
		return errors.New(reason)
	}
	return nil
}

// Last returns the numbers of the last second, nil before the first.
func (p *Pages) Last() *Memory { return p.current.Load() }

// Fragmentation is that of the host's memory, NaN while it is not known.
func (p *Pages) Fragmentation() float64 {
	if m := p.Last(); m != nil && m.FragmentationRatio != nil {
		return *m.FragmentationRatio
	}
	return math.NaN()
}

// Look is Last for somebody who looks at the map, which is kept fresh for that.
func (p *Pages) Look() (Memory, error) {
	if p.scanner != nil {
		p.scanner.Look()
	}
	if m := p.Last(); m != nil {
		return *m, nil
	}
	if p.countersErr != nil {
		return Memory{}, unsupported(p.countersErr)
	}
	return Memory{}, notYet("the first numbers are being read")
}

func unsupported(err error) error {
	hint := "the agent needs to be root, and the kernel CONFIG_PROC_PAGE_MONITOR"
	return fault.Refuse(fault.ErrUnsupported, "unsupported", hint, "this host has no page-level numbers: %v", err)
}

func notYet(what string) error {
	return fault.Refuse(fault.ErrNotYet, "not_yet", "try again in a moment", "%s", what)
}

// Check tells for cloudflash host check whether all is well, and what to do if not.
func (p *Pages) Check() (ok bool, detail, fix string) {
	switch {
	case p.off:
		return true, p.scannerErr.Error(), ""
	case p.countersErr != nil:
		return false, p.countersErr.Error(), "run the agent as root"
	case p.scannerErr != nil:
		return false, p.scannerErr.Error(), "a kernel with CONFIG_PROC_PAGE_MONITOR, or serve --page-scan off"
	}
	st := p.scanner.Status()
	if st.Reason != "" {
		return false, st.Reason, "cloudflash mem scan tries again"
	}
	return true, fmt.Sprintf("%d pages, budget %.1f %% of a core", st.Pages, 100*p.cfg.Budget), ""
}

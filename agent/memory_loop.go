package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/pagemap"
)

// How the scan of pages rests when nobody looks at the map.
const (
	memoryIdleAfter = 10 * time.Minute
	memoryIdleEvery = 5 * time.Minute
	memoryRefresh   = time.Minute // how often memory may turn out to have been plugged in
)

// memory is the agent's hold on the page-level files.
type memory struct {
	counters *pagemap.Counters // nil: countersErr
	scanner  *pagemap.Scanner  // nil: scannerErr
	off      bool

	countersErr, scannerErr error
	current                 atomic.Pointer[Memory]

	view   sync.Mutex // guards mapped, and the order in which current is replaced
	mapped time.Time  // when Memory.Map was made

	looking chan struct{} // holds one while somebody looks at the mappings of a process
}

// openMemory opens the files. A kernel without them is no reason not to run.
func (a *Agent) openMemory() {
	m := &a.memory
	m.looking = make(chan struct{}, 1)
	fs := pagemap.FS("/")
	m.off = a.cfg.PageScan < 0
	if m.counters, m.countersErr = fs.OpenCounters(os.Getpagesize()); m.countersErr != nil {
		a.log.Warn("no numbers of memory pages", "err", m.countersErr)
	}
	if m.off {
		m.scannerErr = errors.New("switched off: serve --page-scan off")
		return
	}
	m.scanner, m.scannerErr = fs.NewScanner(pagemap.Options{PageSize: os.Getpagesize(), Budget: a.cfg.PageScan,
		Owners: a.pageOwners, IdleAfter: memoryIdleAfter, IdleEvery: memoryIdleEvery})
	if m.scannerErr != nil {
		a.log.Warn("no map of memory pages", "err", m.scannerErr)
	}
}

func (m *memory) close() error {
	var errs []error
	if m.counters != nil {
		errs = append(errs, m.counters.Close())
	}
	if m.scanner != nil {
		errs = append(errs, m.scanner.Close())
	}
	return errors.Join(errs...)
}

// runMemory keeps Snapshot.Memory and the map fresh until ctx ends.
func (a *Agent) runMemory(ctx context.Context) {
	m := &a.memory
	var wg sync.WaitGroup
	defer wg.Wait()
	if m.counters != nil {
		a.readMemory()
	}
	if m.scanner != nil {
		wg.Go(func() { _ = m.scanner.Run(ctx) }) // its errors are in its status
	}
	if m.counters == nil {
		a.meter.Report("pagemap", 0, m.countersErr)
		return
	}
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for refreshed := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.readMemory()
		if time.Since(refreshed) > memoryRefresh {
			refreshed = time.Now()
			if err := m.counters.Refresh(); err != nil {
				a.log.Warn("find memory", "err", err)
			}
		}
	}
}

// readMemory reads the counters and publishes them.
func (a *Agent) readMemory() {
	m := &a.memory
	began := time.Now()
	t, err := m.counters.Read()
	a.meter.Report("pagemap", time.Since(began), errors.Join(err, m.scanFailed()))
	if err != nil {
		return
	}
	if m.scanner != nil {
		m.scanner.Layout(t)
	}
	m.view.Lock()
	defer m.view.Unlock()
	m.current.Store(a.viewMemory(t, began))
}

// scanFailed is why there is no scan of single pages, though there should be.
func (m *memory) scanFailed() error {
	switch {
	case m.off:
		return nil
	case m.scanner == nil:
		return m.scannerErr
	}
	if reason := m.scanner.Status().Reason; reason != "" {
		return errors.New(reason)
	}
	return nil
}

// Memory returns the numbers of the last second. It counts as looking at the map.
func (a *Agent) Memory() (Memory, error) {
	if a.memory.scanner != nil {
		a.memory.scanner.Look()
	}
	if m := a.memory.current.Load(); m != nil {
		return *m, nil
	}
	if err := a.memory.countersErr; err != nil {
		return Memory{}, unsupported(err)
	}
	return Memory{}, notYet("the first numbers are being read")
}

// memoryScan is the kind of operation that a full pass is.
const memoryScan = "memory.scan"

// ScanMemory starts a full pass over all pages, at the speed of one core.
func (a *Agent) ScanMemory() (Operation, error) {
	m := &a.memory
	if m.scanner == nil {
		return Operation{}, unsupported(m.scannerErr)
	}
	a.held.Lock()
	defer a.held.Unlock()
	op := newOperation(memoryScan, "memory")
	if err := m.scanner.Full(op.ID, func(err error) { a.endScan(op, err) }); err != nil {
		return Operation{}, fault.Refuse(fault.ErrConflict, "scan_running", "wait for it, or cancel it", "a full pass is under way")
	}
	a.scans[op.ID] = op
	a.changed()
	return op, nil
}

// endScan notes how a full pass ended.
func (a *Agent) endScan(op Operation, err error) {
	now := time.Now().UTC()
	op.State, op.FinishedAt = OperationSucceeded, &now
	if err != nil {
		op.State, op.Error = OperationFailed, err.Error()
	}
	a.readScan()
	a.held.Lock()
	defer a.held.Unlock()
	a.scans[op.ID] = op
	a.forgetScans()
	a.changed()
}

// keepScans is how many full passes are remembered; they are not stored.
const keepScans = 20

// forgetScans drops the oldest of them. The caller has a.held.
func (a *Agent) forgetScans() {
	var scans []Operation
	for _, op := range a.scans {
		if op.State != OperationRunning {
			scans = append(scans, op)
		}
	}
	slices.SortFunc(scans, func(x, y Operation) int { return x.CreatedAt.Compare(y.CreatedAt) })
	for _, op := range scans[:max(len(scans)-keepScans, 0)] {
		delete(a.scans, op.ID)
	}
}

// CancelMemoryScan ends the full pass that is under way.
func (a *Agent) CancelMemoryScan() error {
	if m := &a.memory; m.scanner == nil || !m.scanner.Cancel() {
		return fault.Refuse(fault.ErrConflict, "no_scan", "", "no full pass is under way")
	}
	return nil
}

// withProgress puts into an operation how far it is, where that is known.
func (a *Agent) withProgress(op Operation) Operation {
	if op.Kind != memoryScan || op.State != OperationRunning || a.memory.scanner == nil {
		return op
	}
	if st := a.memory.scanner.Status(); st.FullID == op.ID {
		op.Progress = &st.FullProgress
	}
	return op
}

func unsupported(err error) error {
	hint := "the agent needs to be root, and the kernel CONFIG_PROC_PAGE_MONITOR"
	return fault.Refuse(fault.ErrUnsupported, "unsupported", hint, "this host has no page-level numbers: %v", err)
}

func notYet(what string) error {
	return fault.Refuse(fault.ErrNotYet, "not_yet", "try again in a moment", "%s", what)
}

// memoryCheck is the line of `cloudflash host check`.
func (a *Agent) memoryCheck() Check {
	m := &a.memory
	switch {
	case m.off:
		return Check{Name: "pages", OK: true, Detail: m.scannerErr.Error()}
	case m.countersErr != nil:
		return Check{Name: "pages", Detail: m.countersErr.Error(), Fix: "run the agent as root"}
	case m.scannerErr != nil:
		return Check{Name: "pages", Detail: m.scannerErr.Error(), Fix: "a kernel with CONFIG_PROC_PAGE_MONITOR, or serve --page-scan off"}
	}
	st := m.scanner.Status()
	if st.Reason != "" {
		return Check{Name: "pages", Detail: st.Reason, Fix: "cloudflash mem scan tries again"}
	}
	return Check{Name: "pages", OK: true, Detail: fmt.Sprintf("%d pages, budget %.1f %% of a core", st.Pages, 100*a.cfg.PageScan)}
}

package pagemap

import (
	"context"
	"errors"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// passStats is what one whole pass finds out.
type passStats struct {
	classes [classes]uint64
	owners  map[uint16]*ownerStats
}

// Run scans until ctx ends. An error of the kernel's ends the scanning, not Run:
// Status tells it, and the next full pass tries again.
func (s *Scanner) Run(ctx context.Context) error {
	for {
		full, wait := s.next()
		switch {
		case full != nil:
			s.runFull(ctx, full)
		case wait == 0:
			if err := s.pass(ctx, false, s.interrupted); err != nil && ctx.Err() == nil && !errors.Is(err, errInterrupted) {
				s.fail(err)
			}
		default:
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-s.wake:
			case <-timer.C:
			}
			timer.Stop()
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// far is how long nothing needs to be done when nobody asks.
const far = time.Hour

// next decides what to do: a full pass, a rolling one (wait 0), or nothing for a
// while.
func (s *Scanner) next() (full *fullPass, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch now := time.Now(); {
	case s.full != nil:
		return s.full, 0
	case s.opts.Budget <= 0 || s.state.failure != nil:
		return nil, far
	case s.state.passes == 0 || now.Sub(s.looked) <= s.opts.IdleAfter:
		// However small the host: a map that is a second old is fresh.
		return nil, max(time.Second-now.Sub(s.state.finished), 0)
	default:
		return nil, max(s.opts.IdleEvery-now.Sub(s.state.started), 0)
	}
}

func (s *Scanner) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.failure = err
	s.state.scanning = false
}

func (s *Scanner) runFull(ctx context.Context, f *fullPass) {
	inner, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(f.ctx, cancel)
	err := s.pass(inner, true, func() bool { return false })
	stop()
	cancel()
	if f.ctx.Err() != nil && err != nil {
		err = ErrCancelled
	}
	f.cancel()
	s.mu.Lock()
	s.full = nil
	if err != nil && !errors.Is(err, ErrCancelled) && ctx.Err() == nil {
		s.state.failure = err
	}
	s.mu.Unlock()
	f.done(err)
}

// errInterrupted ends a rolling pass in favour of a full one.
var errInterrupted = errors.New("interrupted")

func (s *Scanner) interrupted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full != nil
}

// Under a budget so many page frames are scanned at a time that a burst takes no
// longer than this.
const (
	rollingPages = WindowPages / 4
	burst        = 4 * time.Millisecond
)

// nextSize is how many frames to scan next, after so many took that CPU time.
func nextSize(size, block uint64, took time.Duration) uint64 {
	switch {
	case took > burst:
		return max(size/2, block)
	case took < burst/4:
		return min(size*2, rollingPages)
	}
	return size
}

// pass scans everything once. Unless full, it keeps to the budget.
func (s *Scanner) pass(ctx context.Context, full bool, interrupted func() bool) error {
	s.owners.refresh()
	d := s.begin()
	defer s.end()
	size := max(s.size, s.m.blockPages())
	if full {
		size = WindowPages
	}
	for i := 0; i < len(s.m.segments); i++ {
		d.gap()
		seg := s.m.segments[i]
		for first := seg.first << s.m.order; first < seg.end<<s.m.order; {
			if err := ctx.Err(); err != nil {
				return err
			}
			if interrupted() {
				return errInterrupted
			}
			began := time.Now()
			count := min(size, seg.end<<s.m.order-first)
			cpu, err := s.scan(d, first, count)
			if err != nil {
				return err
			}
			first += count
			if !full {
				size = nextSize(size, s.m.blockPages(), cpu)
				s.size = size
				s.rest(ctx, time.Duration(float64(cpu)/s.opts.Budget)-time.Since(began))
			}
		}
	}
	d.gap()
	s.finish(d)
	return nil
}

// rest sleeps until the budget allows more, or somebody wants a full pass.
func (s *Scanner) rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-s.wake:
	}
}

func (s *Scanner) begin() *digester {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.scanning, s.state.started, s.state.pages, s.state.cpu = true, time.Now(), 0, 0
	return newDigester(s.owners, s.uninit)
}

func (s *Scanner) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.scanning = false
}

func (s *Scanner) finish(d *digester) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.finished = time.Now()
	s.state.passes++
	s.state.last = &passStats{classes: d.classes, owners: d.stats}
	s.m.mu.RLock()
	defer s.m.mu.RUnlock()
	s.owners.forget(s.m.owned)
}

// scan scans count page frames, which are whole blocks, and returns the CPU time
// it took.
func (s *Scanner) scan(d *digester, first, count uint64) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadCPU()
	found, err := s.work.read(s.src, s.ramNow(), d, s.m.blockPages(), first, count)
	if err != nil {
		return 0, err
	}
	s.m.mu.Lock()
	s.m.store(first>>s.m.order, found, time.Now())
	s.m.mu.Unlock()
	cpu := threadCPU() - before
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.pages += count
	s.state.cpu += uint64(cpu)
	s.state.cpuTotal += cpu
	return cpu, nil
}

func (s *Scanner) ramNow() []Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ram
}

// threadCPU is the CPU time of this thread.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

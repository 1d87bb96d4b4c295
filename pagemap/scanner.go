package pagemap

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Options say how a Scanner works.
type Options struct {
	PageSize int
	// Budget is the CPU time a rolling scan may take, in cores: 0.01 is 1 % of one.
	// 0 scans only when asked to.
	Budget float64
	// Owners tells which cgroup, by the inode of its directory, is whose.
	Owners func() map[uint64]string
	// IdleAfter is how long after the last Look the scan rests; then it makes one
	// pass every IdleEvery.
	IdleAfter, IdleEvery time.Duration
}

// A Scanner keeps the map of all page frames. Run scans; the other methods may be
// called by any goroutine.
type Scanner struct {
	opts   Options
	src    source
	fs     FS
	owners *registry

	work   window     // of Run, as is size
	size   uint64     // of the next window of a rolling scan
	exact  sync.Mutex // guards window
	window window

	mu     sync.Mutex // guards what follows
	m      *pageMap
	ram    []Range
	node   func(uint64) int
	uninit []Range
	state  progress
	looked time.Time
	full   *fullPass // asked for or under way
	wake   chan struct{}
}

// fullPass is a pass over everything at full speed, that somebody asked for.
type fullPass struct {
	id     string
	cancel context.CancelFunc
	ctx    context.Context
	done   func(error)
}

// progress is what Status is made of.
type progress struct {
	scanning          bool
	pages, cpu        uint64 // scanned in this pass; CPU nanoseconds of it
	started, finished time.Time
	cpuTotal          time.Duration
	passes            uint64
	failure           error
	last              *passStats // of the last whole pass
}

// ErrCancelled is what a full pass ends with that was cancelled.
var ErrCancelled = errors.New("cancelled")

// ErrBusy says that a full pass is under way.
var ErrBusy = errors.New("a full pass is under way")

// ErrEmpty says that nothing has been scanned yet.
var ErrEmpty = errors.New("nothing has been scanned yet")

// NewScanner opens the files of page frames and tries them. It fails with
// ErrUnsupported where there are none.
func (fs FS) NewScanner(o Options) (*Scanner, error) {
	ram, err := fs.RAM(o.PageSize)
	if err != nil {
		return nil, err
	}
	src, err := fs.openPages(ram[0].First)
	if err != nil {
		return nil, err
	}
	return newScanner(fs, src, ram, fs.HugeOrder(o.PageSize), o), nil
}

func newScanner(fs FS, src source, ram []Range, order int, o Options) *Scanner {
	return &Scanner{opts: o, fs: fs, src: src, owners: newRegistry(o.Owners), m: newMap(order, ram, time.Now()), ram: ram,
		node: func(uint64) int { return 0 }, looked: time.Now(), wake: make(chan struct{}, 1)}
}

// Close closes the files. Nothing may be running.
func (s *Scanner) Close() error { return s.src.Close() }

// Layout tells what only the kernel's counters know: which node a frame belongs
// to, and whether there is memory that was never initialised.
func (s *Scanner) Layout(t Totals) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.uninit = t.NodeOf, t.untouched()
}

// Look says that somebody looks at the map, which keeps the scan rolling.
func (s *Scanner) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := time.Since(s.looked) > s.opts.IdleAfter
	s.looked = time.Now()
	if idle {
		s.poke()
	}
}

func (s *Scanner) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Full asks for a pass over everything at full speed. done is called once it has
// ended, by the goroutine of Run.
func (s *Scanner) Full(id string, done func(error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full != nil {
		return ErrBusy
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.full = &fullPass{id: id, ctx: ctx, cancel: cancel, done: done}
	s.state.failure = nil
	s.poke()
	return nil
}

// Cancel ends the full pass that is under way, and tells whether there is one.
func (s *Scanner) Cancel() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full == nil {
		return false
	}
	s.full.cancel()
	return true
}

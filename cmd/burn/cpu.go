package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pause    = 5 * time.Millisecond  // of a thread that is ahead of its demand, at least
	longest  = 20 * time.Millisecond // and at most: a trace may want more by then
	forgiven = 20 * time.Millisecond // how far behind a thread may be where nothing is carried over
)

// processor meets a demand of CPU time with threads of equal shares.
type processor struct {
	demand demand
	began  time.Time
	used   atomic.Int64 // CPU time of all threads, in ns
	peak   atomic.Int64 // the largest backlog of one thread, in ns
}

// run spins until stop is closed.
func (p *processor) run(stop <-chan struct{}) {
	var wg sync.WaitGroup
	for range p.demand.threads() {
		wg.Go(func() { p.thread(stop) })
	}
	<-stop
	wg.Wait()
}

func (p *processor) thread(stop <-chan struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var used, lost time.Duration
	first := threadTime()
	for {
		select {
		case <-stop:
			return
		default:
		}
		before := used
		used = threadTime() - first
		p.used.Add(int64(used - before))
		behind := p.share() - lost - used
		if p.demand.carry {
			p.note(behind)
		} else if behind > forgiven {
			lost += behind - forgiven
		}
		if behind > 0 {
			spin(time.Millisecond)
			continue
		}
		select {
		case <-stop:
			return
		case <-time.After(p.ahead(-behind)):
		}
	}
}

// ahead is how long a thread may rest that has done so much more than was wanted.
// Waking up for nothing costs, where little is wanted more than the work.
func (p *processor) ahead(by time.Duration) time.Duration {
	rate := p.demand.now(time.Since(p.began)) / float64(p.demand.threads())
	if rate == 0 {
		return longest
	}
	return min(max(time.Duration(float64(by)/rate), pause), longest)
}

// share is what one thread should have used by now.
func (p *processor) share() time.Duration {
	share := p.demand.until(time.Since(p.began)) / float64(p.demand.threads())
	return time.Duration(share * float64(time.Second))
}

func (p *processor) note(behind time.Duration) {
	for {
		old := p.peak.Load()
		if int64(behind) <= old || p.peak.CompareAndSwap(old, int64(behind)) {
			return
		}
	}
}

func spin(d time.Duration) {
	for until := time.Now().Add(d); time.Now().Before(until); {
	}
}

// threadTime is the CPU time of this thread, which must be locked to its
// goroutine (clock_gettime(2)).
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

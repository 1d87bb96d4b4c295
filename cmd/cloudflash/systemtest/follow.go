package systemtest

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloudflash/agent"
	"golang.org/x/sys/unix"
)

// Trail is what a control file has held, each value with when it was seen first.
type Trail struct {
	mu   sync.Mutex
	seen []Reading
	stop chan struct{}
	done chan struct{}
}

// Reading is a value of a control file.
type Reading struct {
	At    time.Time
	Value float64
}

// Follow reads a limit of a VM every five milliseconds, until the test ends or the VM is gone.
func (a *Agent) Follow(v agent.VM, file string) *Trail {
	a.T.Helper()
	return a.FollowEvery(v, file, 5*time.Millisecond)
}

// FollowEvery is Follow with a pause of its own.
func (a *Agent) FollowEvery(v agent.VM, file string, pause time.Duration) *Trail {
	a.T.Helper()
	path := a.Slice(v, file)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		a.T.Fatalf("open %s: %v", path, err)
	}
	first, err := readLimit(fd)
	if err != nil {
		a.T.Fatalf("read %s: %v", path, err)
	}

	tr := &Trail{seen: []Reading{{time.Now(), first}}, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(tr.done)
		defer unix.Close(fd)
		for {
			select {
			case <-tr.stop:
				return
			case <-time.After(pause):
			}
			v, err := readLimit(fd)
			if err != nil {
				return // the VM is gone
			}
			tr.note(v)
		}
	}()
	a.T.Cleanup(tr.end)
	return tr
}

func (tr *Trail) end() {
	select {
	case <-tr.done:
	case tr.stop <- struct{}{}:
		<-tr.done
	}
}

func (tr *Trail) note(v float64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if v != tr.seen[len(tr.seen)-1].Value {
		tr.seen = append(tr.seen, Reading{time.Now(), v})
	}
}

// readLimit reads a limit: a number, "max", or quota and period.
func readLimit(fd int) (float64, error) {
	var b [64]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return 0, err
	}
	first, second, two := strings.Cut(strings.TrimSpace(string(b[:n])), " ")
	if first == "max" {
		return math.Inf(1), nil
	}
	v, err := strconv.ParseFloat(first, 64)
	if err == nil && two {
		var period float64
		period, err = strconv.ParseFloat(second, 64)
		v /= period
	}
	return v, err
}

// All is what was seen up to now.
func (tr *Trail) All() []Reading {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.seen)
}

// Now is the last value.
func (tr *Trail) Now() float64 { all := tr.All(); return all[len(all)-1].Value }

// When is when a value was first there that is as wanted.
func (tr *Trail) When(after time.Time, wanted func(float64) bool) (time.Time, bool) {
	for _, r := range tr.All() {
		if r.At.After(after) && wanted(r.Value) {
			return r.At, true
		}
	}
	return time.Time{}, false
}

// Reversals is how often growing and shrinking alternate from then on.
func (tr *Trail) Reversals(from time.Time) (n int) {
	all, last := tr.All(), 0.0
	for i := 1; i < len(all); i++ {
		if all[i].At.Before(from) {
			continue
		}
		d := all[i].Value - all[i-1].Value
		if d*last < 0 {
			n++
		}
		last = d
	}
	return n
}

func (tr *Trail) String() string {
	var b strings.Builder
	all := tr.All()
	for _, r := range all {
		fmt.Fprintf(&b, " %.1fs:%.4g", r.At.Sub(all[0].At).Seconds(), r.Value)
	}
	return strings.TrimSpace(b.String())
}

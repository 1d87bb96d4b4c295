package stream

import (
	"cmp"
	"slices"
	"time"

	"cloudflash/agent"
)

// tail reads what is told one by one, and keeps the last of it for newcomers.
type tail[T any] struct {
	read func(since uint64, limit int) ([]T, error)
	seq  func(T) uint64
	// open tells of what may still change. It is read again, and told again when it
	// has changed so far that it is not open any more.
	open   func(v T, now time.Time) bool
	last   uint64 // seq of the newest that was read
	recent []T
}

// next returns what is new.
func (t *tail[T]) next(now time.Time) []T {
	was, since := map[uint64]bool{}, t.last
	for i := range t.recent {
		if t.open != nil && t.open(t.recent[i], now) {
			was[t.seq(t.recent[i])] = true
			since = min(since, t.seq(t.recent[i])-1)
		}
	}
	all, err := t.read(since, 1000)
	if err != nil { // more than is kept has happened: go on with what is there
		if all, err = t.read(0, 1000); err != nil {
			return nil
		}
	}
	fresh := []T{}
	for _, v := range all {
		if seq := t.seq(v); seq > t.last || was[seq] && !t.open(v, now) {
			fresh = append(fresh, v)
		}
	}
	t.keep(fresh)
	return fresh
}

func (t *tail[T]) keep(fresh []T) {
	for _, v := range fresh {
		seq := t.seq(v)
		i, known := slices.BinarySearchFunc(t.recent, seq, func(x T, seq uint64) int { return cmp.Compare(t.seq(x), seq) })
		switch {
		case known:
			t.recent[i] = v
		case seq > t.last:
			t.recent, t.last = append(t.recent, v), seq
		}
	}
	t.recent = append([]T{}, t.recent[max(0, len(t.recent)-firstEvents):]...)
}

// effectWait is for how long a decision without effect is looked at again: the
// effect is that of the second after it.
const effectWait = 10 * time.Second

func awaitsEffect(d agent.Decision, now time.Time) bool {
	age := now.Sub(d.At) // below 0 where the clock was set back since
	return d.Result == agent.DecisionApplied && d.Effect == nil && age >= 0 && age < effectWait
}

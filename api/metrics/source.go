package metrics

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// sourceWait is how long a scrape waits for a source.
const sourceWait = 2 * time.Second

// source is where metrics come from that are not of the snapshot.
type source struct {
	name   string
	gather func() ([]*dto.MetricFamily, error)
	busy   atomic.Bool
}

var errStillBusy = errors.New("an earlier scrape still waits for it")

// ask gathers, in time. One that never returns costs one goroutine and its own
// metrics.
func (s *source) ask() ([]*dto.MetricFamily, time.Duration, error) {
	if !s.busy.CompareAndSwap(false, true) {
		return nil, 0, errStillBusy
	}
	type found struct {
		families []*dto.MetricFamily
		err      error
	}
	began, done := time.Now(), make(chan found, 1)
	go func() {
		defer s.busy.Store(false)
		defer func() {
			if v := recover(); v != nil {
				done <- found{err: fmt.Errorf("panic: %v", v)}
			}
		}()
		families, err := s.gather()
		done <- found{families, err}
	}()
	timer := time.NewTimer(sourceWait)
	defer timer.Stop()
	select {
	case f := <-done:
		return f.families, time.Since(began), f.err
	case <-timer.C:
		return nil, time.Since(began), fmt.Errorf("no answer within %s", sourceWait)
	}
}

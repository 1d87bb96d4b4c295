package api

import (
	"context"
	"net/http"
	"time"

	"cloudflash/api/problem"
)

// duration reads a query parameter such as 30s.
func duration(name, value string, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > most {
		p := problem.New(http.StatusUnprocessableEntity, "invalid_duration", name+" must be a duration of 0s to "+most.String()+", such as 30s", "")
		p.Errors = []problem.Field{{Pointer: "?" + name, Detail: "must be a duration such as 30s", Min: "0s", Max: most.String()}}
		return 0, p
	}
	return d, nil
}

// zeroes refuses an explicit 0, which the agent would take for "the default".
func (r resources) zeroes() error {
	var fields []problem.Field
	zero := func(pointer string, is bool) {
		if is {
			fields = append(fields, problem.Field{Pointer: pointer, Detail: "must be more than 0; leave it out for the default"})
		}
	}
	zero("/cpus", r.CPUs != nil && *r.CPUs == 0)
	zero("/memory_bytes", r.MemoryBytes != nil && *r.MemoryBytes == 0)
	zero("/storage_bytes", r.StorageBytes != nil && *r.StorageBytes == 0)
	zero("/bandwidth_bps", r.BandwidthBPS != nil && *r.BandwidthBPS == 0)
	zero("/pids", r.PIDs != nil && *r.PIDs == 0)
	if fields == nil {
		return nil
	}
	p := problem.New(http.StatusUnprocessableEntity, "out_of_range", fields[0].Pointer[1:]+" "+fields[0].Detail, "")
	p.Errors = fields
	return p
}

// maxWait bounds ?wait: proxies and clients give up soon after.
const maxWait = 10 * time.Minute

// until polls done at every change of the agent, until it says yes, the wait is
// over or the client has gone.
func (s *server) until(ctx context.Context, wait time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		changed := s.agent.Updates() // before looking: no change goes unseen
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

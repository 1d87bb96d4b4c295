package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
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
func (r Resources) zeroes() error {
	return refuseZeroes(map[string]bool{"/cpus": isZero(r.CPUs), "/memory_bytes": isZero(r.MemoryBytes),
		"/storage_bytes": isZero(r.StorageBytes), "/bandwidth_bps": isZero(r.BandwidthBPS), "/pids": isZero(r.PIDs)})
}

func isZero[T int | int64 | float64](v *T) bool { return v != nil && *v == 0 }

func refuseZeroes(zero map[string]bool) error {
	var fields []problem.Field
	for _, pointer := range slices.Sorted(maps.Keys(zero)) {
		if zero[pointer] {
			fields = append(fields, problem.Field{Pointer: pointer, Detail: "must be more than 0; leave it out for the default"})
		}
	}
	if fields == nil {
		return nil
	}
	return refuseFields("out_of_range", fields)
}

// maxWait bounds ?wait: proxies and clients give up soon after.
const maxWait = 10 * time.Minute

// Waiting is a request that may wait for an end.
type Waiting struct {
	Wait string `query:"wait" default:"0s" doc:"Answer when it has ended, at latest after this long, such as 30s"`
}

// until polls done at every change that watch tells of, until it says yes, the wait is
// over or the client has gone.
func until(ctx context.Context, wait time.Duration, watch func() <-chan struct{}, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		changed := watch() // before looking: no change goes unseen
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

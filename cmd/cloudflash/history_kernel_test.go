package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"
)

// history is what the API answers with.
type history struct {
	StepSeconds int64   `json:"step_seconds"`
	T           []int64 `json:"t"`
	Series      map[string]struct {
		Avg []*float64 `json:"avg"`
	} `json:"series"`
}

// at is the value of a series at a second, nil for a gap.
func (h history) at(name string, sec int64) *float64 {
	for i, t := range h.T {
		if t == sec {
			return h.Series[name].Avg[i]
		}
	}
	return nil
}

// known are the seconds in from..to of which a series has a value.
func (h history) known(name string, from, to int64) (all []int64) {
	for i, t := range h.T {
		if t >= from && t <= to && h.Series[name].Avg[i] != nil {
			all = append(all, t)
		}
	}
	return all
}

func historyOf(a *systemtest.Agent, vm string) history {
	a.T.Helper()
	const query = "?range=5m&fields=cpus,memory_bytes,cpus_limit"
	return systemtest.Must[history](a, "GET", "/api/v1/vms/"+vm+"/metrics"+query, nil)
}

// An agent that is killed loses what it had not saved, and no more; while there is none, nobody looks, and that stays
// a gap.
func TestSystemHistorySurvivesKill(t *testing.T) {
	a := systemtest.Start(t, "--history-every", "1s")
	a.Create("past", 1, 64, agent.PolicyLayer{})
	deleted := a.Create("gone", 1, 64, agent.PolicyLayer{})
	first := time.Now().Unix() + 2
	saved := func() int64 {
		st, err := os.Stat(filepath.Join(a.StateDir, "history"))
		if err != nil {
			return 0 // not yet
		}
		return st.ModTime().Unix()
	}
	systemtest.Until(t, "some seconds are known and saved", func() bool {
		h, s := historyOf(a, "past"), saved()
		return len(h.known("memory_bytes", first, s-3)) >= 3
	})
	before := historyOf(a, "past")
	a.Kill()
	killed := time.Now().Unix()
	sure := before.known("memory_bytes", first, saved()-3) // a look may have been under way when it was written
	systemtest.Until(t, "nobody has looked for some seconds", func() bool { return time.Now().Unix() > killed+3 })
	a.Start()
	back := time.Now().Unix()
	var after history
	systemtest.Until(t, "some seconds are known after the start", func() bool {
		after = historyOf(a, "past")
		return len(after.known("memory_bytes", back+1, back+600)) >= 3
	})

	if all := after.known("memory_bytes", killed+1, killed+3); len(all) != 0 {
		t.Errorf("%d seconds are known in which there was no agent", len(all))
	}
	for _, sec := range sure {
		old, v := before.at("memory_bytes", sec), after.at("memory_bytes", sec)
		if v == nil || *v != *old {
			t.Errorf("second %d was %v, is %v", sec, old, v)
		}
		if limit := after.at("cpus_limit", sec); limit == nil || *limit != 1 {
			t.Errorf("cpus_limit %v", limit)
		}
	}
	kept := after.known("memory_bytes", first, killed)
	t.Logf("%d seconds were known and %d saved for sure: %d are kept", len(before.known("memory_bytes", first, killed)), len(sure), len(kept))

	a.MustRemove("gone")
	_, err := systemtest.Call[history](a, "GET", "/api/v1/vms/"+deleted.ID+"/metrics", nil)
	if r := (systemtest.Refused{}); !errors.As(err, &r) || r.Status != http.StatusNotFound {
		t.Errorf("a deleted VM has a history: %v", err)
	}
}

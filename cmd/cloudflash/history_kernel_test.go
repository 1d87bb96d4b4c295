package main

import (
	"errors"
	"net/http"
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

// known counts the values of a series in from..to.
func (h history) known(name string, from, to int64) (n int) {
	for i, t := range h.T {
		if t >= from && t <= to && h.Series[name].Avg[i] != nil {
			n++
		}
	}
	return n
}

func readHistory(d *systemtest.Agent, vm string) history {
	d.T.Helper()
	return systemtest.Must[history](d, "GET", "/api/v1/vms/"+vm+"/metrics?range=5m&fields=cpus,memory_bytes,cpus_limit", nil)
}

// An agent that is killed loses at most a minute of the history; while there is
// none, nobody looks, and that stays a gap.
func TestSystemHistorySurvivesKill(t *testing.T) {
	d := systemtest.New(t)
	d.Start()
	d.Create("past", 1, 128, agent.PolicyLayer{})
	gone := d.Create("gone", 1, 128, agent.PolicyLayer{})
	first := time.Now().Unix() + 2
	time.Sleep(70 * time.Second) // so long that it must have been saved
	before := readHistory(d, "past")
	killed := time.Now().Unix()
	if n := before.known("memory_bytes", first, killed-2); n < 60 {
		t.Fatalf("%d of 68 seconds are known before the kill", n)
	}
	d.Kill()
	time.Sleep(6 * time.Second)
	d.Start()
	back := time.Now().Unix()
	time.Sleep(5 * time.Second)
	after := readHistory(d, "past")
	if n := after.known("memory_bytes", killed+1, killed+5); n != 0 {
		t.Errorf("%d seconds are known in which there was no agent", n)
	}
	if n := after.known("memory_bytes", back+1, back+4); n < 3 {
		t.Errorf("%d seconds are known after the start", n)
	}
	kept := int64(0)
	for sec := first; sec < killed; sec++ {
		if v := after.at("memory_bytes", sec); v != nil {
			kept = sec
			if old := before.at("memory_bytes", sec); old != nil && *old != *v {
				t.Errorf("second %d was %v, is %v", sec, *old, *v)
			}
		}
	}
	if lost := killed - kept; kept == 0 || lost > 60 {
		t.Errorf("%d seconds lost", killed-kept)
	} else {
		t.Logf("%d seconds lost", lost)
	}
	if limit := after.at("cpus_limit", kept); limit == nil || *limit != 1 {
		t.Errorf("cpus_limit %v", limit)
	}
	forgets(d, gone.ID)
	d.DeleteAll()
}

// forgets deletes a VM and checks that its history goes with it.
func forgets(d *systemtest.Agent, id string) {
	d.T.Helper()
	d.MustRemove(id)
	systemtest.Until(d.T, "a deleted VM has no history", func() bool {
		_, err := systemtest.Call[history](d, "GET", "/api/v1/vms/"+id+"/metrics", nil)
		var r systemtest.Refused
		return errors.As(err, &r) && r.Status == http.StatusNotFound
	})
}

package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"
)

// chaos is an agent that is killed again and again.
type chaos struct{ *systemtest.Agent }

// ledger is what the agent has promised this client.
type ledger struct {
	mu       sync.Mutex
	vms      map[string]agent.VM // acknowledged and not asked to be deleted
	gone     map[string]bool     // deletion acknowledged
	maybe    map[string]bool     // names of requests without an answer
	spec     map[string]float64  // cpus last acknowledged, by VM id; absent when in doubt
	codes    map[string]int      // exit code a cloudlet will have, by id
	cancel   map[string]bool     // cancel asked for
	requests int
	refusals map[int]int
}

func (l *ledger) do(f func()) { l.mu.Lock(); defer l.mu.Unlock(); f() }

func (l *ledger) answered(err error) bool {
	var r systemtest.Refused
	l.do(func() {
		l.requests++
		if errors.As(err, &r) {
			l.refusals[r.Status]++
		}
	})
	return err == nil || errors.As(err, &r)
}

// pick returns a VM of the ledger.
func (l *ledger) pick() (agent.VM, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.vms { // map order is random enough
		return v, true
	}
	return agent.VM{}, false
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.vms)
}

// meddle does one random thing.
func (d *chaos) meddle(l *ledger, n int) {
	switch roll := rand.IntN(10); {
	case roll < 2:
		d.createOne(l, n)
	case roll < 6:
		d.submitOne(l, n)
	case roll < 8:
		d.resizeOne(l)
	case roll < 9:
		d.cancelOne(l)
	default:
		d.deleteOne(l)
	}
}

func (d *chaos) createOne(l *ledger, n int) {
	l.mu.Lock()
	full := len(l.vms) >= 6
	l.mu.Unlock()
	if full {
		return
	}
	name := "vm" + strconv.Itoa(n)
	v, err := systemtest.Call[agent.VM](d.Agent, "POST", "/api/v1/vms", map[string]any{"name": name, "cpus": 1,
		"memory_bytes": 64 << 20, "storage_bytes": 64 << 20})
	l.do(func() {
		if err == nil {
			l.vms[v.ID], l.spec[v.ID] = v, 1
		} else {
			l.maybe[name] = true
		}
	})
	l.answered(err)
}

func (d *chaos) submitOne(l *ledger, n int) {
	v, ok := l.pick()
	if !ok {
		return
	}
	code := rand.IntN(4)
	script := fmt.Sprintf("echo $CLOUDFLASH_CLOUDLET >>/data/starts; sleep %.2f; echo end; exit %d", rand.Float64()*2, code)
	c, err := systemtest.Call[agent.Cloudlet](d.Agent, "POST", "/api/v1/cloudlets", map[string]any{"vm": v.ID,
		"argv": []string{"/bin/sh", "-c", script}, "name": "c" + strconv.Itoa(n)})
	if l.answered(err) && err == nil {
		l.do(func() { l.codes[c.ID] = code })
	}
}

func (d *chaos) resizeOne(l *ledger) {
	v, ok := l.pick()
	if !ok {
		return
	}
	cpus := float64(1+rand.IntN(20)) / 10
	_, err := systemtest.Call[agent.VM](d.Agent, "PATCH", "/api/v1/vms/"+v.ID, map[string]any{"cpus": cpus})
	answered := l.answered(err)
	l.do(func() {
		switch {
		case err == nil:
			l.spec[v.ID] = cpus
		case !answered:
			delete(l.spec, v.ID) // one of two
		}
	})
}

func (d *chaos) cancelOne(l *ledger) {
	var id string
	l.do(func() {
		for id = range l.codes {
			break
		}
	})
	if id == "" {
		return
	}
	l.do(func() { l.cancel[id] = true })
	_, err := systemtest.Call[agent.Cloudlet](d.Agent, "DELETE", "/api/v1/cloudlets/"+id, nil)
	l.answered(err)
}

func (d *chaos) deleteOne(l *ledger) {
	v, ok := l.pick()
	if !ok {
		return
	}
	l.do(func() { delete(l.vms, v.ID); l.maybe[v.Name] = true })
	_, err := systemtest.Call[agent.Operation](d.Agent, "DELETE", "/api/v1/vms/"+v.ID+"?grace=0s", nil)
	if l.answered(err) && err == nil {
		l.do(func() { l.gone[v.ID] = true })
	}
}

// TestSystemChaos kills the agent with SIGKILL at random moments while VMs and
// cloudlets are created, run, resized and deleted, then compares what was
// promised, what the store says and what the kernel has.
//
// It takes 30 to 60 s: the agent starts twenty times.
func TestSystemChaos(t *testing.T) {
	kills := 8
	if s := os.Getenv("CLOUDFLASH_CHAOS_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	d := &chaos{systemtest.New(t)}
	l := &ledger{vms: map[string]agent.VM{}, gone: map[string]bool{}, maybe: map[string]bool{}, spec: map[string]float64{},
		codes: map[string]int{}, cancel: map[string]bool{}, refusals: map[int]int{}}
	mounts := systemtest.Mounts(t)
	n := 0
	began := time.Now()
	for i := range kills {
		d.Spawn()
		if i%3 > 0 { // every third kill meets an agent that is still recovering
			d.Ready()
			d.tidy(l)
			for try := 0; try < 5 && l.count() < 2; try++ { // somewhere to submit to
				n++
				d.createOne(l, n*1000)
			}
		}
		stop := time.Now().Add(time.Duration(rand.Int64N(int64(time.Second))))
		var wg sync.WaitGroup
		for range 3 {
			n++
			first := n * 1000
			wg.Go(func() {
				for i := 0; time.Now().Before(stop); i++ {
					d.meddle(l, first+i)
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		time.Sleep(time.Until(stop))
		d.Kill()
		wg.Wait()
	}
	t.Logf("%d kills in %.0f s, %d requests, refusals by status %v, %d cloudlets acknowledged", kills, time.Since(began).Seconds(), l.requests, l.refusals, len(l.codes))
	if len(l.codes) < kills/10 || l.requests < kills {
		t.Errorf("the test has hardly done anything")
	}
	d.Start()
	d.compare(l)
	d.DeleteAll()
	d.NothingLeft(mounts)
}

// tidy deletes VMs that came to be without the client hearing of it, or there
// would be ever more of them.
func (d *chaos) tidy(l *ledger) {
	for _, v := range systemtest.Must[systemtest.List[agent.VM]](d.Agent, "GET", "/api/v1/vms?limit=1000", nil).Items {
		l.mu.Lock()
		_, wanted := l.vms[v.ID]
		l.mu.Unlock()
		if !wanted && v.State != agent.VMDeleting {
			_, err := systemtest.Call[agent.Operation](d.Agent, "DELETE", "/api/v1/vms/"+v.ID+"?grace=0s", nil)
			l.answered(err)
		}
	}
}

// compare holds the ledger against store and kernel.
func (d *chaos) compare(l *ledger) {
	t := d.T
	vms := d.Settle()
	ids := []string{}
	for _, v := range vms {
		ids = append(ids, v.ID)
		if _, promised := l.vms[v.ID]; !promised && !l.maybe[v.Name] {
			t.Errorf("VM %s (%s) was never asked for", v.Name, v.ID)
		}
		if l.gone[v.ID] {
			t.Errorf("VM %s is back from the dead: %s", v.Name, v.State)
		}
		d.compareLimits(l, v)
	}
	for id, v := range l.vms {
		if !slices.Contains(ids, id) {
			t.Errorf("VM %s was acknowledged and is gone", v.Name)
		}
	}
	slices.Sort(ids)
	for _, dir := range []string{filepath.Join(d.StateDir, "vms"), filepath.Join(d.RunDir, "vms")} {
		if got := systemtest.Names(t, dir); !slices.Equal(got, ids) {
			t.Errorf("%s holds %v, the store %v", dir, got, ids)
		}
	}
	if got := d.Slices(); !slices.Equal(got, ids) {
		t.Errorf("the kernel has slices %v, the store VMs %v", got, ids)
	}
	if got := systemtest.Links(t); !slices.Equal(got, ids) {
		t.Errorf("links of %v, the store has VMs %v", got, ids)
	}
	d.compareCloudlets(l, vms)
}

func (d *chaos) compareLimits(l *ledger, v agent.VM) {
	if v.State != agent.VMRunning {
		d.T.Errorf("VM %s is %s: %s", v.Name, v.State, v.Reason)
	}
	raw, err := os.ReadFile(filepath.Join(d.Parent, "vms", v.ID, "cpu.max"))
	want := fmt.Sprintf("%d 100000\n", int(v.Spec.CPUs*100000+0.5))
	if err != nil || string(raw) != want {
		d.T.Errorf("VM %s: cpu.max is %q (%v), the spec says %q", v.Name, raw, err, want)
	}
	if cpus, sure := l.spec[v.ID]; sure && cpus != v.Spec.CPUs {
		d.T.Errorf("VM %s: %v cpus were acknowledged, it has %v", v.Name, cpus, v.Spec.CPUs)
	}
	if v.Limits.StorageBytes == nil || *v.Limits.StorageBytes != v.Spec.StorageBytes || v.Limits.BandwidthBPS == nil || math.Abs(float64(*v.Limits.BandwidthBPS-v.Spec.BandwidthBPS)) > 16 {
		d.T.Errorf("VM %s: spec %+v, limits %+v", v.Name, v.Spec, v.Limits)
	}
	if scopes := systemtest.Dirs(d.T, filepath.Join(d.Parent, "vms", v.ID)); !slices.Equal(scopes, []string{"init"}) {
		d.T.Errorf("VM %s: nothing runs, yet it has %v", v.Name, scopes)
	}
}

// compareCloudlets checks that every acknowledged cloudlet ran once, to its own end.
func (d *chaos) compareCloudlets(l *ledger, vms []agent.VM) {
	starts := map[string]int{}
	for _, v := range vms {
		b, _ := os.ReadFile(filepath.Join(d.StateDir, "vms", v.ID, "data", "starts"))
		for _, id := range strings.Fields(string(b)) {
			starts[id]++
		}
	}
	states := map[agent.CloudletState]int{}
	for id, code := range l.codes {
		c, err := systemtest.Call[agent.Cloudlet](d.Agent, "GET", "/api/v1/cloudlets/"+id, nil)
		if err != nil {
			d.T.Errorf("acknowledged cloudlet %s: %v", id, err)
			continue
		}
		states[c.State]++
		if starts[id] > 1 {
			d.T.Errorf("cloudlet %s was started %d times", id, starts[id])
		}
		ranToEnd := c.State == agent.CloudletSucceeded || c.State == agent.CloudletFailed
		switch {
		case ranToEnd && (c.ExitCode == nil || *c.ExitCode != code):
			d.T.Errorf("cloudlet %s: %s %s, exit code %v, want %d", id, c.State, c.Reason, c.ExitCode, code)
		case ranToEnd:
		case c.State == agent.CloudletCancelled: // asked for, or its VM was deleted
		default:
			d.T.Errorf("cloudlet %s is %s: %s", id, c.State, c.Reason)
		}
	}
	d.T.Logf("cloudlets by state: %v", states)
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cgroup/cgrouptest"
	"golang.org/x/sys/unix"
)

// daemon is a `cloudflash serve` that can be killed and started again.
type daemon struct {
	t      *testing.T
	parent string
	state  string
	run    string
	log    *os.File
	flags  []string // more options of serve
	cmd    *exec.Cmd
	client *http.Client
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	parent := cgrouptest.Kernel(t)
	if err := os.MkdirAll("/var/lib/cloudflash-test", 0o711); err != nil {
		t.Fatal(err)
	}
	state, err := os.MkdirTemp("/var/lib/cloudflash-test", "chaos")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(filepath.Join(state, "vms"), 0) // the pool
		if err := os.RemoveAll(state); err != nil {
			t.Error(err)
		}
	})
	log, err := os.Create(filepath.Join(t.TempDir(), "serve.log"))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, parent: parent.Dir(), state: state, run: t.TempDir(), log: log,
		flags: []string{"--autoscale", "off", "--idle-after", "0"}} // limits are to stay as they were asked for, and VMs
	d.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.run, "api.sock"))
		}}}
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			if b, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("last of the agent's log:\n%s", b[max(0, len(b)-8000):])
			}
		}
	})
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	d.cmd = exec.Command("cloudflash", append([]string{"serve", "--listen", "", "--socket", filepath.Join(d.run, "api.sock"),
		"--state-dir", d.state, "--run-dir", d.run, "--cgroup-parent", d.parent,
		"--overcommit-cpu", "100", "--overcommit-memory", "10", "--overcommit-storage", "1000"}, d.flags...)...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

// ready waits until the agent answers.
func (d *daemon) ready() {
	d.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		if _, err := call[map[string]any](d, "GET", "/api/v1/host", nil); err == nil {
			return
		} else if time.Now().After(deadline) {
			_ = d.cmd.Process.Signal(syscall.SIGQUIT) // what is it doing?
			time.Sleep(2 * time.Second)
			if b, err := os.ReadFile(d.log.Name()); err == nil {
				_, dump, _ := strings.Cut(string(b), "SIGQUIT")
				d.t.Logf("the agent:\n%s", dump)
			}
			d.t.Fatalf("agent does not answer after two minutes: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// refused is an answer of the agent, as opposed to no answer.
type refused struct {
	status int
	body   string
}

func (r refused) Error() string { return fmt.Sprintf("%d %s", r.status, r.body) }

func call[T any](d *daemon, method, path string, body any) (T, error) {
	var out T
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return out, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://localhost"+path, in)
	if err != nil {
		return out, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return out, err
	}
	if resp.StatusCode >= 400 {
		return out, refused{resp.StatusCode, string(b)}
	}
	return out, json.Unmarshal(b, &out)
}

type list[T any] struct {
	Items []T `json:"items"`
}

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
	var r refused
	l.do(func() {
		l.requests++
		if errors.As(err, &r) {
			l.refusals[r.status]++
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
func (d *daemon) meddle(l *ledger, n int) {
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

func (d *daemon) createOne(l *ledger, n int) {
	l.mu.Lock()
	full := len(l.vms) >= 6
	l.mu.Unlock()
	if full {
		return
	}
	name := "vm" + strconv.Itoa(n)
	v, err := call[agent.VM](d, "POST", "/api/v1/vms", map[string]any{"name": name, "cpus": 1, "memory_bytes": 64 << 20, "storage_bytes": 64 << 20})
	l.do(func() {
		if err == nil {
			l.vms[v.ID], l.spec[v.ID] = v, 1
		} else {
			l.maybe[name] = true
		}
	})
	l.answered(err)
}

func (d *daemon) submitOne(l *ledger, n int) {
	v, ok := l.pick()
	if !ok {
		return
	}
	code := rand.IntN(4)
	script := fmt.Sprintf("echo $CLOUDFLASH_CLOUDLET >>/data/starts; sleep %.2f; echo end; exit %d", rand.Float64()*2, code)
	c, err := call[agent.Cloudlet](d, "POST", "/api/v1/cloudlets", map[string]any{"vm": v.ID, "argv": []string{"/bin/sh", "-c", script}, "name": "c" + strconv.Itoa(n)})
	if l.answered(err) && err == nil {
		l.do(func() { l.codes[c.ID] = code })
	}
}

func (d *daemon) resizeOne(l *ledger) {
	v, ok := l.pick()
	if !ok {
		return
	}
	cpus := float64(1+rand.IntN(20)) / 10
	_, err := call[agent.VM](d, "PATCH", "/api/v1/vms/"+v.ID, map[string]any{"cpus": cpus})
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

func (d *daemon) cancelOne(l *ledger) {
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
	_, err := call[agent.Cloudlet](d, "DELETE", "/api/v1/cloudlets/"+id, nil)
	l.answered(err)
}

func (d *daemon) deleteOne(l *ledger) {
	v, ok := l.pick()
	if !ok {
		return
	}
	l.do(func() { delete(l.vms, v.ID); l.maybe[v.Name] = true })
	_, err := call[agent.Operation](d, "DELETE", "/api/v1/vms/"+v.ID+"?grace=0s", nil)
	if l.answered(err) && err == nil {
		l.do(func() { l.gone[v.ID] = true })
	}
}

// TestSystemChaos kills the agent with SIGKILL at random moments while VMs and
// cloudlets are created, run, resized and deleted, then compares what was
// promised, what the store says and what the kernel has.
func TestSystemChaos(t *testing.T) {
	kills := 20
	if s := os.Getenv("CLOUDFLASH_CHAOS_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	d := newDaemon(t)
	l := &ledger{vms: map[string]agent.VM{}, gone: map[string]bool{}, maybe: map[string]bool{}, spec: map[string]float64{},
		codes: map[string]int{}, cancel: map[string]bool{}, refusals: map[int]int{}}
	mounts := mountCount(t)
	n := 0
	began := time.Now()
	for i := range kills {
		d.start()
		if i%3 > 0 { // every third kill meets an agent that is still recovering
			d.ready()
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
		d.kill()
		wg.Wait()
	}
	t.Logf("%d kills in %.0f s, %d requests, refusals by status %v, %d cloudlets acknowledged", kills, time.Since(began).Seconds(), l.requests, l.refusals, len(l.codes))
	if len(l.codes) < kills/10 || l.requests < kills {
		t.Errorf("the test has hardly done anything")
	}
	d.start()
	d.ready()
	d.compare(l)
	d.deleteAll()
	d.nothingLeft(mounts)
}

// tidy deletes VMs that came to be without the client hearing of it, or there
// would be ever more of them.
func (d *daemon) tidy(l *ledger) {
	all, err := call[list[agent.VM]](d, "GET", "/api/v1/vms?limit=1000", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, v := range all.Items {
		l.mu.Lock()
		_, wanted := l.vms[v.ID]
		l.mu.Unlock()
		if !wanted && v.State != agent.VMDeleting {
			_, err := call[agent.Operation](d, "DELETE", "/api/v1/vms/"+v.ID+"?grace=0s", nil)
			l.answered(err)
		}
	}
}

// compare holds the ledger against store and kernel.
func (d *daemon) compare(l *ledger) {
	t := d.t
	vms := d.settle()
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
	for _, dir := range []string{filepath.Join(d.state, "vms"), filepath.Join(d.run, "vms")} {
		if got := dirs(t, dir); !slices.Equal(got, ids) {
			t.Errorf("%s holds %v, the store %v", dir, got, ids)
		}
	}
	if got := cgroupDirs(t, filepath.Join(d.parent, "vms")); !slices.Equal(got, ids) {
		t.Errorf("the kernel has slices %v, the store VMs %v", got, ids)
	}
	if got := linkIDs(t); !slices.Equal(got, ids) {
		t.Errorf("links of %v, the store has VMs %v", got, ids)
	}
	d.compareCloudlets(l, vms)
}

// linkIDs are the VMs that have links on the host, each its two.
func linkIDs(t *testing.T) []string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, l := range all {
		if strings.HasPrefix(l.Name, "cfv") || strings.HasPrefix(l.Name, "cfi") {
			count[l.Name[3:]]++
		}
	}
	ids := []string{}
	for id, n := range count {
		if n != 2 {
			t.Errorf("VM %s has %d links", id, n)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// settle waits until every cloudlet has ended and no VM is on its way.
func (d *daemon) settle() []agent.VM {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		vms, err1 := call[list[agent.VM]](d, "GET", "/api/v1/vms?limit=1000", nil)
		cls, err2 := call[list[agent.Cloudlet]](d, "GET", "/api/v1/cloudlets?limit=1000", nil)
		if err := errors.Join(err1, err2); err != nil {
			d.t.Fatal(err)
		}
		busy := ""
		for _, v := range vms.Items {
			if v.State == agent.VMCreating || v.State == agent.VMDeleting {
				busy = v.Name + " is " + string(v.State)
			}
		}
		for _, c := range cls.Items {
			if !c.State.Final() {
				busy = "cloudlet " + c.ID + " is " + string(c.State) + " " + c.Reason
			}
		}
		if busy == "" {
			return vms.Items
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("not settled after two minutes: %s", busy)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (d *daemon) compareLimits(l *ledger, v agent.VM) {
	if v.State != agent.VMRunning {
		d.t.Errorf("VM %s is %s: %s", v.Name, v.State, v.Reason)
	}
	raw, err := os.ReadFile(filepath.Join(d.parent, "vms", v.ID, "cpu.max"))
	want := fmt.Sprintf("%d 100000\n", int(v.Spec.CPUs*100000+0.5))
	if err != nil || string(raw) != want {
		d.t.Errorf("VM %s: cpu.max is %q (%v), the spec says %q", v.Name, raw, err, want)
	}
	if cpus, sure := l.spec[v.ID]; sure && cpus != v.Spec.CPUs {
		d.t.Errorf("VM %s: %v cpus were acknowledged, it has %v", v.Name, cpus, v.Spec.CPUs)
	}
	if v.Limits.StorageBytes == nil || *v.Limits.StorageBytes != v.Spec.StorageBytes || v.Limits.BandwidthBPS == nil || math.Abs(float64(*v.Limits.BandwidthBPS-v.Spec.BandwidthBPS)) > 16 {
		d.t.Errorf("VM %s: spec %+v, limits %+v", v.Name, v.Spec, v.Limits)
	}
	if scopes := cgroupDirs(d.t, filepath.Join(d.parent, "vms", v.ID)); !slices.Equal(scopes, []string{"init"}) {
		d.t.Errorf("VM %s: nothing runs, yet it has %v", v.Name, scopes)
	}
}

// compareCloudlets checks that every acknowledged cloudlet ran once, to its own end.
func (d *daemon) compareCloudlets(l *ledger, vms []agent.VM) {
	starts := map[string]int{}
	for _, v := range vms {
		b, _ := os.ReadFile(filepath.Join(d.state, "vms", v.ID, "data", "starts"))
		for _, id := range strings.Fields(string(b)) {
			starts[id]++
		}
	}
	states := map[agent.CloudletState]int{}
	for id, code := range l.codes {
		c, err := call[agent.Cloudlet](d, "GET", "/api/v1/cloudlets/"+id, nil)
		if err != nil {
			d.t.Errorf("acknowledged cloudlet %s: %v", id, err)
			continue
		}
		states[c.State]++
		if starts[id] > 1 {
			d.t.Errorf("cloudlet %s was started %d times", id, starts[id])
		}
		ranToEnd := c.State == agent.CloudletSucceeded || c.State == agent.CloudletFailed
		switch {
		case ranToEnd && (c.ExitCode == nil || *c.ExitCode != code):
			d.t.Errorf("cloudlet %s: %s %s, exit code %v, want %d", id, c.State, c.Reason, c.ExitCode, code)
		case ranToEnd:
		case c.State == agent.CloudletCancelled: // asked for, or its VM was deleted
		default:
			d.t.Errorf("cloudlet %s is %s: %s", id, c.State, c.Reason)
		}
	}
	d.t.Logf("cloudlets by state: %v", states)
}

func (d *daemon) deleteAll() {
	vms, err := call[list[agent.VM]](d, "GET", "/api/v1/vms?limit=1000", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, v := range vms.Items {
		if _, err := call[agent.Operation](d, "DELETE", "/api/v1/vms/"+v.ID+"?grace=0s", nil); err != nil {
			d.t.Error(err)
		}
	}
	if left := d.settle(); len(left) != 0 {
		d.t.Errorf("VMs left: %v", left)
	}
}

func (d *daemon) nothingLeft(mounts int) {
	for _, dir := range []string{filepath.Join(d.state, "vms"), filepath.Join(d.run, "vms")} {
		if got := dirs(d.t, dir); len(got) != 0 {
			d.t.Errorf("left in %s: %v", dir, got)
		}
	}
	if got := cgroupDirs(d.t, filepath.Join(d.parent, "vms")); len(got) != 0 {
		d.t.Errorf("slices left: %v", got)
	}
	if got := mountCount(d.t); got != mounts+1 { // the pool
		d.t.Errorf("%d mounts, there were %d before the pool", got, mounts)
	}
	if got := linkIDs(d.t); len(got) != 0 {
		d.t.Errorf("links of %v left", got)
	}
	if out, err := exec.Command("nft", "list", "ruleset").CombinedOutput(); err != nil || strings.Contains(string(out), "elements") && strings.Contains(string(out), "comment") {
		d.t.Errorf("left in the rules: %v %s", err, out)
	}
	if out, err := exec.Command("pgrep", "-f", "cloudflash-init").Output(); err == nil {
		d.t.Errorf("inits left: %s", out)
	}
}

func dirs(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func cgroupDirs(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

func mountCount(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/state"
	"cloudflash/agent/store"
	"cloudflash/cmd/cloudflash/systemtest"
)

// BenchmarkSystemCloudlets is what `scripts/bench cloudlets` prints: what short cloudlets
// cost beside the same program with nothing around it, through the API and its socket,
// and what an agent takes that has many VMs, or has seen many cloudlets.
func BenchmarkSystemCloudlets(b *testing.B) {
	b.Run("short", shortOnes) // each with an agent of its own, one after the other
	b.Run("ended", manyEnded)
	b.Run("idle", manyIdle)
}

// row prints one line of the table.
func row(what, format string, args ...any) {
	fmt.Printf("%-58s %s\n", what, fmt.Sprintf(format, args...))
}

// asMany calls do n times from so many clients, and returns how long each call took, in
// order, and all of them.
func asMany(clients, n int, do func()) (each []time.Duration, all time.Duration) {
	var left atomic.Int64
	left.Store(int64(n))
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				from := time.Now()
				do()
				took := time.Since(from)
				mu.Lock()
				each = append(each, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	all = time.Since(began)
	slices.Sort(each)
	return each, all
}

func median(sorted []time.Duration) time.Duration { return sorted[len(sorted)/2] }

func p99(sorted []time.Duration) time.Duration { return sorted[len(sorted)*99/100] }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// shortOnes runs /bin/true, bare and as a cloudlet.
func shortOnes(b *testing.B) {
	const alone, many, clients = 100, 1000, 16
	s := systemtest.Start(b)
	s.Create("bench", 2, 512, agent.PolicyLayer{})
	bare := func() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Error(err)
		}
	}
	ask := func(method, path string, body any) agent.Cloudlet {
		c, err := systemtest.Call[agent.Cloudlet](s, method, "/api/v1/cloudlets"+path, body)
		if err != nil {
			b.Error(err)
		}
		return c
	}
	submit := func(query string) agent.Cloudlet {
		return ask("POST", query, map[string]any{"vm": "bench", "argv": []string{"/bin/true"},
			"request": map[string]any{"cpus": 0.001, "memory_bytes": 1 << 20}})
	}
	succeeded := func(c agent.Cloudlet) {
		if c.State != agent.CloudletSucceeded {
			b.Errorf("%s %s", c.State, c.Reason)
		}
	}
	cloudlet := func() { succeeded(submit("?wait=60s")) }

	var mu sync.Mutex
	var submits []time.Duration
	askedTwice := func() { // to submit, and to wait
		began := time.Now()
		c := submit("")
		mu.Lock()
		submits = append(submits, time.Since(began))
		mu.Unlock()

		if !c.State.Final() {
			c = ask("GET", "/"+c.ID+"?wait=60s", nil)
		}
		succeeded(c)
	}
	cloudlet() // what is made at the first

	oneBare, _ := asMany(1, alone, bare)
	oneCloudlet, _ := asMany(1, alone, cloudlet)
	_, bareAll := asMany(clients, many, bare)
	used := s.ProcessTime()
	_, cloudletAll := asMany(clients, many, cloudlet)
	used = s.ProcessTime() - used

	asMany(1, alone, askedTwice)
	slices.Sort(submits)
	oneSubmit := median(submits)
	submits = nil
	_, twiceAll := asMany(clients, many/2, askedTwice)
	slices.Sort(submits)

	row("bare fork, exec, wait, one at a time", "%.1f ms", ms(median(oneBare)))
	row("submit to stored end, one at a time", "%.1f ms, %.2f x bare (aim 1.3)", ms(median(oneCloudlet)),
		float64(median(oneCloudlet))/float64(median(oneBare)))
	row(fmt.Sprintf("%d x true, %d workers, bare", many, clients), "%.1f per second", many/bareAll.Seconds())
	row(fmt.Sprintf("%d x true, %d clients, one VM", many, clients), "%.1f per second, %.2f x bare (aim 0.6)",
		many/cloudletAll.Seconds(), bareAll.Seconds()/cloudletAll.Seconds())
	row("the same, submit and wait as two requests", "%.1f per second", many/2/twiceAll.Seconds())
	row("CPU time of the agent for each", "%.1f ms", 1000*used/many)
	row("submit with 1 client, median", "%.1f ms", ms(oneSubmit))
	row(fmt.Sprintf("submit with %d clients, median, p99", clients), "%.1f ms, %.1f ms, p99 %.1f x the median of one (aim 10)",
		ms(median(submits)), ms(p99(submits)), float64(p99(submits))/float64(oneSubmit))
}

// resident is what of the agent is in memory, in MiB, once it has come to rest.
func resident(s *systemtest.Agent) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		s.T.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				s.T.Fatal(err)
			}
			return kib / 1024
		}
	}
	s.T.Fatal("no VmRSS")
	return 0
}

// rests is how many cores the agent takes when nothing goes on.
func rests(s *systemtest.Agent) float64 {
	const span = 20 * time.Second
	time.Sleep(5 * time.Second) // what a start has left to do
	before, began := s.ProcessTime(), time.Now()
	time.Sleep(span)
	return (s.ProcessTime() - before) / time.Since(began).Seconds()
}

// manyEnded compares an agent that remembers as many ended cloudlets as it ever does with
// one that remembers none.
func manyEnded(b *testing.B) {
	s := systemtest.Start(b)
	cores, mib := rests(s), resident(s)
	s.Kill()
	fillStore(b, filepath.Join(s.StateDir, "cloudflash.db"))
	s.Start()
	fullCores, fullMiB := rests(s), resident(s)
	row("agent at rest, no VM, no ended cloudlet", "%.2f %% of a core, %.1f MiB", 100*cores, mib)
	row(fmt.Sprintf("agent at rest, no VM, %d ended cloudlets", state.KeepEnded), "%.2f %% of a core, %.2f x (aim 1.2), %.1f MiB (aim 40)",
		100*fullCores, fullCores/max(cores, 1e-4), fullMiB)
}

// fillStore stores ended cloudlets, as those of an earlier agent.
func fillStore(b *testing.B, path string) {
	disk, err := store.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	db, err := state.Load(disk, state.Config{})
	if err == nil {
		err = db.Update(func(tx *state.Tx) error {
			for i := range state.KeepEnded {
				at := time.Now().UTC()
				id := fmt.Sprintf("%010x", i)
				tx.PutCloudlet(state.Cloudlet{ID: id, Name: state.DefaultName(id), VM: "gone", VMName: "gone", Argv: []string{"/bin/true"},
					State: state.CloudletSucceeded, SLA: state.SLAMedium, CreatedAt: at, StartedAt: &at, FinishedAt: &at, ExitCode: new(0)})
			}
			return nil
		})
	}
	if err := cmp.Or(err, disk.Close()); err != nil {
		b.Fatal(err)
	}
}

// manyIdle is an agent with many VMs in which nothing goes on: CLOUDFLASH_BENCH_VMS of them.
func manyIdle(b *testing.B) {
	vms := 300
	if n, err := strconv.Atoi(os.Getenv("CLOUDFLASH_BENCH_VMS")); err == nil {
		vms = n
	}
	s := systemtest.Start(b, "--overcommit-memory", "100")
	began := time.Now()
	for i := range vms {
		systemtest.Must[agent.VM](s, "POST", "/api/v1/vms", map[string]any{"name": fmt.Sprint("vm", i), "cpus": 0.1, "memory_bytes": 32 << 20,
			"storage_bytes": 64 << 20, "network": map[string]any{"mode": "isolated"}})
	}
	made := time.Since(began)
	cores := rests(s)
	row(fmt.Sprintf("%d VMs created, one after the other", vms), "%.1f per second", float64(vms)/made.Seconds())
	row(fmt.Sprintf("agent at rest, %d idle VMs", vms), "%.2f %% of a core, %.1f MiB (aim 60 with 300, 80 with 1,000)", 100*cores, resident(s))
}

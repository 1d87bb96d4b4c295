package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"
)

func TestKernelQuotaOfHalfACore(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--cpus", "0.5", "--memory", "128MiB")
	s.Out("cloudlet", "submit", "--vm", "web", "--name", "busy", "--", "sh", "-c", "while :; do :; done")
	s.Await("busy", agent.CloudletRunning)
	// On a machine that is busy with something else a VM may not get what it is allowed. So time is counted in the
	// kernel's own periods, and no use is too little but in those that the limit has cut short.
	v := s.VM("web")
	before, grown := s.Counters(v, "cpu.stat"), func(key string) float64 { return 0 }
	systemtest.Until(t, "it is held back in 30 periods", func() bool {
		now := s.Counters(v, "cpu.stat")
		grown = func(key string) float64 { return now[key] - before[key] }
		return grown("nr_throttled") >= 30
	})
	const period = 0.1 // s
	used, periods, held := grown("usage_usec")/1e6, grown("nr_periods"), grown("nr_throttled")
	t.Logf("%.3f CPU seconds in %.0f periods, of which %.0f were cut short: asked for 0.5 cores", used, periods, held)
	if used > 0.55*period*(periods+1) || used < 0.45*period*(held-1) {
		t.Errorf("%.3f cores by all periods, %.3f by those that were cut short", used/periods/period, used/held/period)
	}
}

func TestKernelResizeTakesEffectAtOnce(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--cpus", "0.5", "--memory", "128MiB")
	path := filepath.Join(s.Parent, "vms", s.VM("web").ID, "cpu.max")
	var took []time.Duration
	for i := range 10 {
		cpus := []string{"1", "0.5"}[i%2]
		want := map[string]string{"1": "100000 100000\n", "0.5": "50000 100000\n"}[cpus]
		changed := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			for time.Since(began) < 10*time.Second {
				if b, err := os.ReadFile(path); err == nil && string(b) == want {
					changed <- time.Since(began)
					return
				}
				time.Sleep(time.Millisecond)
			}
			close(changed)
		}()
		if _, err := systemtest.Call[agent.VM](s, "PATCH", "/api/v1/vms/web",
			map[string]any{"cpus": map[string]float64{"1": 1, "0.5": 0.5}[cpus]}); err != nil {
			t.Fatal(err)
		}
		d, ok := <-changed
		if !ok {
			t.Fatal("cpu.max never changed")
		}
		took = append(took, d)
	}
	t.Logf("from request to the kernel: %v", took)
	began := time.Now()
	s.Out("vm", "set", "web", "--cpus", "1")
	t.Logf("the whole command took %v", time.Since(began))
	if got := s.ControlFile(s.VM("web"), "cpu.max"); got != "100000 100000" {
		t.Errorf("cpu.max %q", got)
	}
}

func TestKernelOOMSparesNeighbours(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "a", "--memory", "128MiB")
	s.Out("vm", "create", "b", "--memory", "128MiB")
	s.Out("cloudlet", "submit", "--vm", "a", "--name", "inside", "--", "sleep", "600")
	s.Out("cloudlet", "submit", "--vm", "b", "--name", "outside", "--", "sleep", "600")
	pids := map[string]int{}
	for _, name := range []string{"inside", "outside"} {
		pids[name] = s.Await(name, agent.CloudletRunning).PID
	}
	_, stderr, code := s.Run("cloudlet", "run", "--vm", "a", "--name", "hog", "--", "burn", "--cpus", "0", "--memory",
		"256MiB", "--seconds", "60")
	hog := s.Cloudlet("hog")
	t.Logf("hog: %s, reason %q, signal %s, peak %d MiB, exit code of run %d, stderr %q", hog.State, hog.Reason, hog.Signal, hog.Usage.MemoryPeakBytes>>20, code, stderr)
	if hog.State != agent.CloudletFailed || hog.Reason != "oom" || code != 137 || !strings.Contains(stderr, "oom") {
		t.Error("the OOM kill is not told as one")
	}
	for name, pid := range pids {
		if c := s.Cloudlet(name); c.State != agent.CloudletRunning || c.PID != pid {
			t.Errorf("neighbour %s is %s, pid %d, was %d", name, c.State, c.PID, pid)
		}
	}
}

func TestKernelForkBombStopsAtItsPIDs(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--pids", "50", "--memory", "256MiB")
	s.Out("cloudlet", "submit", "--vm", "web", "--name", "bomb", "--", "sh", "-c",
		"f() { while :; do f & done; }; f 2>/dev/null & exec sleep 600")
	v, most := s.VM("web"), 0.0
	scope := "cl-" + s.Await("bomb", agent.CloudletRunning).ID
	systemtest.Until(t, "it is refused again and again", func() bool {
		most = max(most, s.Number(v, "pids.current"))
		refused := s.Counters(v, "pids.events")["max"]
		refused += s.Counters(v, scope+"/pids.events")["max"] // before Linux 6.11 it is counted where the process was
		return most >= 40 && refused >= 300
	})

	t.Logf("most processes seen: %.0f of 50 and the init's own", most)
	if most > 50+16 {
		t.Errorf("%.0f processes", most)
	}
	s.Cancel("bomb")
	if out := s.Out("cloudlet", "run", "--vm", "web", "--", "echo", "alive"); out != "alive\n" {
		t.Errorf("afterwards: %q", out)
	}
}

func TestSystemWriteLimit(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--io-wbps", "5MiB/s", "--memory", "256MiB")
	began := time.Now()
	out := s.Out("cloudlet", "run", "--vm", "web", "--", "sh", "-c", "dd if=/dev/zero of=/data/f bs=1M count=20 oflag=direct 2>&1 | tail -1")
	t.Logf("dd: %s in all %v", strings.TrimSpace(out), time.Since(began))
	rate := 20 / seconds(t, out)
	t.Logf("%.2f MiB/s, asked for 5", rate)
	if rate < 2.5 || rate > 5.5 { // an emulator that is busy may be slower
		t.Errorf("%.2f MiB/s", rate)
	}
}

// seconds is the time that dd has measured.
func seconds(t *testing.T, line string) float64 {
	t.Helper()
	fields := strings.Split(line, ", ")
	if len(fields) < 4 {
		t.Fatalf("dd says %q", line)
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(fields[2]), " s"), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
)

// shell is the command line against a real agent, as a person would use it.
type shell struct {
	*daemon
}

func newShell(t *testing.T, flags ...string) *shell {
	t.Helper()
	s := &shell{newDaemon(t)}
	s.flags = append(s.flags, flags...)
	s.start()
	s.ready()
	t.Cleanup(func() {
		for _, name := range strings.Fields(s.out("vm", "list", "-o", "name")) {
			s.out("vm", "delete", name, "--grace", "0s")
		}
	})
	return s
}

// run runs one command and returns what it printed and its exit code.
func (s *shell) run(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := exec.Command("cloudflash", args...)
	cmd.Env = append(os.Environ(), "CLOUDFLASH_HOST=unix://"+filepath.Join(s.daemon.run, "api.sock"))
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// out is run for commands that must succeed.
func (s *shell) out(args ...string) string {
	s.t.Helper()
	out, errOut, code := s.run(args...)
	if code != 0 {
		s.t.Fatalf("cloudflash %s: exit code %d\n%s", strings.Join(args, " "), code, errOut)
	}
	return out
}

func show[T any](s *shell, kind, name string) T {
	s.t.Helper()
	var v T
	if err := json.Unmarshal([]byte(s.out(kind, "show", name, "-o", "json")), &v); err != nil {
		s.t.Fatal(err)
	}
	return v
}

// cgroupFile reads a control file of a VM's slice.
func (s *shell) cgroupFile(vm, file string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.parent, "vms", show[agent.VM](s, "vm", vm).ID, file))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// cores measures the cores a VM uses, by its cpu.stat, and in what share of the
// periods it was its quota that held it back.
func (s *shell) cores(vm string, over time.Duration) (used, held float64) {
	s.t.Helper()
	path := filepath.Join(s.parent, "vms", show[agent.VM](s, "vm", vm).ID, "cpu.stat")
	began, before := time.Now(), cpuStat(s.t, path)
	time.Sleep(over)
	took, after := time.Since(began), cpuStat(s.t, path)
	return (after["usage_usec"] - before["usage_usec"]) / 1e6 / took.Seconds(),
		(after["nr_throttled"] - before["nr_throttled"]) / (after["nr_periods"] - before["nr_periods"])
}

func cpuStat(t *testing.T, path string) map[string]float64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if stat[key], err = strconv.ParseFloat(value, 64); err != nil {
			t.Fatal(err)
		}
	}
	return stat
}

func (s *shell) await(name string, state agent.CloudletState) agent.Cloudlet {
	s.t.Helper()
	deadline := time.Now().Add(10 * time.Minute)
	for {
		c := show[agent.Cloudlet](s, "cloudlet", name)
		if c.State == state {
			return c
		}
		if c.State.Final() || time.Now().After(deadline) {
			s.t.Fatalf("cloudlet %s is %s (%s), want %s", name, c.State, c.Reason, state)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestKernelQuotaOfHalfACore(t *testing.T) {
	s := newShell(t)
	s.out("vm", "create", "web", "--cpus", "0.5", "--memory", "128MiB")
	s.out("cloudlet", "submit", "--vm", "web", "--name", "busy", "--", "sh", "-c", "while :; do :; done")
	s.await("busy", agent.CloudletRunning)
	time.Sleep(500 * time.Millisecond)
	// On a machine that is busy with something else a VM may not get what it is
	// allowed. What it gets says something of the limit only where the limit held it back.
	for try := 1; ; try++ {
		got, held := s.cores("web", 10*time.Second)
		t.Logf("cpu.stat over 10 s: %.3f cores, asked for 0.5, held back in %.0f %% of the periods", got, 100*held)
		if got > 0.55 {
			t.Fatalf("%.3f cores", got)
		}
		if held > 0.95 || try == 6 {
			if got < 0.45 {
				t.Errorf("%.3f cores", got)
			}
			return
		}
	}
}

func TestKernelResizeTakesEffectAtOnce(t *testing.T) {
	s := newShell(t)
	s.out("vm", "create", "web", "--cpus", "0.5", "--memory", "128MiB")
	path := filepath.Join(s.parent, "vms", show[agent.VM](s, "vm", "web").ID, "cpu.max")
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
		if _, err := call[agent.VM](s.daemon, "PATCH", "/api/v1/vms/web", map[string]any{"cpus": map[string]float64{"1": 1, "0.5": 0.5}[cpus]}); err != nil {
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
	s.out("vm", "set", "web", "--cpus", "1")
	t.Logf("the whole command took %v", time.Since(began))
	if got := s.cgroupFile("web", "cpu.max"); got != "100000 100000" {
		t.Errorf("cpu.max %q", got)
	}
}

func TestKernelOOMSparesNeighbours(t *testing.T) {
	s := newShell(t)
	s.out("vm", "create", "a", "--memory", "128MiB")
	s.out("vm", "create", "b", "--memory", "128MiB")
	s.out("cloudlet", "submit", "--vm", "a", "--name", "inside", "--", "sleep", "600")
	s.out("cloudlet", "submit", "--vm", "b", "--name", "outside", "--", "sleep", "600")
	pids := map[string]int{}
	for _, name := range []string{"inside", "outside"} {
		pids[name] = s.await(name, agent.CloudletRunning).PID
	}
	_, stderr, code := s.run("cloudlet", "run", "--vm", "a", "--name", "hog", "--", "burn", "--cpus", "0", "--memory", "256MiB", "--seconds", "60")
	hog := show[agent.Cloudlet](s, "cloudlet", "hog")
	t.Logf("hog: %s, reason %q, signal %s, peak %d MiB, exit code of run %d, stderr %q", hog.State, hog.Reason, hog.Signal, hog.Usage.MemoryPeakBytes>>20, code, stderr)
	if hog.State != agent.CloudletFailed || hog.Reason != "oom" || code != 137 || !strings.Contains(stderr, "oom") {
		t.Error("the OOM kill is not told as one")
	}
	for name, pid := range pids {
		if c := show[agent.Cloudlet](s, "cloudlet", name); c.State != agent.CloudletRunning || c.PID != pid {
			t.Errorf("neighbour %s is %s, pid %d, was %d", name, c.State, c.PID, pid)
		}
	}
}

func TestKernelForkBombStopsAtItsPIDs(t *testing.T) {
	s := newShell(t)
	s.out("vm", "create", "web", "--pids", "50", "--memory", "256MiB")
	s.out("cloudlet", "submit", "--vm", "web", "--name", "bomb", "--", "sh", "-c", "f() { while :; do f & done; }; f 2>/dev/null & exec sleep 600")
	deadline, most := time.Now().Add(5*time.Second), 0
	for time.Now().Before(deadline) {
		n, err := strconv.Atoi(s.cgroupFile("web", "pids.current"))
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, n)
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("most processes seen: %d of 50 and the init's own", most)
	if most > 50+16 || most < 40 {
		t.Errorf("%d processes", most)
	}
	s.run("cloudlet", "cancel", "bomb")
	s.run("cloudlet", "wait", "bomb")
	if out := s.out("cloudlet", "run", "--vm", "web", "--", "echo", "alive"); out != "alive\n" {
		t.Errorf("afterwards: %q", out)
	}
}

func TestKernelWriteLimit(t *testing.T) {
	s := newShell(t)
	s.out("vm", "create", "web", "--io-wbps", "5MiB/s", "--memory", "256MiB")
	began := time.Now()
	out := s.out("cloudlet", "run", "--vm", "web", "--", "sh", "-c", "dd if=/dev/zero of=/data/f bs=1M count=40 oflag=direct 2>&1 | tail -1")
	t.Logf("dd: %s in all %v", strings.TrimSpace(out), time.Since(began))
	rate := 40 / seconds(t, out)
	t.Logf("%.2f MiB/s, asked for 5", rate)
	if rate < 4.5 || rate > 5.5 {
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

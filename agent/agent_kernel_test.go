package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/guest"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
	"cloudflash/cgroup/cgrouptest"

	"golang.org/x/sys/unix"
)

// live is an agent on the real kernel, with everything it makes removed at the end.
type live struct {
	*Agent
	t      testing.TB
	log    *logTo
	cfg    Config
	cancel context.CancelFunc
	done   chan error
}

func newLive(t testing.TB) *live {
	t.Helper()
	parent := cgrouptest.Kernel(t)
	cfg := DefaultConfig()
	cfg.Autoscale, cfg.Idle.After = "off", 0 // limits and VMs stay as they are asked for
	cfg.StateDir = stateDir(t)
	cfg.RunDir = t.TempDir()
	cfg.CgroupParent = parent.Dir()
	cfg.InitPath = binary(t, "cloudflash-init")
	cfg.Binaries = []string{binary(t, "burn")}
	cfg.Idle = policy.Idle{} // VMs that idle stay
	cfg.Overcommit = Overcommit{CPUs: 16, Memory: 4, Storage: 100}
	log := &logTo{t: t}
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	l := &live{t: t, log: log, cfg: cfg}
	l.start()
	t.Cleanup(func() {
		for _, v := range l.VMs() {
			l.delete(v.ID)
		}
		l.stop()
	})
	return l
}

// logTo sends the agent's log to the test's, and keeps it.
type logTo struct {
	t testing.TB

	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logTo) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(p)
	if _, bench := l.t.(*testing.B); !bench && l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func (l *logTo) said(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.all.Bytes(), []byte(what))
}

// stateDir is a directory on a block device, so that io limits have something
// to hold on to.
func stateDir(t testing.TB) string {
	t.Helper()
	if err := os.MkdirAll("/var/lib/cloudflash-test", 0o711); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/lib/cloudflash-test", "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(filepath.Join(dir, "vms"), 0) // the pool
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func binary(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path, err := filepath.Abs("../.cache/bin/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is neither on PATH nor in .cache/bin: build it first (scripts/test does)", name)
	}
	return path
}

func (l *live) start() {
	l.t.Helper()
	a, err := New(l.cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.Agent, l.cancel, l.done = a, cancel, make(chan error, 1)
	go func() { l.done <- a.Run(ctx) }()
	select {
	case <-a.Ready():
	case err := <-l.done:
		l.t.Fatalf("agent ended: %v", err)
	case <-time.After(3 * time.Minute):
		l.t.Fatal("agent not ready after three minutes")
	}
}

func (l *live) stop() {
	l.t.Helper()
	l.cancel()
	if err := <-l.done; err != nil {
		l.t.Error(err)
	}
	if err := l.Close(); err != nil {
		l.t.Error(err)
	}
}

func (l *live) create(name string, s Spec) VM {
	l.t.Helper()
	v, err := l.CreateVM(l.t.Context(), VMCreate{Name: name, Spec: s})
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

func (l *live) delete(ref string) {
	l.t.Helper()
	op, err := l.DeleteVM(context.Background(), ref, 0)
	if err != nil {
		l.t.Error(err)
		return
	}
	l.until(func() bool { op, err = l.Operation(op.ID); return err != nil || op.State != OperationRunning }, "delete "+ref)
	if op.State != OperationSucceeded {
		l.t.Errorf("delete %s: %+v", ref, op)
	}
}

// until waits for a condition, up to four minutes: the machine may be emulated and busy.
func (l *live) until(ok func() bool, what string) {
	l.t.Helper()
	deadline := time.Now().Add(4 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			l.t.Fatalf("still not after four minutes: %s", what)
		}
		select {
		case <-l.Updates():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (l *live) submit(req cloudlet.Submit) Cloudlet {
	l.t.Helper()
	c, err := l.SubmitCloudlet(l.t.Context(), req)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *live) sh(vm, script string) Cloudlet {
	l.t.Helper()
	return l.submit(cloudlet.Submit{VM: vm, Argv: []string{"/bin/sh", "-c", script}})
}

func (l *live) state(id string, want ...CloudletState) Cloudlet {
	l.t.Helper()
	var c Cloudlet
	l.until(func() bool {
		var err error
		if c, err = l.Cloudlet(id); err != nil {
			l.t.Fatal(err)
		}
		for _, s := range want {
			if c.State == s {
				return true
			}
		}
		if c.State.Final() {
			l.t.Fatalf("cloudlet is %s (%s), want %v; stderr: %s", c.State, c.Reason, want, l.output(id, "stderr"))
		}
		return false
	}, "cloudlet "+id)
	return c
}

var finals = []CloudletState{CloudletSucceeded, CloudletFailed, CloudletCancelled, CloudletDeadlineExceeded, CloudletLost}

func (l *live) ended(id string) Cloudlet { l.t.Helper(); return l.state(id, finals...) }

func (l *live) output(id, stream string) string {
	l.t.Helper()
	f, err := l.OpenOutput(id, stream)
	if err != nil {
		return ""
	}
	defer f.Close()
	var b strings.Builder
	if err := f.CopyTo(l.t.Context(), &b); err != nil {
		l.t.Fatal(err)
	}
	return b.String()
}

func small() Spec { return Spec{CPUs: 1, MemoryBytes: 128 * mib} }

func TestSystemCloudletLives(t *testing.T) {
	l := newLive(t)
	v := l.create("web", small())
	if v.State != VMRunning || v.InitPID == 0 || v.Limits.CPUs == nil || *v.Limits.CPUs != 1 || *v.Limits.MemoryBytes != 128*mib {
		t.Errorf("new VM: %+v", v)
	}
	c := l.ended(l.sh("web", "hostname; id -u; echo oops >&2; echo hi >/data/f && cat /data/f; exit 3").ID)
	if out := l.output(c.ID, "stdout"); out != "web\n0\nhi\n" {
		t.Errorf("stdout = %q", out)
	}
	if out := l.output(c.ID, "stderr"); out != "oops\n" {
		t.Errorf("stderr = %q", out)
	}
	if c.State != CloudletFailed || c.ExitCode == nil || *c.ExitCode != 3 || c.Usage.CPUSeconds <= 0 || c.Usage.MemoryPeakBytes <= 0 {
		t.Errorf("ended: %+v", c)
	}
	for argv0, code := range map[string]int{"/no/such": 127, "nosuchcommand": 127, "/etc/passwd": 126, "/": 126} {
		c := l.ended(l.submit(cloudlet.Submit{VM: "web", Argv: []string{argv0}}).ID)
		if c.State != CloudletFailed || c.ExitCode == nil || *c.ExitCode != code || c.Reason == "" {
			t.Errorf("%s: %s %v %q, want failed with %d", argv0, c.State, c.ExitCode, c.Reason, code)
		}
	}
	if dirs, _ := v0scopes(l, v.ID); len(dirs) != 1 {
		l.until(func() bool { dirs, _ = v0scopes(l, v.ID); return len(dirs) == 1 }, "only the init's scope is left")
	}
}

func v0scopes(l *live, id string) ([]string, error) { return l.parent.Slice(id).Scopes() }

func TestKernelOOMIsReportedAndContained(t *testing.T) {
	l := newLive(t)
	l.create("a", Spec{CPUs: 1, MemoryBytes: 64 * mib})
	l.create("b", small())
	inside := l.sh("a", "sleep 600")
	outside := l.sh("b", "sleep 600")
	l.state(inside.ID, CloudletRunning)
	l.state(outside.ID, CloudletRunning)
	burn := []string{"burn", "--cpus", "0", "--memory", "128MiB", "--seconds", "60"}
	hog := l.ended(l.submit(cloudlet.Submit{VM: "a", Argv: burn}).ID)
	if hog.State != CloudletFailed || hog.Reason != "oom" {
		t.Errorf("hog: %s %q signal %q", hog.State, hog.Reason, hog.Signal)
	}
	for _, c := range []Cloudlet{inside, outside} {
		if c, _ = l.Cloudlet(c.ID); c.State != CloudletRunning {
			t.Errorf("neighbour %s is %s", c.ID, c.State)
		}
	}
}

func TestKernelForkBombStopsAtPIDs(t *testing.T) {
	l := newLive(t)
	v := l.create("bomb", Spec{CPUs: 1, MemoryBytes: 256 * mib, PIDs: 64})
	l.create("other", small())
	// A shell that cannot fork gives up, so the first one leaves the forking to others.
	bomb := l.sh("bomb", "f() { while :; do f & done; }; f 2>/dev/null & exec sleep 600")
	l.state(bomb.ID, CloudletRunning)
	l.until(func() bool { now, _ := l.VM(v.ID); return now.Usage.PIDs >= 64 }, "the bomb fills its pids")
	l.until(func() bool { return refusedForks(t, l, v.ID) >= 50 }, "it bangs its head against the limit")
	now, err := l.VM(v.ID)
	// The VM's own init has 16 threads beside what was asked for.
	if err != nil || now.Usage.PIDs > 64+16 || now.State != VMRunning || now.InitPID != v.InitPID {
		t.Errorf("VM with the bomb: %+v %v", now, err)
	}
	if c := l.ended(l.sh("other", "echo fine").ID); c.State != CloudletSucceeded {
		t.Errorf("neighbour: %s %s", c.State, c.Reason)
	}
	if _, err := l.CancelCloudlet(t.Context(), bomb.ID); err != nil {
		t.Fatal(err)
	}
	if c := l.ended(bomb.ID); c.State != CloudletCancelled {
		t.Errorf("bomb: %s %s", c.State, c.Reason)
	}
	if c := l.ended(l.sh("bomb", "echo works again").ID); c.State != CloudletSucceeded {
		t.Errorf("after the bomb: %s %s", c.State, c.Reason)
	}
}

// refusedForks is how often the limit on processes was met: the kernel counts it where the
// limit is, before Linux 6.11 where the process was.
func refusedForks(t *testing.T, l *live, id string) (n int) {
	t.Helper()
	slice := l.parent.Slice(id).Path()
	files, err := filepath.Glob(slice + "/*/pids.events")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, slice+"/pids.events") {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // a scope has gone
		}
		for line := range strings.Lines(string(b)) {
			if count, ok := strings.CutPrefix(strings.TrimSpace(line), "max "); ok {
				k, err := strconv.Atoi(count)
				if err != nil {
					t.Fatalf("pids.events: %q", b)
				}
				n += k
			}
		}
	}
	return n
}

// overdue moves the deadline of a cloudlet to now: on a busy machine nobody knows when it
// will have started.
func (l *live) overdue(id string) {
	l.must(l.t, func(tx *state.Tx) {
		c := *tx.Cloudlet(id)
		c.DeadlineBoot = clock.Now().Boot
		tx.PutCloudlet(c)
	})
	l.poke()
}

func TestSystemDeadlines(t *testing.T) {
	l := newLive(t)
	l.stop()
	l.cfg.Grace = time.Second
	l.start()
	l.create("d", small())
	submit := func(script, then string) Cloudlet {
		argv := []string{"/bin/sh", "-c", script}
		return l.submit(cloudlet.Submit{VM: "d", Argv: argv, DeadlineSeconds: 3600, OnDeadline: then})
	}
	stubborn := submit("trap '' TERM; echo ready; while :; do sleep 0.1; done", OnDeadlineKill)
	patient := submit("echo ready; until [ -e /data/go ]; do sleep 0.1; done", OnDeadlineContinue)
	polite := submit("echo ready; exec sleep 600", OnDeadlineKill)
	for _, c := range []Cloudlet{stubborn, patient, polite} {
		l.state(c.ID, CloudletRunning)
		l.until(func() bool { return l.output(c.ID, "stdout") == "ready\n" }, c.ID+" is ready")
		l.overdue(c.ID)
	}
	l.ended(l.sh("d", "echo >/data/go").ID)
	if c := l.ended(polite.ID); c.State != CloudletDeadlineExceeded || c.Signal != "SIGTERM" || c.OverrunSeconds <= 0 {
		t.Errorf("polite: %s %q overrun %v", c.State, c.Signal, c.OverrunSeconds)
	}
	if c := l.ended(patient.ID); c.State != CloudletDeadlineExceeded || c.ExitCode == nil || *c.ExitCode != 0 ||
		c.OverrunSeconds <= 0 {
		t.Errorf("patient: %s %v overrun %v", c.State, c.ExitCode, c.OverrunSeconds)
	}
	if c := l.ended(stubborn.ID); c.State != CloudletDeadlineExceeded || c.Signal != "SIGKILL" || c.OverrunSeconds < l.cfg.Grace.Seconds()*0.9 {
		t.Errorf("stubborn: %s %q overrun %v", c.State, c.Signal, c.OverrunSeconds)
	}
}

// TestSystemDeleteKeepsItsGrace deletes a VM with a cloudlet that needs its time and one that
// has only just begun, while others on the host come and go.
func TestSystemDeleteKeepsItsGrace(t *testing.T) {
	l := newLive(t)
	l.create("other", small())
	l.create("d", small())
	slow := l.sh("d", "trap 'sleep 3; exit 7' TERM; echo ready; while :; do sleep 0.1; done")
	l.state(slow.ID, CloudletRunning)
	l.until(func() bool { return l.output(slow.ID, "stdout") == "ready\n" }, "it is ready")
	young := l.submit(cloudlet.Submit{VM: "d", Argv: []string{"/bin/sleep", "600"}})

	op, err := l.DeleteVM(t.Context(), "d", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for !l.finalNow(slow.ID) {
		l.ended(l.submit(cloudlet.Submit{VM: "other", Argv: []string{"/bin/true"}}).ID)
	}
	if c := l.ended(slow.ID); c.State != CloudletCancelled || c.ExitCode == nil || *c.ExitCode != 7 {
		t.Errorf("slow: %s, exit code %v, signal %q", c.State, c.ExitCode, c.Signal)
	}
	l.until(func() bool { op, err = l.Operation(op.ID); return err != nil || op.State != OperationRunning }, "delete d")
	if c := l.ended(young.ID); c.State != CloudletCancelled || c.Signal != "SIGTERM" {
		t.Errorf("young: %s %q", c.State, c.Signal)
	}
}

// TestSystemGraceIsTheWholeScopes ends commands under a shell, which does not pass a signal on
// to what it waits for.
func TestSystemGraceIsTheWholeScopes(t *testing.T) {
	l := newLive(t)
	l.create("g", small())
	const under = `sh -c '%s; echo up; while :; do sleep 0.1; done'; :`
	polite := fmt.Sprintf(under, `trap "sleep 1; echo bye; exit 0" TERM`)
	up := func(script string, deadline float64) Cloudlet {
		c := l.submit(cloudlet.Submit{VM: "g", Argv: []string{"sh", "-c", script}, DeadlineSeconds: deadline})
		l.until(func() bool { return l.output(c.ID, "stdout") == "up\n" }, "it is up")
		return c
	}
	cancel := func(c Cloudlet) {
		if _, err := l.CancelCloudlet(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
	}

	cancelled := up(polite, 0)
	cancel(cancelled)
	late := up(polite, 6)
	for c, state := range map[string]CloudletState{cancelled.ID: CloudletCancelled, late.ID: CloudletDeadlineExceeded} {
		end := l.ended(c)
		if out := l.output(c, "stdout"); end.State != state || end.Signal != "SIGTERM" || out != "up\nbye\n" || end.LeftRunning != 0 {
			t.Errorf("%s, %q, %d left running, after %q", end.State, end.Signal, end.LeftRunning, out)
		}
	}

	restarted := up(polite, 0)
	cancel(restarted)
	l.stop()
	l.start()
	l.ended(restarted.ID)
	if out := l.output(restarted.ID, "stdout"); out != "up\nbye\n" {
		t.Errorf("with another agent: %q", out)
	}

	l.cfg.Grace = time.Second
	l.stop()
	l.start()
	deaf := up(fmt.Sprintf(under, `trap "" TERM`), 0)
	cancel(deaf)
	if c := l.ended(deaf.ID); c.State != CloudletCancelled || c.Signal != "SIGTERM" {
		t.Errorf("deaf: %s %q", c.State, c.Signal)
	}
}

// TestSystemCancelledAtOnce cancels cloudlets in the moment in which they begin: SIGTERM
// reaches each that has begun.
func TestSystemCancelledAtOnce(t *testing.T) {
	l := newLive(t)
	l.create("c", small())
	for i := range 20 {
		c := l.submit(cloudlet.Submit{VM: "c", Argv: []string{"/bin/sleep", "600"}})
		time.Sleep(time.Duration(i) * 10 * time.Millisecond)
		if _, err := l.CancelCloudlet(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		if c := l.ended(c.ID); c.State != CloudletCancelled || c.Signal != "SIGTERM" && c.StartedAt != nil {
			t.Errorf("%d: %s %q", i, c.State, c.Signal)
		}
	}
}

func TestSystemDaemonsGoDownWithTheirCloudlet(t *testing.T) {
	l := newLive(t)
	v := l.create("daemons", small())
	c := l.ended(l.sh("daemons", "setsid sleep 987 & setsid sleep 988 & sleep 0.2; exit 0").ID)
	if c.State != CloudletSucceeded || c.LeftRunning != 2 {
		t.Errorf("%s %s, %d left running", c.State, c.Reason, c.LeftRunning)
	}
	if c := l.ended(l.sh("daemons", "true & wait; exit 0").ID); c.LeftRunning != 0 {
		t.Errorf("%d processes of one that has waited for its own", c.LeftRunning)
	}
	l.until(func() bool {
		names, err := l.parent.Slice(v.ID).Scopes()
		return err == nil && len(names) == 1
	}, "the scope is gone with the daemons in it")
}

func TestKernelFreeze(t *testing.T) {
	l := newLive(t)
	l.create("f", small())
	c := l.sh("f", "while :; do :; done")
	l.state(c.ID, CloudletRunning)
	v, err := l.FreezeVM(t.Context(), "f")
	if err != nil || v.State != VMFrozen {
		t.Fatalf("%+v %v", v, err)
	}
	l.state(c.ID, CloudletFrozen)
	before := 0.0
	l.until(func() bool { // what it used last is accounted late
		before = cpuOf(t, l, v.ID)
		time.Sleep(200 * time.Millisecond)
		return cpuOf(t, l, v.ID) == before
	}, "it uses no CPU time while frozen")
	if q, err := l.SubmitCloudlet(t.Context(), cloudlet.Submit{VM: "f", Argv: []string{"true"}}); err != nil || q.State != CloudletQueued {
		t.Errorf("submit to a frozen VM: %+v %v", q, err)
	}
	l.stop()
	l.start()
	if v, err := l.VM("f"); err != nil || v.State != VMFrozen {
		t.Errorf("after a restart: %s %v", v.State, err)
	}
	if _, err := l.ThawVM(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	l.state(c.ID, CloudletRunning)
	l.until(func() bool { return cpuOf(t, l, v.ID) > before+0.2 }, "it runs on")
}

func cpuOf(t *testing.T, l *live, id string) float64 {
	t.Helper()
	r, err := l.parent.Slice(id).OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := r.CPU()
	if err != nil {
		t.Fatal(err)
	}
	return s.Usage.Seconds()
}

func TestKernelResize(t *testing.T) {
	l := newLive(t)
	v := l.create("r", Spec{CPUs: 0.5, MemoryBytes: 256 * mib})
	burn := []string{"burn", "--cpus", "0", "--memory", "80MiB", "--seconds", "600"}
	c := l.submit(cloudlet.Submit{VM: "r", Argv: burn})
	l.state(c.ID, CloudletRunning)
	l.until(func() bool { v, _ := l.VM("r"); return v.Usage.MemoryBytes > 80*mib }, "the memory is in use")
	cpus, mem := 1.0, 64*mib
	began := time.Now()
	if _, err := l.ChangeVM(t.Context(), "r", VMChange{CPUs: &cpus}); err != nil {
		t.Fatal(err)
	}
	t.Logf("vm set --cpus took %v", time.Since(began))
	raw, err := os.ReadFile(filepath.Join(l.parent.Slice(v.ID).Path(), "cpu.max"))
	if err != nil || !strings.HasPrefix(string(raw), "100000 100000") {
		t.Errorf("cpu.max = %q, %v", raw, err)
	}
	if _, err := l.ChangeVM(t.Context(), "r", VMChange{MemoryBytes: &mem}); err == nil || !strings.Contains(err.Error(), "below what is in use") {
		t.Errorf("memory below use: %v", err)
	}
	now, err := l.VM("r")
	if err != nil || now.Spec.MemoryBytes != 256*mib || *now.Limits.MemoryBytes != 256*mib {
		t.Errorf("a refused resize changed %+v", now)
	}
	if c, _ := l.Cloudlet(c.ID); c.State != CloudletRunning {
		t.Errorf("the refused resize hurt the cloudlet: %s %s", c.State, c.Reason)
	}
}

func TestSystemRestartLosesNothing(t *testing.T) {
	l := newLive(t)
	v := l.create("keep", small())
	long := l.sh("keep", "sleep 600")
	long = l.state(long.ID, CloudletRunning)
	soon := l.sh("keep", "sleep 1; echo done; exit 7")
	l.state(soon.ID, CloudletRunning)
	l.stop()
	l.until(func() bool {
		past, err := guest.ReadJournal(l.known(v.ID).RunDir())
		return err == nil && len(past) == 1
	}, "it ends without the agent")
	ended := time.Now()
	l.start()
	again, err := l.VM("keep")
	if err != nil || again.InitPID != v.InitPID || again.State != VMRunning {
		t.Errorf("VM: %+v %v, init was %d", again, err, v.InitPID)
	}
	if c := l.state(long.ID, CloudletRunning); c.PID != long.PID || !c.StartedAt.Equal(*long.StartedAt) {
		t.Errorf("long cloudlet: pid %d, was %d", c.PID, long.PID)
	}
	c := l.ended(soon.ID)
	if c.ExitCode == nil || *c.ExitCode != 7 || l.output(c.ID, "stdout") != "done\n" {
		t.Errorf("ended meanwhile: %+v", c)
	}
	if took := c.FinishedAt.Sub(*c.StartedAt); took < 900*time.Millisecond {
		t.Errorf("it took %v by its record, not at least a second", took)
	}
	if c.FinishedAt.After(ended) {
		t.Errorf("it ended at %v by its record, and was seen to have before, at %v", c.FinishedAt, ended)
	}
}

func TestSystemInitDeathLosesTheCloudletNotTheVM(t *testing.T) {
	l := newLive(t)
	v := l.create("phoenix", small())
	c := l.sh("phoenix", "sleep 600")
	l.state(c.ID, CloudletRunning)
	if err := kill9(v.InitPID); err != nil {
		t.Fatal(err)
	}
	if c := l.ended(c.ID); c.State != CloudletLost {
		t.Errorf("cloudlet is %s", c.State)
	}
	l.until(func() bool { now, _ := l.VM("phoenix"); return now.InitPID != 0 && now.InitPID != v.InitPID }, "a new init")
	if c := l.ended(l.sh("phoenix", "echo back").ID); c.State != CloudletSucceeded {
		t.Errorf("%s %s", c.State, c.Reason)
	}
	// What is submitted while the VM is built anew waits, and then runs.
	for range 2 {
		before, err := l.VM("phoenix")
		if err != nil {
			t.Fatal(err)
		}
		if err := kill9(before.InitPID); err != nil {
			t.Fatal(err)
		}
		l.until(func() bool { now, _ := l.VM("phoenix"); return now.InitPID != before.InitPID }, "that the init is missed")
		if c := l.ended(l.sh("phoenix", "echo back").ID); c.State != CloudletSucceeded {
			t.Errorf("%s %s", c.State, c.Reason)
		}
	}
}

// A VM gets a new link with a new init, and what it has received stays: also for the agents to come.
func TestSystemCountersOutliveTheInit(t *testing.T) {
	l := newLive(t)
	v := l.create("count", small())
	c, err := net.Dial("udp", net.JoinHostPort(v.Network.IPv4, "9"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	received := func() int64 {
		now, err := l.VM("count")
		if err != nil {
			t.Fatal(err)
		}
		return now.Usage.ReceivedBytes
	}
	l.until(func() bool { _, _ = c.Write(make([]byte, 1200)); return received() > 20_000 }, "packets are counted")

	for range 2 {
		before, now := received(), v
		if err := kill9(v.InitPID); err != nil {
			t.Fatal(err)
		}
		l.until(func() bool { now, _ = l.VM("count"); return now.InitPID != 0 && now.InitPID != v.InitPID }, "a new init")
		v = now
		for range 3 {
			at := l.Snapshot().Seq
			l.until(func() bool { return l.Snapshot().Seq >= at+1 }, "a picture")
			if n := received(); n < before {
				t.Fatalf("%d bytes after the init had died, %d before", n, before)
			}
		}
		l.stop()
		l.start()
		l.until(func() bool { return received() > 0 }, "it is counted again")
		if n := received(); n < before {
			t.Fatalf("%d bytes after a restart, %d before", n, before)
		}
	}
}

func kill9(pid int) error { return exec.Command("kill", "-9", strconv.Itoa(pid)).Run() }

// An archive becomes the root file system; the file may go once the VM is there.
func TestSystemImageFromAnArchive(t *testing.T) {
	l := newLive(t)
	path := filepath.Join(stateDir(t), "tool.tar")
	if out, err := exec.Command("tar", "-C", filepath.Dir(binary(t, "burn")), "-czf", path, "burn").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if _, err := l.CreateVM(t.Context(), VMCreate{Name: "tool", Image: path, Spec: small()}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c := l.ended(l.submit(cloudlet.Submit{VM: "tool",
			Argv: []string{"/burn", "--cpus", "0", "--seconds", "0.1"}}).ID); c.State != CloudletSucceeded {
			t.Errorf("%s %s", c.State, c.Reason)
		}
		if c := l.ended(l.sh("tool", "true").ID); c.ExitCode == nil || *c.ExitCode != 127 {
			t.Errorf("the host's shell is in the image: %+v", c)
		}
		l.stop()
		l.start()
	}
}

func TestSystemFailedCreateLeavesNothing(t *testing.T) {
	l := newLive(t)
	small := small()
	small.StorageBytes = 64 * mib
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/usr", link); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{"/no/such/image", "/etc/passwd", "/proc", "/sys", "/dev/null", link} {
		_, err := l.CreateVM(t.Context(), VMCreate{Name: "ghost", Image: image, Spec: small})
		if !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("a VM with %s for its root file system: %v", image, err)
		}
		t.Log(err)
	}
	if len(l.VMs()) != 0 {
		t.Errorf("left: %+v", l.VMs())
	}
	ids, err := l.parent.Slices()
	if err != nil || len(ids) != 0 {
		t.Errorf("slices left: %v %v", ids, err)
	}
	for _, root := range []string{l.cfg.StateDir, l.cfg.RunDir} {
		if left, _ := os.ReadDir(filepath.Join(root, "vms")); len(left) != 0 {
			t.Errorf("left in %s: %v", root, left)
		}
	}
}

func TestSystemEndlessOutputIsBounded(t *testing.T) {
	l := newLive(t)
	l.Agent.cfg.OutputKeep = mib
	l.create("loud", small())
	c := l.submit(cloudlet.Submit{VM: "loud", Argv: []string{"yes"}})
	running := l.state(c.ID, CloudletRunning)
	path := filepath.Join(string(l.outputs(running.VM)), c.ID+".stdout")
	l.until(func() bool { st, err := os.Stat(path); return err == nil && st.Size() > 16*mib }, "16 MiB written")
	if _, err := l.CancelCloudlet(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	l.ended(c.ID)
	l.until(func() bool { return blocks(t, path) <= 2*l.Agent.cfg.OutputKeep }, "the output is capped")
	if n := blocks(t, path); n > 16*mib {
		t.Errorf("%d MiB on disk", n>>20)
	}
}

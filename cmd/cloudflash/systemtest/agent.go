package systemtest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cgroup/cgrouptest"
	"golang.org/x/sys/unix"
)

// Agent is a `cloudflash serve` that can be killed and started again.
type Agent struct {
	T        testing.TB
	Parent   string // its cgroup
	StateDir string
	RunDir   string

	log    *os.File
	flags  []string
	cmd    *exec.Cmd
	client *http.Client
}

// Start is an agent that answers. Its VMs are deleted when the test ends.
func Start(t testing.TB, flags ...string) *Agent {
	t.Helper()
	a := New(t, flags...)
	a.Start()
	t.Cleanup(a.clear)
	return a
}

// clear deletes what VMs there are, all at once.
func (a *Agent) clear() {
	a.T.Helper()
	var all sync.WaitGroup
	for _, v := range Must[List[agent.VM]](a, "GET", "/api/v1/vms?limit=1000", nil).Items {
		all.Go(func() {
			if err := a.Remove(v.ID); err != nil && !isGone(err) {
				a.T.Error(err)
			}
		})
	}
	all.Wait()
}

// isGone reports whether there was nothing to delete any more: it went between being listed and that.
func isGone(err error) bool {
	var r Refused
	return errors.As(err, &r) && r.Status == http.StatusNotFound
}

// New is an agent that has not been started, with more options of serve.
func New(t testing.TB, flags ...string) *Agent {
	t.Helper()
	parent := cgrouptest.Kernel(t)
	if err := os.MkdirAll("/var/lib/cloudflash-test", 0o711); err != nil {
		t.Fatal(err)
	}
	state, err := os.MkdirTemp("/var/lib/cloudflash-test", "system")
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
	a := &Agent{
		T:        t,
		Parent:   parent.Dir(),
		StateDir: state,
		RunDir:   t.TempDir(),
		log:      log,
		flags:    append([]string{"--autoscale", "off", "--idle-after", "0"}, flags...), // the last of a kind counts
	}
	a.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", a.Socket())
		}}}
	t.Cleanup(func() {
		a.Kill()
		if t.Failed() {
			if b, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("last of the agent's log:\n%s", b[max(0, len(b)-8000):])
			}
		}
	})
	return a
}

// Socket is where the agent listens.
func (a *Agent) Socket() string { return filepath.Join(a.RunDir, "api.sock") }

// PID is the agent's process.
func (a *Agent) PID() int { return a.cmd.Process.Pid }

// Spawn starts the agent and does not wait for it.
func (a *Agent) Spawn() {
	a.T.Helper()
	a.cmd = exec.Command("cloudflash", append([]string{"serve", "--listen", "", "--socket", a.Socket(),
		"--state-dir", a.StateDir, "--run-dir", a.RunDir, "--cgroup-parent", a.Parent,
		"--overcommit-cpu", "100", "--overcommit-memory", "10", "--overcommit-storage", "1000"}, a.flags...)...)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		a.T.Fatal(err)
	}
}

// Start starts the agent and waits until it answers.
func (a *Agent) Start() {
	a.T.Helper()
	a.Spawn()
	a.Ready()
}

// Restart kills the agent and starts it again.
func (a *Agent) Restart() {
	a.T.Helper()
	a.Kill()
	a.Start()
}

// Kill ends the agent at once.
func (a *Agent) Kill() {
	if a.cmd != nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
		a.cmd = nil
	}
}

// End ends the agent as a service manager does, and returns how long that took.
func (a *Agent) End() time.Duration {
	a.T.Helper()
	began, ended := time.Now(), make(chan struct{})
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.T.Fatal(err)
	}
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(ended)
	}(a.cmd)

	select {
	case <-ended:
	case <-time.After(time.Minute):
		a.T.Error("a minute after SIGTERM the agent is still there")
		_ = a.cmd.Process.Kill()
		<-ended
	}
	a.cmd = nil
	return time.Since(began)
}

// Ready waits until the agent answers.
func (a *Agent) Ready() {
	a.T.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		_, err := Call[map[string]any](a, "GET", "/api/v1/host", nil)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			a.stuck()
			a.T.Fatalf("agent does not answer after two minutes: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stuck prints what the agent is doing.
func (a *Agent) stuck() {
	a.T.Helper()
	_ = a.cmd.Process.Signal(syscall.SIGQUIT)
	_ = a.cmd.Wait() // it writes its stacks and ends
	a.cmd = nil
	if b, err := os.ReadFile(a.log.Name()); err == nil {
		_, dump, _ := strings.Cut(string(b), "SIGQUIT")
		a.T.Logf("the agent:\n%s", dump)
	}
}

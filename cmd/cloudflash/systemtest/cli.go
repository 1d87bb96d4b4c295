package systemtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"cloudflash/agent"
)

// Command is a command line as a process that has not been started, to be given input.
func (a *Agent) Command(args ...string) *exec.Cmd {
	cmd := exec.Command("cloudflash", args...)
	cmd.Env = append(os.Environ(), "CLOUDFLASH_HOST=unix://"+a.Socket(), "TERM=xterm")
	return cmd
}

// Run runs one command line and returns what it printed and its exit code.
func (a *Agent) Run(args ...string) (stdout, stderr string, code int) {
	a.T.Helper()
	cmd := a.Command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		a.T.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// Out is Run for command lines that must succeed.
func (a *Agent) Out(args ...string) string {
	a.T.Helper()
	out, errOut, code := a.Run(args...)
	if code != 0 {
		a.T.Fatalf("cloudflash %s: exit code %d\n%s", strings.Join(args, " "), code, errOut)
	}
	return out
}

// JSON is Out for command lines that print JSON.
func JSON[T any](a *Agent, args ...string) T {
	a.T.Helper()
	var v T
	if err := json.Unmarshal([]byte(a.Out(args...)), &v); err != nil {
		a.T.Fatalf("cloudflash %s: %v", strings.Join(args, " "), err)
	}
	return v
}

// VM is a VM as the API shows it: on an emulated CPU a command line takes half a second.
func (a *Agent) VM(name string) agent.VM {
	a.T.Helper()
	return Must[agent.VM](a, "GET", "/api/v1/vms/"+url.PathEscape(name), nil)
}

// Cloudlet is a cloudlet as the API shows it.
func (a *Agent) Cloudlet(name string) agent.Cloudlet {
	a.T.Helper()
	return Must[agent.Cloudlet](a, "GET", "/api/v1/cloudlets/"+url.PathEscape(name), nil)
}

// Await waits until a cloudlet is in a state. One that has ended in another fails the test.
func (a *Agent) Await(name string, state agent.CloudletState) (c agent.Cloudlet) {
	a.T.Helper()
	Within(a.T, 10*time.Minute, "cloudlet "+name+" is "+string(state), func() bool {
		c = a.Cloudlet(name)
		if c.State != state && c.State.Final() {
			a.T.Fatalf("cloudlet %s is %s (%s), want %s", name, c.State, c.Reason, state)
		}
		return c.State == state
	})
	return c
}

// Cancel ends a cloudlet and returns when it has ended.
func (a *Agent) Cancel(name string) time.Time {
	a.T.Helper()
	path := "/api/v1/cloudlets/" + url.PathEscape(name)
	_, _ = Call[agent.Cloudlet](a, "DELETE", path, nil) // it may have ended
	c := Must[agent.Cloudlet](a, "GET", path+"?wait=50s", nil)
	if c.FinishedAt == nil {
		a.T.Fatalf("cloudlet %s is %s", name, c.State)
	}
	return *c.FinishedAt
}

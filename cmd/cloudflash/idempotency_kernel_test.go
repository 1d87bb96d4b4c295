package main

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloudflash/cmd/cloudflash/systemtest"
)

// TestSystemKilledCreateMakesOneVM: an agent that is killed while it creates a VM has
// made one when it is back, and who has asked for it is told so.
func TestSystemKilledCreateMakesOneVM(t *testing.T) {
	d := systemtest.Start(t)
	dirs := func() int { return len(systemtest.Dirs(t, filepath.Join(d.StateDir, "vms"))) }
	for i := range 5 {
		had := dirs()
		cmd, out, errOut := d.Command("vm", "create", fmt.Sprint("vm", i), "--cpus", "0.2", "--memory", "64MiB",
			"-o", "name"), &bytes.Buffer{}, &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = out, errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		systemtest.Until(t, "the VM is being created", func() bool { return dirs() > had })
		time.Sleep(time.Duration(i) * 30 * time.Millisecond) // so that it is killed at different points
		d.Restart()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("round %d: %v\n%s", i, err, errOut)
		}
		t.Logf("round %d: %s %s", i, strings.TrimSpace(out.String()), strings.TrimSpace(errOut.String()))

		names := strings.Fields(d.Out("vm", "list", "-o", "name"))
		if len(names) != i+1 || !strings.Contains(" "+strings.Join(names, " ")+" ", " "+strings.TrimSpace(out.String())+" ") {
			t.Fatalf("round %d: it was told of %q, and there are %q", i, out, names)
		}
	}
}

// TestSystemKilledSubmitMakesOneCloudlet: clients that submit while the agent is killed
// again and again get as many cloudlets as they ask for.
func TestSystemKilledSubmitMakesOneCloudlet(t *testing.T) {
	d := systemtest.Start(t)
	d.Out("vm", "create", "web", "--cpus", "1", "--memory", "256MiB")
	const clients, each = 3, 4
	done := make(chan error, clients)
	for c := range clients {
		go func() {
			for n := range each {
				cmd := d.Command("cloudlet", "submit", "--vm", "web", "--env", fmt.Sprintf("TAG=%d-%d", c, n), "-o", "name", "--", "true")
				var errOut bytes.Buffer
				cmd.Stderr = &errOut
				for {
					err := cmd.Run()
					if err == nil {
						break
					}
					if cmd.ProcessState.ExitCode() != 7 || strings.Contains(errOut.String(), "went away") {
						done <- fmt.Errorf("client %d: %w: %s", c, err, errOut.String())
						return
					}
					again := exec.Command(cmd.Path, cmd.Args[1:]...) // the agent was not there at all
					again.Env, again.Stderr = cmd.Env, &errOut
					cmd = again
					time.Sleep(100 * time.Millisecond)
				}
			}
			done <- nil
		}()
	}
	for left := clients; left > 0; {
		select {
		case err := <-done:
			if left--; err != nil {
				t.Error(err)
			}
		case <-time.After(700 * time.Millisecond):
			d.Restart()
		}
	}

	seen := map[string]int{}
	for _, c := range systemtest.JSON[[]struct {
		Env map[string]string `json:"env"`
	}](d, "cloudlet", "list", "-o", "json") {
		seen[c.Env["TAG"]]++
	}
	if len(seen) != clients*each {
		t.Errorf("%d of %d were submitted: %v", len(seen), clients*each, seen)
	}
	for tag, n := range seen {
		if n != 1 {
			t.Errorf("%s was submitted %d times", tag, n)
		}
	}
}

// TestSystemKilledCreateThatFailsLeavesNothing: an agent that is killed while it creates a
// VM that cannot be created says so when it is back, as if it had not been killed.
func TestSystemKilledCreateThatFailsLeavesNothing(t *testing.T) {
	d := systemtest.Start(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	dirs := func() int { return len(systemtest.Dirs(t, filepath.Join(d.StateDir, "vms"))) }
	cut := 0
	for i := range 4 {
		cmd, errOut := d.Command("vm", "create", "web", "--cpus", "0.2", "--memory", "64MiB",
			"--publish", fmt.Sprintf("127.0.0.1:%d:80", port)), &bytes.Buffer{}
		cmd.Stderr = errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		systemtest.Until(t, "the VM is being created", func() bool { return dirs() > 0 || len(ended) > 0 })
		time.Sleep(time.Duration(i) * 30 * time.Millisecond)
		d.Restart()
		err := <-ended
		if strings.Contains(errOut.String(), "went away") {
			cut++
		}
		t.Logf("round %d: %v: %s", i, err, strings.TrimSpace(errOut.String()))
		if err == nil || !strings.Contains(errOut.String(), fmt.Sprintf("port %d/tcp", port)) {
			t.Errorf("round %d: it is not told why: %v, %s", i, err, errOut)
		}
		systemtest.Until(t, "nothing is left", func() bool {
			return dirs() == 0 && len(strings.Fields(d.Out("vm", "list", "-o", "name"))) == 0
		})
	}
	if cut == 0 {
		t.Error("no create was cut off")
	}
}

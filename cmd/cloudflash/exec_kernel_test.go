package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloudflash/cmd/cloudflash/systemtest"

	"golang.org/x/sys/unix"
)

func TestSystemExecPipes(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--memory", "128MiB")
	cmd := s.Command("vm", "exec", "web", "--", "sh", "-c", "hostname >&2; sha256sum; exit 7")
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	cmd.Stdin = bytes.NewReader(big)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, _ := cmd.Output()
	sum := exec.Command("sha256sum")
	sum.Stdin = bytes.NewReader(big)
	want, err := sum.Output()
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != string(want) || errOut.String() != "web\n" || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%q %q %v", out, errOut.String(), cmd.ProcessState)
	}
	if _, msg, code := s.Run("vm", "exec", "web", "nonsense"); code != 127 || !strings.Contains(msg, "not found") {
		t.Errorf("%d %s", code, msg)
	}
	if _, msg, code := s.Run("vm", "exec", "web", "sh", "-c", "kill -TERM $$"); code != 143 {
		t.Errorf("%d %s", code, msg)
	}
	if _, msg, code := s.Run("vm", "exec", "web", "tail", "/dev/zero"); code != 137 || !strings.Contains(msg, "oom") {
		t.Errorf("%d %s", code, msg)
	}
	// A daemon that a command leaves behind goes with it, as with a cloudlet.
	s.Out("vm", "exec", "web", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo left")
	awaitEmpty(s, "web")
}

// Signals of a client without a terminal are those of its command, and who hangs up leaves it a grace.
func TestSystemExecSignals(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--memory", "128MiB")
	start := func(script string) (*exec.Cmd, *bufio.Reader) {
		cmd := s.Command("vm", "exec", "web", "--", "sh", "-c", script)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); line != "up\n" {
			t.Fatalf("%q, %v", line, err)
		}
		return cmd, lines
	}
	code := func(cmd *exec.Cmd) int {
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}

	for name, c := range map[string]struct {
		script, said string
		sig          unix.Signal
		code         int
	}{
		"caught":     {"trap 'echo got; exit 3' INT; echo up; while :; do sleep 0.1; done", "got\n", unix.SIGINT, 3},
		"not caught": {"echo up; exec sleep 1000", "", unix.SIGTERM, 143},
		"under a shell": {"trap : USR1; sh -c 'trap \"echo inner; exit\" USR1; echo up; while :; do sleep 0.1; done'; echo outer; exit 4",
			"inner\nouter\n", unix.SIGUSR1, 4},
		"an interrupt": {"echo up; exec sleep 1000", "", unix.SIGINT, 130},
	} {
		cmd, out := start(c.script)
		if err := cmd.Process.Signal(c.sig); err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(out)
		if got := code(cmd); got != c.code || string(said) != c.said {
			t.Errorf("%s: exit code %d, said %q", name, got, said)
		}
	}

	cmd, _ := start("trap '' INT; echo up; while :; do sleep 0.1; done")
	if err := errors.Join(cmd.Process.Signal(unix.SIGINT), cmd.Process.Signal(unix.SIGUSR2)); err != nil {
		t.Fatal(err)
	}
	_ = code(cmd)
	awaitEmpty(s, "web")

	cmd, _ = start(`sh -c "trap '' TERM; trap 'sleep 1; echo >/data/bye; exit' HUP; echo up; while :; do sleep 0.1; done"; :`)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = code(cmd)
	awaitEmpty(s, "web")
	s.Out("vm", "exec", "web", "--", "test", "-e", "/data/bye")
}

// awaitEmpty waits until a VM holds nothing but its init.
func awaitEmpty(s *systemtest.Agent, vm string) {
	s.T.Helper()
	dir := s.Slice(s.VM(vm), "")
	systemtest.Until(s.T, "nothing is left behind", func() bool {
		scopes, err := filepath.Glob(dir + "/cl-*")
		return err == nil && len(scopes) == 0
	})
}

// terminal is a pseudo-terminal that the command line believes a person sits at.
func terminal(t *testing.T) (person, tty *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetNonblock(fd, true)
	person = os.NewFile(uintptr(fd), "person")
	t.Cleanup(func() { _ = person.Close() })
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return person, tty
}

// expect reads from a terminal until text has come.
func expect(t *testing.T, f *os.File, texts ...string) {
	t.Helper()
	var all []byte
	_ = f.SetReadDeadline(time.Now().Add(30 * time.Second))
	missing := func(text string) bool { return !strings.Contains(string(all), text) }
	for buf := make([]byte, 4096); slices.ContainsFunc(texts, missing); {
		n, err := f.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil {
			t.Fatalf("%v: never saw %q, only %q", err, texts, all)
		}
	}
}

func TestSystemExecTerminal(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--memory", "128MiB")
	person, tty := terminal(t)
	size := func(rows, cols uint16) {
		if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			t.Fatal(err)
		}
	}
	size(33, 111)
	cmd := s.Command("vm", "exec", "web", "--", "sh", "-i")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		if _, err := person.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, person, "# ")
	say("tty; echo TERM=$TERM\r")
	expect(t, person, "/dev/pts/", "TERM=xterm") // of the VM's own devpts; both may come at once
	say("stty size\r")
	expect(t, person, "33 111")
	size(44, 122)
	_ = cmd.Process.Signal(unix.SIGWINCH) // no session here has this terminal, so the kernel does not tell
	for try := 0; ; try++ {
		say("stty size; echo sized-$((1+1))\r")
		if expectEither(t, person, "44 122", "sized-2") || try > 50 {
			break
		}
	}
	say("sh -c 'echo run-$((1+1)); exec sleep 1000'\r")
	expect(t, person, "run-2")
	say("\x03") // to the foreground job, by the VM's own terminal
	say("echo back-$((1+1))\r")
	expect(t, person, "back-2")
	say("exit 5\r")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("%v", err)
	}
	awaitEmpty(s, "web")
}

// expectEither reports whether the first of two texts came before the second did.
func expectEither(t *testing.T, f *os.File, a, b string) bool {
	t.Helper()
	var all []byte
	_ = f.SetReadDeadline(time.Now().Add(30 * time.Second))
	for buf := make([]byte, 4096); ; {
		n, err := f.Read(buf)
		all = append(all, buf[:n]...)
		switch text := string(all); {
		case strings.Contains(text, a):
			return true
		case strings.Contains(text, b):
			return false
		case err != nil:
			t.Fatalf("%v: %q", err, all)
		}
	}
}

// A command of exec ends with the client, with its VM and with the agent, and
// leaves nothing behind. Its VM is not idle meanwhile.
func TestSystemExecEnds(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--memory", "128MiB")
	begin := func() *exec.Cmd {
		t.Helper()
		cmd := s.Command("vm", "exec", "web", "--", "sh", "-c", "echo here; sleep 1000")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	cmd := begin()
	if v := s.VM("web"); v.IdleSince != nil {
		t.Error("idle while somebody is in it")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	awaitEmpty(s, "web")
	s.Out("vm", "wait", "web", "--for", "idle", "--timeout", "2m") // nobody is in it any more

	cmd = begin()
	s.Kill() // the agent
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() == 0 {
		t.Errorf("the agent died: %v", err)
	}
	s.Start()
	awaitEmpty(s, "web")

	cmd = begin()
	s.Out("vm", "delete", "web", "--grace", "0s")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() == 0 {
		t.Errorf("the VM was deleted: %v", err)
	}
}

// TestSystemExecHeldOutput ends though somebody else in the VM keeps the output of
// the command open, and writes to it.
func TestSystemExecHeldOutput(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--memory", "128MiB")
	for name, hold := range map[string]string{"silent": "sleep 1000", "loud": "yes >&9"} {
		cmd := s.Command("vm", "exec", "web", "--", "sh", "-c",
			"echo $$ >/data/pid; while [ ! -e /data/held ]; do sleep 0.1; done; echo end; exit 3")
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.Out("cloudlet", "submit", "--vm", "web", "--name", name, "--", "sh", "-c",
			"while [ ! -s /data/pid ]; do sleep 0.1; done; exec 9>/proc/$(cat /data/pid)/fd/1; touch /data/held; "+hold)
		late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		if !late.Stop() || cmd.ProcessState.ExitCode() != 3 || !strings.Contains(out.String(), "end\n") {
			t.Errorf("%s: %v, %d bytes", name, cmd.ProcessState, out.Len())
		}
		s.Run("cloudlet", "cancel", name) // the loud one has nobody left to write to, and has ended
		s.Out("vm", "exec", "web", "--", "rm", "/data/pid", "/data/held")
	}
}

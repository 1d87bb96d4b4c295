package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestMain is the program itself when asked to: signals and pipes are a
// process's.
func TestMain(m *testing.M) {
	if os.Getenv("CLOUDFLASH_TEST_MAIN") == "" {
		os.Exit(m.Run()) //nolint:forbidigo // a test's main
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, Process{Args: os.Args[1:], Env: os.Getenv, In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: "dev"})
	stop()
	os.Exit(code) //nolint:forbidigo // a test's main
}

// program is the command line as a process.
func (r *rig) program(args ...string) *exec.Cmd {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), "CLOUDFLASH_TEST_MAIN=1", "CLOUDFLASH_HOST="+r.unix)
	return c
}

func TestRunExitsWithTheCommandsCode(t *testing.T) {
	for name, c := range map[string]struct {
		end  agent.Cloudlet
		code int
		err  string
	}{
		"0":         {agent.Cloudlet{State: agent.CloudletSucceeded, ExitCode: ptr(0)}, 0, ""},
		"1":         {agent.Cloudlet{State: agent.CloudletFailed, ExitCode: ptr(1), Reason: "exit code 1"}, 1, ""},
		"9":         {agent.Cloudlet{State: agent.CloudletFailed, ExitCode: ptr(9), Reason: "exit code 9"}, 9, ""},
		"255":       {agent.Cloudlet{State: agent.CloudletFailed, ExitCode: ptr(255), Reason: "exit code 255"}, 255, "cloudlet job failed: exit code 255\n"},
		"not found": {agent.Cloudlet{State: agent.CloudletFailed, ExitCode: ptr(127), Reason: "command not found: nix"}, 127, "cloudlet job failed: command not found: nix\n"},
		"SIGKILL":   {agent.Cloudlet{State: agent.CloudletFailed, Signal: "SIGKILL", Reason: "oom"}, 137, "cloudlet job failed: oom\n"},
		"SIGSEGV":   {agent.Cloudlet{State: agent.CloudletFailed, Signal: "SIGSEGV", Reason: "killed by SIGSEGV"}, 139, "cloudlet job failed: killed by SIGSEGV\n"},
		"SIGTERM":   {agent.Cloudlet{State: agent.CloudletCancelled, Signal: "SIGTERM", Reason: "cancelled"}, 143, "cloudlet job cancelled: cancelled\n"},
		"deadline":  {agent.Cloudlet{State: agent.CloudletDeadlineExceeded, Signal: "SIGTERM", Reason: "killed at its deadline"}, ExitDeadline, "cloudlet job deadline_exceeded: killed at its deadline\n"},
		"late":      {agent.Cloudlet{State: agent.CloudletDeadlineExceeded, ExitCode: ptr(0), Reason: "finished after its deadline"}, ExitDeadline, "cloudlet job deadline_exceeded: finished after its deadline\n"},
		"lost":      {agent.Cloudlet{State: agent.CloudletLost, Reason: "the host was restarted"}, ExitFailure, "cloudlet job lost: the host was restarted\n"},
		"a real-time signal": {agent.Cloudlet{State: agent.CloudletFailed, Signal: "SIG34", Reason: "killed by SIG34"},
			162, "cloudlet job failed: killed by SIG34\n"},
		"unknown signal":         {agent.Cloudlet{State: agent.CloudletFailed, Signal: "SIGFOO", Reason: "\x1b[2J"}, ExitFailure, "cloudlet job failed: �[2J\n"},
		"cancelled in the queue": {agent.Cloudlet{State: agent.CloudletCancelled, Reason: "cancelled while queued"}, ExitFailure, "cloudlet job cancelled: cancelled while queued\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.agent.Says(t, "c7", "stdout", "out\n")
			r.agent.Says(t, "c7", "stderr", "err\n")
			w := r.start(t.Context(), nil, "cloudlet", "run", "--name", "job", "--", "cmd")
			w.out.await(t, "out\n")
			w.err.await(t, "err\n")
			r.agent.Says(t, "c7", "stdout", "last words\n")
			r.agent.Alter("c7", func(x *agent.Cloudlet) {
				x.State, x.ExitCode, x.Signal, x.Reason = c.end.State, c.end.ExitCode, c.end.Signal, c.end.Reason
			})
			if diff := cmp.Diff(result{"out\nlast words\n", "err\n" + c.err, c.code}, w.wait()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestRunOfAQueuedCloudlet has no output to follow until it starts.
func TestRunOfAQueuedCloudlet(t *testing.T) {
	r := newRig(t)
	r.agent.OnSubmit = func(c *agent.Cloudlet) { c.State, c.VM, c.Reason = agent.CloudletQueued, "", "no VM fits" }
	w := r.start(t.Context(), nil, "cloudlet", "run", "--name", "job", "--", "cmd")
	r.awaitRequest("GET /api/v1/cloudlets/c7/output?follow=true&stream=stdout")
	w.err.await(t, "cloudlet job is queued: no VM fits\n")
	r.agent.Says(t, "c7", "stdout", "hello\n")
	r.agent.Says(t, "c7", "stderr", "")
	r.agent.Alter("c7", func(c *agent.Cloudlet) { c.State, c.VM = agent.CloudletRunning, "v0" })
	w.out.await(t, "hello\n")
	r.agent.Alter("c7", func(c *agent.Cloudlet) { c.State, c.ExitCode = agent.CloudletSucceeded, ptr(0) })
	if diff := cmp.Diff(result{Out: "hello\n", Err: "cloudlet job is queued: no VM fits\n"}, w.wait()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// runJob starts `cloudlet run` as a process and waits until its output comes.
func runJob(t *testing.T, r *rig) (*exec.Cmd, *buffer, *buffer) {
	t.Helper()
	r.agent.Says(t, "c7", "stdout", "started\n")
	r.agent.Says(t, "c7", "stderr", "")
	p, out, errs := r.program("cloudlet", "run", "--name", "job", "--", "cmd"), newBuffer(), newBuffer()
	p.Stdout, p.Stderr = out, errs
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	out.await(t, "started\n")
	return p, out, errs
}

func signalTo(t *testing.T, p *exec.Cmd, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func TestInterruptCancels(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			r := newRig(t)
			r.agent.Change(func() {
				r.agent.OnCancel = func(c *agent.Cloudlet) {
					r.agent.Says(t, "c7", "stdout", "cleaning up\n")
					c.State, c.Signal, c.Reason = agent.CloudletCancelled, "SIGTERM", "cancelled"
				}
			})
			p, out, errs := runJob(t, r)
			signalTo(t, p, s)
			_ = p.Wait()
			got := result{out.String(), errs.String(), p.ProcessState.ExitCode()}
			want := result{"started\ncleaning up\n", "cancelling; interrupt again to leave it behind\ncloudlet job cancelled: cancelled\n", 128 + int(syscall.SIGTERM)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSecondInterruptLeavesItBehind(t *testing.T) {
	r := newRig(t)
	p, _, errs := runJob(t, r)
	signalTo(t, p, os.Interrupt)
	errs.await(t, "interrupt again")
	r.awaitRequest("DELETE /api/v1/cloudlets/c7")
	signalTo(t, p, os.Interrupt)
	_ = p.Wait()
	if code := p.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if c, err := r.agent.Cloudlet("c7"); err != nil || c.State != agent.CloudletRunning {
		t.Errorf("it is %s, %v", c.State, err)
	}
}

// TestSecondInterruptOfAHungAgent is the same when even the DELETE gets no answer.
func TestSecondInterruptOfAHungAgent(t *testing.T) {
	r := newRig(t)
	held := make(chan struct{})
	r.agent.Change(func() { r.agent.OnCancel = func(*agent.Cloudlet) { <-held } }) // with the agent's lock
	t.Cleanup(func() { close(held) })
	p, _, errs := runJob(t, r)
	signalTo(t, p, os.Interrupt)
	errs.await(t, "interrupt again")
	r.awaitRequest("DELETE /api/v1/cloudlets/c7")
	signalTo(t, p, os.Interrupt)
	done := make(chan struct{})
	go func() {
		_ = p.Wait()
		close(done)
	}()
	select {
	case <-done:
		if code := p.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exit code %d, want 130", code)
		}
	case <-time.After(10 * time.Second):
		t.Error("the second interrupt was lost")
	}
}

func TestInterruptEndsEverythingElse(t *testing.T) {
	for args, code := range map[string]int{"cloudlet logs -f next": 130, "cloudlet wait next": 130, "vm wait db": 130, "events -f": 0, "vm delete db": 130} {
		t.Run(args, func(t *testing.T) {
			r := withAll(t)
			r.agent.Has.Operations[0].State = agent.OperationRunning
			ctx, cancel := context.WithCancel(t.Context())
			w := r.start(ctx, nil, strings.Fields(args)...)
			r.awaitRequest(map[string]string{"cloudlet logs -f next": "GET /api/v1/cloudlets/next/output?follow=true&stream=stderr", "cloudlet wait next": "GET /api/v1/cloudlets/next?wait=30s",
				"vm wait db": "GET /api/v1/vms/db", "events -f": "GET /api/v1/events?since=0", "vm delete db": "GET /api/v1/operations/o0?wait=30s"}[args])
			if args == "events -f" {
				w.out.await(t, "oom\n")
			}
			cancel()
			if got := w.wait(); got.Code != code || got.Err != "" {
				t.Errorf("exit code %d, %q, want %d and nothing", got.Code, got.Err, code)
			}
		})
	}
}

func TestLogs(t *testing.T) {
	r := withAll(t)
	r.agent.Says(t, "c0", "stdout", "one\ntwo\n\x1b[31mred\n")
	r.agent.Says(t, "c0", "stderr", "oops\n")
	for args, want := range map[string]result{
		"cloudlet logs etl":                          {Out: "one\ntwo\n\x1b[31mred\n", Err: "oops\n"}, // byte for byte, as the command wrote it
		"cloudlet logs etl --stream stderr":          {Out: "oops\n"},
		"cloudlet logs etl --stream stdout":          {Out: "one\ntwo\n\x1b[31mred\n"},
		"cloudlet logs etl --tail 1":                 {Out: "\x1b[31mred\n", Err: "oops\n"},
		"cloudlet logs etl --tail 0":                 {},
		"cloudlet logs etl --follow":                 {Out: "one\ntwo\n\x1b[31mred\n", Err: "oops\n"},
		"cloudlet logs next":                         {Err: "error: cloudlet next has not started\n", Code: ExitConflict},
		"cloudlet logs next --stream stdout":         {Err: "error: cloudlet next has not started\n", Code: ExitConflict},
		"cloudlet logs etl --stream stdout --tail=2": {Out: "two\n\x1b[31mred\n"},
	} {
		if diff := cmp.Diff(want, r.run(strings.Fields(args)...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", args, diff)
		}
	}
}

func TestLogsFollow(t *testing.T) {
	r := withAll(t)
	r.agent.Has.Cloudlets[0].State = agent.CloudletRunning
	r.agent.Says(t, "c0", "stdout", "one\n")
	r.agent.Says(t, "c0", "stderr", "")
	w := r.start(t.Context(), nil, "cloudlet", "logs", "-f", "etl")
	w.out.await(t, "one\n")
	r.agent.Says(t, "c0", "stdout", "two\n")
	w.out.await(t, "two\n")
	r.agent.Says(t, "c0", "stderr", "oops\n")
	w.err.await(t, "oops\n")
	r.agent.Says(t, "c0", "stdout", "three, without an end")
	r.agent.Alter("c0", func(c *agent.Cloudlet) { c.State, c.ExitCode = agent.CloudletFailed, ptr(3) })
	if diff := cmp.Diff(result{"one\ntwo\nthree, without an end", "oops\n", 0}, w.wait()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFollowersGoOn: whose connection is cut goes on where it was, with every byte once.
func TestFollowersGoOn(t *testing.T) {
	r := withAll(t)
	r.agent.Has.Cloudlets[0].State = agent.CloudletRunning
	r.agent.Says(t, "c0", "stdout", "one\n")
	r.agent.Says(t, "c0", "stderr", "oops\n")
	logs := r.start(t.Context(), nil, "cloudlet", "logs", "-f", "--tail", "1", "etl")
	waits := r.start(t.Context(), nil, "cloudlet", "wait", "etl")
	r.awaitRequest("GET /api/v1/cloudlets/etl?wait=30s")
	for _, line := range []string{"two\n", "three\n"} {
		logs.out.await(t, "one\n")
		logs.err.await(t, "oops\n")
		r.cut()
		r.agent.Says(t, "c0", "stdout", line)
		logs.out.await(t, line)
	}
	r.agent.Alter("c0", func(c *agent.Cloudlet) { c.State, c.ExitCode = agent.CloudletSucceeded, ptr(0) })
	if diff := cmp.Diff(result{"one\ntwo\nthree\n", "oops\n", 0}, logs.wait()); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
	if got := waits.wait(); got.Code != 0 || got.Err != "" {
		t.Errorf("wait: %+v", got)
	}
}

// TestOutputThatIsNotWhole must not pass for whole.
func TestOutputThatIsNotWhole(t *testing.T) {
	r := withAll(t)
	r.agent.Says(t, "c0", "stdout", strings.Repeat("x", 8<<20))
	r.agent.Says(t, "c0", "stderr", "")
	file, err := os.OpenFile(r.agent.Path("c0", "stdout"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4<<20); err != nil {
		t.Fatal(err)
	}
	want := "error: stdout is not whole: 4194304 bytes were not kept, only the newest part of a long output is\n"
	if got := r.run("cloudlet", "logs", "etl"); got.Code != ExitFailure || len(got.Out) != 4<<20 || got.Err != want {
		t.Errorf("exit code %d, %d bytes, %q", got.Code, len(got.Out), got.Err)
	}
	if got := r.run("cloudlet", "logs", "--tail", "1", "etl"); got.Code != 0 || got.Err != "" {
		t.Errorf("who asks for the tail: exit code %d, %q", got.Code, got.Err)
	}
}

// TestEventsEndWithTheAgent must not take a cut for the end.
func TestEventsEndWithTheAgent(t *testing.T) {
	r := withAll(t)
	w := r.start(t.Context(), nil, "events", "-f")
	w.out.await(t, "oom\n")
	r.cut()
	if got := w.wait(); got.Code != ExitUnreachable || got.Err != "error: the agent has closed the stream\n" {
		t.Errorf("%+v", got)
	}
}

func TestEventsFollow(t *testing.T) {
	r := withAll(t)
	r.agent.Has.Events[1].Message = evil
	ctx, cancel := context.WithCancel(t.Context())
	table := r.start(ctx, nil, "events", "-f")
	lines := r.start(ctx, nil, "events", "-f", "-o", "jsonl", "--since", "1")
	table.out.await(t, "created\n")
	lines.out.await(t, `"seq":2`)
	r.agent.Change(func() {
		r.agent.Has.Events = append(r.agent.Has.Events, agent.Event{Seq: 3, At: r.agent.Has.Events[0].At, Level: "error",
			Kind: "x", Message: "third"})
	})
	table.out.await(t, "third\n")
	lines.out.await(t, "third")
	cancel()
	got := table.wait()
	if want := "03:04:05.006  info   VM db created\n03:04:06.000  warn   " + clean(evil) + "\n03:04:05.006  error  third\n"; got != (result{Out: want}) {
		t.Errorf("(-want +got):\n%s", cmp.Diff(result{Out: want}, got))
	}
	if got := lines.wait(); strings.Count(got.Out, "\n") != 2 || strings.ContainsRune(got.Out, 0x9b) || got.Code != 0 {
		t.Errorf("jsonl: %+v", got)
	}
}

func TestEventsThatAreGone(t *testing.T) {
	r := withAll(t)
	r.agent.Has.Oldest = 2
	r.agent.Has.Events = append(r.agent.Has.Events, agent.Event{Seq: 3, At: r.agent.Has.Events[0].At, Level: "info",
		Kind: "x", Message: "third"})
	if got := r.run("events", "--since", "1"); got.Code != ExitFailure || got.Err != "error: events up to 5 are gone\n" {
		t.Errorf("%+v", got)
	}
	srv := r.tcpHandler(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, ": hello\n\nevent: gap\ndata: {}\n\nid: 3\nevent: event\ndata: {\"seq\":3,\"at\":\"2026-01-02T03:04:05Z\",\"level\":\"info\",\"message\":\"third\"}\n\n")
	})
	got := r.over(srv, "", "events", "-f", "--since", "1")
	if strings.Count(got.Out, "\n") != 1 || !strings.HasSuffix(got.Out, "  info   third\n") || !strings.HasPrefix(got.Err, "some events are gone") {
		t.Errorf("%+v", got)
	}
}

// TestEventsOfManyPages: what the first page says of an event must not show up
// in the second.
func TestEventsOfManyPages(t *testing.T) {
	r := newRig(t)
	for i := range 1500 {
		e := agent.Event{Seq: uint64(i + 1), Level: "info", Kind: "k", Message: "m"}
		if i < 1000 {
			e.VM, e.Data = "v0", map[string]any{"n": strconv.Itoa(i)}
		}
		r.agent.Has.Events = append(r.agent.Has.Events, e)
	}
	lines := strings.Split(strings.TrimSpace(r.run("events", "-o", "jsonl").Out), "\n")
	if len(lines) != 1500 {
		t.Fatalf("%d events", len(lines))
	}
	for i, line := range lines {
		if strings.Contains(line, `"vm"`) != (i < 1000) || strings.Contains(line, `"n":"`+strconv.Itoa(i)+`"`) != (i < 1000) {
			t.Fatalf("event %d: %s", i+1, line)
		}
	}
}

// TestListsOfManyPages come whole and in order.
func TestListsOfManyPages(t *testing.T) {
	r := newRig(t)
	for i := range 2500 {
		r.agent.Has.VMs = append(r.agent.Has.VMs, agent.VM{ID: fmt.Sprint(i), Name: fmt.Sprintf("vm%04d", i)})
	}
	got := strings.Fields(r.run("vm", "list", "-o", "name").Out)
	if len(got) != 2500 || got[0] != "vm0000" || got[2499] != "vm2499" || len(r.requests()) != 3 {
		t.Errorf("%d names in %d requests", len(got), len(r.requests()))
	}
}

func TestBrokenPipeEndsQuietly(t *testing.T) {
	r := withAll(t)
	r.agent.Says(t, "c0", "stdout", strings.Repeat("a line of output\n", 1<<16))
	r.agent.Change(func() {
		for i := range 3000 {
			v := r.agent.Has.VMs[0]
			v.Name = fmt.Sprint("db", i)
			r.agent.Has.VMs = append(r.agent.Has.VMs, v)
			r.agent.Has.Events = append(r.agent.Has.Events, agent.Event{Seq: uint64(i + 3), Message: strings.Repeat("x", 100)})
		}
	})
	for _, args := range []string{"cloudlet logs etl", "vm list", "vm list -o json", "events -f", "events -o yaml", "api GET /api/v1/vms?limit=1000"} {
		t.Run(args, func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			p, errs := r.program(strings.Fields(args)...), newBuffer()
			p.Stdout, p.Stderr = write, errs
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			_ = write.Close()
			if _, err := read.Read(make([]byte, 10)); err != nil { // head -c 10
				t.Error(err)
			}
			_ = read.Close()
			_ = p.Wait()
			if s, ok := p.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != syscall.SIGPIPE || errs.String() != "" {
				t.Errorf("ended with %v and said %q", p.ProcessState, errs)
			}
		})
	}
}

// TestRunIntoAClosedPipe leaves the cloudlet alone, and says so.
func TestRunIntoAClosedPipe(t *testing.T) {
	r := newRig(t)
	r.agent.Says(t, "c7", "stdout", strings.Repeat("a line of output\n", 1<<16))
	r.agent.Says(t, "c7", "stderr", "")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, errs := r.program("cloudlet", "run", "--name", "job", "--", "cmd"), newBuffer()
	p.Stdout, p.Stderr = write, errs
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	if _, err := read.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	_ = read.Close()
	_ = p.Wait()
	want := "nobody reads the output any more; cloudlet job runs on, see cloudflash cloudlet logs -f job\n"
	if code := p.ProcessState.ExitCode(); code != 128+int(syscall.SIGPIPE) || errs.String() != want {
		t.Errorf("exit code %d, said %q", code, errs)
	}
	for _, asked := range r.requests() {
		if strings.HasPrefix(asked.Line, "DELETE") {
			t.Errorf("it was cancelled: %s", asked.Line)
		}
	}
}

// failing is an output that fails.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestOutputThatCannotBeWritten(t *testing.T) {
	r := withAll(t)
	r.agent.Says(t, "c0", "stdout", "one\n")
	r.agent.Says(t, "c7", "stdout", "one\n")
	r.agent.Says(t, "c7", "stderr", "")
	r.agent.OnSubmit = func(c *agent.Cloudlet) { c.State, c.ExitCode = agent.CloudletSucceeded, ptr(0) }
	for _, args := range []string{"vm list", "vm list -o name", "vm list -o csv", "vm show db", "host info", "vm list -o json", "vm list -o jsonl", "vm list -o yaml", "events -f", "events -f -o jsonl",
		"cloudlet logs etl --stream stdout", "cloudlet run ls", "vm exec db env",
		"version", "version --client", "login", "top --once", "api GET /api/v1/vms", "help", "completion zsh", "token create x"} {
		for _, c := range []struct {
			err  error
			want string
			code int
		}{{syscall.ENOSPC, "error: write the output: no space left on device\n", ExitFailure}, {syscall.EPIPE, "", 128 + int(syscall.SIGPIPE)}} {
			p, errs := process(strings.Fields(args), map[string]string{"CLOUDFLASH_HOST": r.unix}), newBuffer()
			p.Out, p.Err = failing{c.err}, errs
			code := Main(t.Context(), p)
			got := errs.String()
			if args == "login" {
				got = strings.Join(strings.SplitAfter(got, "\n")[1:], "")
			}
			if code != c.code || got != c.want {
				t.Errorf("%s to an output that fails with %v: exit code %d, %q", args, c.err, code, got)
			}
		}
	}
}

func TestNullIsNoTerminal(t *testing.T) {
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if isTerminal(f) || isTerminal(newBuffer()) {
		t.Error("top would never end")
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		t.Skip("no /dev/ptmx here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if !isTerminal(master) {
		t.Error("a terminal is none")
	}
}

// A request to make something, whose answer was lost, is made again with the same key;
// a second one has a key of its own.
func TestCreateIsAskedAgain(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex // guards keys and answers
	var keys []string
	var answers []func(w http.ResponseWriter)
	cut := func(w http.ResponseWriter) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = c.Close()
		}
	}
	half := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"id":"v1","na`)
	}
	refuse := func(status int, code string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"status":%d,"detail":"no","code":%q}`, status, code)
		}
	}
	recovering := refuse(http.StatusServiceUnavailable, "recovering")
	full := refuse(http.StatusInsufficientStorage, "insufficient_memory")
	fine := func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"id":"v1","name":"web","state":"running"}`) }
	host := r.tcpHandler(func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		keys = append(keys, q.Header.Get("Idempotency-Key"))
		do := answers[0]
		answers = answers[1:]
		mu.Unlock()
		do(w)
	})
	for what, test := range map[string]struct {
		answers []func(http.ResponseWriter)
		args    []string
		code    int
	}{
		"cut twice, then recovering":   {[]func(http.ResponseWriter){cut, cut, recovering, fine}, []string{"vm", "create", "web"}, 0},
		"half an answer":               {[]func(http.ResponseWriter){half, fine}, []string{"cloudlet", "submit", "--", "true"}, 0},
		"refused when it is back":      {[]func(http.ResponseWriter){cut, full}, []string{"vm", "create", "web"}, ExitCapacity},
		"answered":                     {[]func(http.ResponseWriter){fine}, []string{"vm", "create", "web"}, 0},
		"not now, and that is it":      {[]func(http.ResponseWriter){recovering}, []string{"vm", "create", "web"}, ExitFailure},
		"no creation is not asked for": {[]func(http.ResponseWriter){cut}, []string{"vm", "freeze", "web"}, ExitUnreachable},
	} {
		mu.Lock()
		keys, answers = nil, slices.Clone(test.answers)
		mu.Unlock()
		got := r.over(host, "", append(test.args, "-o", "name")...)
		mu.Lock()
		if got.Code != test.code || len(answers) != 0 {
			t.Errorf("%s: exit code %d, %d answers are left: %s", what, got.Code, len(answers), got.Err)
		}
		// A connection that was cut before the answer, net/http may replace without a word.
		if what == "half an answer" && !strings.Contains(got.Err, "the agent went away before it answered") {
			t.Errorf("%s: it says %q", what, got.Err)
		}
		if len(slices.Compact(keys)) != 1 || (keys[0] == "") != (test.args[1] == "freeze") {
			t.Errorf("%s: keys %q", what, keys)
		}
		mu.Unlock()
	}
}

// A request that never came to anybody is not made again: it would not get there later.
func TestWhatWasNotSentIsNotAskedAgain(t *testing.T) {
	r := newRig(t)
	host := r.tcpHandler(func(http.ResponseWriter, *http.Request) { t.Error("it came") })
	got := r.over(strings.Replace(host, "http://", "https://", 1), "", "vm", "create", "web")
	if got.Code != ExitUnreachable || strings.Contains(got.Err, "asking again") {
		t.Errorf("exit code %d: %s", got.Code, got.Err)
	}
}

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"cloudflash/agent"
)

// fakeAgent keeps everything in memory, below the real API. Where err is set,
// whatever can fail does.
type fakeAgent struct {
	dir   string
	began time.Time

	mu         sync.Mutex
	err        error
	vms        []agent.VM
	cloudlets  []agent.Cloudlet
	events     []agent.Event
	oldest     uint64 // events up to here are gone
	operations []agent.Operation
	tokens     []agent.Token
	checks     []agent.Check
	secrets    map[string]agent.Token
	scaling    scaling
	autoscale  agent.Autoscale // of VMs that are created
	updates    chan struct{}
	ready      chan struct{}
	taken      *agent.AppliedAdvice
	named      []string // resources of the last TakeAdvice
	// cancelled is called with the lock held when a cloudlet is cancelled.
	cancelled func(*agent.Cloudlet)
	// submitted says what becomes of a cloudlet that was just submitted.
	submitted func(*agent.Cloudlet)
}

func newFake(t testing.TB) *fakeAgent {
	f := &fakeAgent{dir: t.TempDir(), began: ago(5*time.Hour + 30*time.Minute), updates: make(chan struct{}), ready: make(chan struct{}), secrets: map[string]agent.Token{}}
	close(f.ready)
	return f
}

// change runs fn under the lock and tells the waiters.
func (f *fakeAgent) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	f.tell()
}

func (f *fakeAgent) tell() {
	close(f.updates)
	f.updates = make(chan struct{})
}

func missing(what, ref string) error {
	return &agent.Error{Kind: agent.ErrNotFound, Code: what + "_not_found", Detail: what + " \"" + ref + "\" not found",
		Hint: "cloudflash " + what + " list shows what there is"}
}

func (f *fakeAgent) CreateVM(_ context.Context, req agent.VMCreate) (agent.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return agent.VM{}, f.err
	}
	v := agent.VM{ID: "v7", Name: req.Name, State: agent.VMRunning, Spec: req.Spec, Image: req.Image, Labels: req.Labels, Autoscale: f.autoscale, CreatedAt: ago(50 * time.Hour)}
	f.vms = append(f.vms, v)
	return v, nil
}

func (f *fakeAgent) VMs() []agent.VM {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.vms)
}

func (f *fakeAgent) VM(ref string) (agent.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return agent.VM{}, f.err
	}
	for _, v := range f.vms {
		if v.ID == ref || v.Name == ref {
			return v, nil
		}
	}
	return agent.VM{}, missing("vm", ref)
}

func (f *fakeAgent) ChangeVM(_ context.Context, ref string, ch agent.VMChange) (agent.VM, error) {
	v, err := f.VM(ref)
	if ch.CPUs != nil {
		v.Spec.CPUs, v.Limits.CPUs = *ch.CPUs, ch.CPUs
	}
	if ch.IO != nil {
		v.Spec.IO, v.Limits.IO = *ch.IO, ch.IO
	}
	return v, err
}

func (f *fakeAgent) FreezeVM(_ context.Context, ref string) (agent.VM, error) {
	v, err := f.VM(ref)
	v.State = agent.VMFrozen
	return v, err
}

func (f *fakeAgent) ThawVM(_ context.Context, ref string) (agent.VM, error) { return f.VM(ref) }

func (f *fakeAgent) DeleteVM(_ context.Context, ref string, _ time.Duration) (agent.Operation, error) {
	if _, err := f.VM(ref); err != nil {
		return agent.Operation{}, err
	}
	return f.Operation("o0")
}

// Exec does what its arguments say: cat, exit N, kill SIGNAL, or fails.
func (f *fakeAgent) Exec(_ context.Context, ref string, req agent.ExecRequest) (agent.ExecResult, error) {
	if _, err := f.VM(ref); err != nil {
		return agent.ExecResult{}, err
	}
	var r agent.ExecResult
	code := 0
	switch req.Argv[0] {
	case "cat":
		_, _ = io.Copy(req.Stdout, req.Stdin)
		fmt.Fprint(req.Stderr, "done\n")
	case "env":
		fmt.Fprintln(req.Stdout, req.Env, req.WorkDir, req.Argv[1:], req.Terminal)
	case "exit":
		code, _ = strconv.Atoi(req.Argv[1])
	case "kill":
		return agent.ExecResult{Signal: req.Argv[1]}, nil
	default:
		code = 127
		r.Reason = "command not found: " + req.Argv[0]
	}
	r.ExitCode = &code
	return r, nil
}

func (f *fakeAgent) SubmitCloudlet(_ context.Context, req agent.CloudletSubmit) (agent.Cloudlet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return agent.Cloudlet{}, f.err
	}
	c := agent.Cloudlet{ID: "c7", Name: req.Name, VM: "v0", VMName: req.VM, State: agent.CloudletRunning, Argv: req.Argv, SLA: req.SLA,
		Env: req.Env, WorkDir: req.WorkDir, OnDeadline: req.OnDeadline, DeadlineSeconds: req.DeadlineSeconds}
	if f.submitted != nil {
		f.submitted(&c)
	}
	f.cloudlets = append(f.cloudlets, c)
	f.tell()
	return c, nil
}

func (f *fakeAgent) Cloudlets() []agent.Cloudlet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.cloudlets)
}

func (f *fakeAgent) Cloudlet(ref string) (agent.Cloudlet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return agent.Cloudlet{}, f.err
	}
	for _, c := range f.cloudlets {
		if c.ID == ref || c.Name == ref {
			return c, nil
		}
	}
	return agent.Cloudlet{}, missing("cloudlet", ref)
}

func (f *fakeAgent) CancelCloudlet(_ context.Context, ref string) (agent.Cloudlet, error) {
	c, err := f.Cloudlet(ref)
	if err != nil {
		return c, err
	}
	if c.State.Final() {
		return c, &agent.Error{Kind: agent.ErrConflict, Code: "already_finished", Detail: "cloudlet " + c.Name + " has ended"}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.cloudlets {
		if f.cloudlets[i].ID == c.ID && f.cancelled != nil {
			f.cancelled(&f.cloudlets[i])
		}
	}
	f.tell()
	return c, nil
}

func (f *fakeAgent) OpenOutput(ref, stream string) (*os.File, error) {
	c, err := f.Cloudlet(ref)
	if err != nil {
		return nil, err
	}
	if c.VM == "" {
		return nil, &agent.Error{Kind: agent.ErrConflict, Code: "not_started", Detail: "cloudlet " + c.Name + " has not started"}
	}
	return os.Open(f.path(c.ID, stream))
}

func (f *fakeAgent) path(id, stream string) string { return filepath.Join(f.dir, id+"."+stream) }

// says appends to the output of a cloudlet.
func (f *fakeAgent) says(t testing.TB, id, stream, text string) {
	t.Helper()
	file, err := os.OpenFile(f.path(id, stream), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = file.WriteString(text)
		_ = file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ends makes a cloudlet's end known.
func (f *fakeAgent) ends(id string, how func(*agent.Cloudlet)) {
	f.change(func() {
		for i := range f.cloudlets {
			if f.cloudlets[i].ID == id {
				how(&f.cloudlets[i])
			}
		}
	})
}

func (f *fakeAgent) VMHistory(string, time.Duration, []string) (agent.History, error) {
	return agent.History{}, f.err
}

func (f *fakeAgent) HostHistory(time.Duration, []string) (agent.History, error) {
	return agent.History{}, f.err
}

func (f *fakeAgent) Host() agent.Host {
	return agent.Host{Name: "box", Kernel: "6.12.1", OS: "Debian 13", Version: "1.2.3", AgentStartedAt: f.began, CPUs: 16, MemoryBytes: 32 << 30, StorageBytes: 100 << 30,
		Capacity: agent.Capacity{CPUs: 1600, MemoryBytes: 32 << 30, StorageBytes: 100 << 30}, Reserved: agent.Capacity{CPUs: 2.5, MemoryBytes: 1 << 30},
		Usage: agent.HostUsage{CPURatio: 0.25, Load1: 1.5, MemoryUsedBytes: 2 << 30, AgentMemoryBytes: 20 << 20}, VMs: 2,
		CloudletsByState: map[agent.CloudletState]int{agent.CloudletRunning: 1, agent.CloudletQueued: 2},
		CgroupParent:     "/sys/fs/cgroup/cloudflash", StateDir: "/var/lib/cloudflash"}
}

func (f *fakeAgent) HostChecks(ctx context.Context) []agent.Check { return f.Health(ctx) }
func (f *fakeAgent) Health(context.Context) []agent.Check         { return slices.Clone(f.checks) }
func (f *fakeAgent) Ready() <-chan struct{}                       { return f.ready }

func (f *fakeAgent) Events(since uint64, limit int) ([]agent.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if since > 0 && since < f.oldest {
		return nil, &agent.Error{Kind: agent.ErrExpired, Code: "history_gone", Detail: "events up to 5 are gone"}
	}
	var out []agent.Event
	for _, e := range f.events {
		if e.Seq > since && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, f.err
}

func (f *fakeAgent) Operations() []agent.Operation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.operations)
}

func (f *fakeAgent) Operation(id string) (agent.Operation, error) {
	for _, op := range f.Operations() {
		if op.ID == id {
			return op, nil
		}
	}
	return agent.Operation{}, missing("operation", id)
}

func (f *fakeAgent) Updates() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.updates
}

func (f *fakeAgent) Tokens() []agent.Token {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tokens)
}

func (f *fakeAgent) CreateToken(name, role string) (agent.Token, string, error) {
	if role != agent.RoleAdmin && role != agent.RoleViewer {
		return agent.Token{}, "", &agent.Error{Kind: agent.ErrInvalid, Code: "invalid_token", Detail: "role must be admin or viewer, not \"" + role + "\""}
	}
	return agent.Token{ID: "t7", Name: name, Role: role, Kind: "token", CreatedAt: ago(0)}, "s3cret", nil
}

func (f *fakeAgent) RevokeToken(ref string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.tokens)
	f.tokens = slices.DeleteFunc(f.tokens, func(t agent.Token) bool { return t.ID == ref || t.Name == ref })
	if len(f.tokens) == n {
		return missing("token", ref)
	}
	return nil
}

func (f *fakeAgent) Authenticate(secret string) (agent.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.secrets[secret]; ok {
		return t, nil
	}
	return agent.Token{}, &agent.Error{Kind: agent.ErrAuth, Code: "bad_token", Detail: "token is unknown, revoked or expired", Hint: "cloudflash token create"}
}

func (f *fakeAgent) NewSession(string) (string, time.Time, error) {
	return "", time.Time{}, missing("session", "")
}

// ago is a time so far back. Half a minute more keeps the hours and minutes of
// tables stable.
func ago(d time.Duration) time.Time { return time.Now().Add(-d - 30*time.Second).UTC() }

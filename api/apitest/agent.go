// Package apitest has an agent that tests of the API and of its clients talk to.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/output"
)

// Agent keeps everything in memory. What it holds and does is set before it is asked, or by Change.
type Agent struct {
	Began time.Time // when it was started, and when it looked at the memory
	Mu    sync.Mutex
	Err   error // where it is set, whatever can fail does
	Has   Has
	Got   Got

	OnLook      func(context.Context) // is told of every look at the mappings of a process
	HostIs      func() agent.Host     // what Host says
	OnSubmit    func(*agent.Cloudlet) // says what becomes of a cloudlet that was just submitted
	OnCancel    func(*agent.Cloudlet) // is called with the lock held when a cloudlet is cancelled
	ReadyWhen   chan struct{}         // closed unless a test says otherwise
	AutoscaleIs agent.Autoscale       // of VMs that are created

	Memory Memory
	Tokens Tokens

	dir     string
	updates chan struct{}
}

// Has is what there is.
type Has struct {
	VMs        []agent.VM
	Cloudlets  []agent.Cloudlet
	Events     []agent.Event
	Oldest     uint64 // events up to here are gone
	Operations []agent.Operation
	Tokens     []agent.Token
	Secrets    map[string]agent.Token
	Checks     []agent.Check
	Applied    *agent.AppliedAdvice
	Scaling    Scaling
}

// Got is what was asked last.
type Got struct {
	Create agent.VMCreate
	Change agent.VMChange
	Submit cloudlet.Submit
	Grace  time.Duration
	Advice []string // resources of TakeAdvice
	HungUp bool     // Exec was ended by its caller
}

// New is an agent that has nothing.
func New(t testing.TB) *Agent {
	a := &Agent{
		Began:     Ago(5*time.Hour + 30*time.Minute),
		ReadyWhen: make(chan struct{}),
		dir:       t.TempDir(),
		updates:   make(chan struct{}),
	}
	a.Memory, a.Tokens = Memory{a}, Tokens{a}
	close(a.ReadyWhen)
	return a
}

// Change runs fn under the lock and tells those who wait for changes.
func (f *Agent) Change(fn func()) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	fn()
	f.tell()
}

func (f *Agent) tell() {
	close(f.updates)
	f.updates = make(chan struct{})
}

func missing(what, ref string) error {
	return &fault.Error{
		Kind:   fault.ErrNotFound,
		Code:   what + "_not_found",
		Detail: what + " \"" + ref + "\" not found",
		Hint:   "cloudflash " + what + " list shows what there is",
	}
}

func (f *Agent) CreateVM(_ context.Context, req agent.VMCreate) (agent.VM, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Got.Create = req
	if f.Err != nil {
		return agent.VM{}, f.Err
	}
	v := agent.VM{
		ID:        "v7",
		Name:      req.Name,
		State:     agent.VMRunning,
		Spec:      req.Spec,
		Image:     req.Image,
		Labels:    orEmpty(req.Labels),
		Network:   agent.Network{Mode: agent.NetworkNAT},
		Autoscale: f.AutoscaleIs,
		CreatedAt: Ago(50 * time.Hour),
	}
	f.Has.VMs = append(f.Has.VMs, v)
	return v, nil
}

func (f *Agent) VMs() []agent.VM {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return slices.Clone(f.Has.VMs)
}

func (f *Agent) VM(ref string) (agent.VM, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if f.Err != nil {
		return agent.VM{}, f.Err
	}
	for _, v := range f.Has.VMs {
		if v.ID == ref || v.Name == ref {
			return v, nil
		}
	}
	return agent.VM{}, missing("vm", ref)
}

func (f *Agent) ChangeVM(_ context.Context, ref string, ch agent.VMChange) (agent.VM, error) {
	v, err := f.VM(ref)
	f.Mu.Lock()
	f.Got.Change = ch
	f.Mu.Unlock()
	if ch.CPUs != nil {
		v.Spec.CPUs, v.Limits.CPUs = *ch.CPUs, ch.CPUs
	}
	if ch.IO != nil {
		v.Spec.IO, v.Limits.IO = *ch.IO, ch.IO
	}
	return v, err
}

func (f *Agent) FreezeVM(_ context.Context, ref string) (agent.VM, error) {
	v, err := f.VM(ref)
	v.State = agent.VMFrozen
	return v, err
}

func (f *Agent) ThawVM(_ context.Context, ref string) (agent.VM, error) { return f.VM(ref) }

func (f *Agent) DeleteVM(_ context.Context, ref string, grace time.Duration) (agent.Operation, error) {
	if _, err := f.VM(ref); err != nil {
		return agent.Operation{}, err
	}
	f.Mu.Lock()
	f.Got.Grace = grace
	f.Mu.Unlock()
	return f.Operation("o0")
}

// Exec does what its arguments say: cat, tr (to capitals), env, exit N, kill SIGNAL, stuck (reads nothing), or fails.
func (f *Agent) Exec(ctx context.Context, ref string, req agent.ExecRequest) (agent.ExecResult, error) {
	if _, err := f.VM(ref); err != nil {
		return agent.ExecResult{}, err
	}
	var r agent.ExecResult
	code := 0
	switch req.Argv[0] {
	case "cat":
		_, _ = io.Copy(req.Stdout, req.Stdin)
		fmt.Fprint(req.Stderr, "done\n")
	case "tr":
		fmt.Fprint(req.Stderr, req.Argv)
		if req.Terminal {
			fmt.Fprint(req.Stdout, <-req.Sizes)
		}
		b, _ := io.ReadAll(req.Stdin)
		fmt.Fprint(req.Stdout, strings.ToUpper(string(b)))
		code = 3
	case "env":
		fmt.Fprintln(req.Stdout, req.Env, req.WorkDir, req.Argv[1:], req.Terminal)
	case "exit":
		code, _ = strconv.Atoi(req.Argv[1])
	case "signalled":
		fmt.Fprintln(req.Stdout, "up")
		select {
		case sig := <-req.Signals:
			return agent.ExecResult{Signal: cloudlet.SignalName(sig)}, nil
		case <-ctx.Done():
		}
	case "kill":
		return agent.ExecResult{Signal: req.Argv[1]}, nil
	case "stuck":
		fmt.Fprint(req.Stderr, req.Argv)
		<-ctx.Done()
	default:
		code = 127
		r.Reason = "command not found: " + req.Argv[0]
	}
	if ctx.Err() != nil {
		f.Mu.Lock()
		defer f.Mu.Unlock()
		f.Got.HungUp = true
		return agent.ExecResult{}, ctx.Err()
	}
	r.ExitCode = &code
	return r, nil
}

func (f *Agent) SubmitCloudlet(_ context.Context, req cloudlet.Submit) (agent.Cloudlet, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Got.Submit = req
	if f.Err != nil {
		return agent.Cloudlet{}, f.Err
	}
	c := agent.Cloudlet{
		ID:              "c7",
		Name:            req.Name,
		VM:              "v0",
		VMName:          req.VM,
		State:           agent.CloudletRunning,
		Argv:            req.Argv,
		SLA:             req.SLA,
		Env:             orEmpty(req.Env),
		WorkDir:         req.WorkDir,
		OnDeadline:      req.OnDeadline,
		DeadlineSeconds: req.DeadlineSeconds,
	}
	if f.OnSubmit != nil {
		f.OnSubmit(&c)
	}
	f.Has.Cloudlets = append(f.Has.Cloudlets, c)
	f.tell()
	return c, nil
}

func (f *Agent) Cloudlets() []agent.Cloudlet {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return slices.Clone(f.Has.Cloudlets)
}

func (f *Agent) Cloudlet(ref string) (agent.Cloudlet, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if f.Err != nil {
		return agent.Cloudlet{}, f.Err
	}
	for _, c := range f.Has.Cloudlets {
		if c.ID == ref || c.Name == ref {
			return c, nil
		}
	}
	return agent.Cloudlet{}, missing("cloudlet", ref)
}

func (f *Agent) CancelCloudlet(_ context.Context, ref string) (agent.Cloudlet, error) {
	c, err := f.Cloudlet(ref)
	if err != nil {
		return c, err
	}
	if c.State.Final() {
		return c, &fault.Error{Kind: fault.ErrConflict, Code: "already_finished", Detail: "cloudlet " + c.Name + " has ended"}
	}
	f.Mu.Lock()
	defer f.Mu.Unlock()
	for i := range f.Has.Cloudlets {
		if f.Has.Cloudlets[i].ID == c.ID && f.OnCancel != nil {
			f.OnCancel(&f.Has.Cloudlets[i])
		}
	}
	f.tell()
	return c, nil
}

func (f *Agent) OpenOutput(ref, stream string) (*output.Reader, error) {
	c, err := f.Cloudlet(ref)
	if err != nil {
		return nil, err
	}
	if c.VM == "" {
		return nil, &fault.Error{Kind: fault.ErrConflict, Code: "not_started", Detail: "cloudlet " + c.Name + " has not started"}
	}
	r, err := output.Dir(f.dir).Open(c.ID, stream)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &fault.Error{Kind: fault.ErrNotFound, Code: "no_output", Detail: "no " + stream}
	}
	return r, err
}

// Path is where the output of a cloudlet is.
func (f *Agent) Path(id, stream string) string { return filepath.Join(f.dir, id+"."+stream) }

// Says appends to the output of a cloudlet.
func (f *Agent) Says(t testing.TB, id, stream, text string) {
	t.Helper()
	file, err := os.OpenFile(f.Path(id, stream), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = file.WriteString(text)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Alter changes a cloudlet.
func (f *Agent) Alter(id string, how func(*agent.Cloudlet)) {
	f.Change(func() {
		for i := range f.Has.Cloudlets {
			if f.Has.Cloudlets[i].ID == id {
				how(&f.Has.Cloudlets[i])
			}
		}
	})
}

// VMHistory is three points in steps of a second, the second a gap.
func (f *Agent) VMHistory(ref string, span time.Duration, fields []string) (agent.History, error) {
	if _, err := f.VM(ref); err != nil {
		return agent.History{}, err
	}
	return f.history(span, fields, agent.VMHistoryFields())
}

func (f *Agent) HostHistory(span time.Duration, fields []string) (agent.History, error) {
	return f.history(span, fields, agent.HostHistoryFields())
}

func (f *Agent) history(span time.Duration, fields, known []string) (agent.History, error) {
	if fields == nil {
		fields = known
	}
	h := agent.History{Step: span / 300, Times: []int64{100, 101, 102}}
	for _, name := range fields {
		if !slices.Contains(known, name) {
			return h, &fault.Error{
				Kind:   fault.ErrInvalid,
				Code:   "invalid_history",
				Detail: "fields " + name + " is not one of " + strings.Join(known, ", "),
				Fields: []fault.Field{{Pointer: "?fields", Detail: "unknown"}},
			}
		}
		h.Series = append(h.Series, agent.HistorySeries{
			Name: name,
			Avg:  []float64{1, math.NaN(), 0.25},
			Min:  []float64{0.5, math.NaN(), 0},
			Max:  []float64{2, math.NaN(), 1e12},
		})
	}
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return h, f.Err
}

// Host is a usual one, unless HostIs says otherwise.
// orEmpty makes an object of what was not given, as the agent does.
func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func (f *Agent) Host() agent.Host {
	if f.HostIs != nil {
		return f.HostIs()
	}
	all := agent.Capacity{CPUs: 1600, MemoryBytes: 32 << 30, StorageBytes: 100 << 30}
	return agent.Host{
		Name:             "box",
		Kernel:           "6.12.1",
		OS:               "Debian 13",
		Version:          "1.2.3",
		AgentStartedAt:   f.Began,
		CPUs:             16,
		MemoryBytes:      all.MemoryBytes,
		StorageBytes:     all.StorageBytes,
		Capacity:         all,
		Reserved:         agent.Capacity{CPUs: 2.5, MemoryBytes: 1 << 30},
		Usage:            agent.HostUsage{CPURatio: 0.25, Load1: 1.5, MemoryUsedBytes: 2 << 30, AgentMemoryBytes: 20 << 20},
		VMs:              2,
		CloudletsByState: map[agent.CloudletState]int{agent.CloudletRunning: 1, agent.CloudletQueued: 2},
		CgroupParent:     "/sys/fs/cgroup/cloudflash",
		StateDir:         "/var/lib/cloudflash",
	}
}

func (f *Agent) HostChecks(ctx context.Context) []agent.Check { return f.Health(ctx) }
func (f *Agent) Health(context.Context) []agent.Check         { return slices.Clone(f.Has.Checks) }
func (f *Agent) Ready() <-chan struct{}                       { return f.ReadyWhen }

func (f *Agent) Events(since uint64, limit int) ([]agent.Event, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if since > 0 && since < f.Has.Oldest {
		return nil, &fault.Error{Kind: fault.ErrExpired, Code: "history_gone", Detail: "events up to 5 are gone"}
	}
	var out []agent.Event
	for _, e := range f.Has.Events {
		if e.Seq > since && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, f.Err
}

func (f *Agent) Operations() []agent.Operation {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return slices.Clone(f.Has.Operations)
}

func (f *Agent) Operation(id string) (agent.Operation, error) {
	for _, op := range f.Operations() {
		if op.ID == id {
			return op, nil
		}
	}
	return agent.Operation{}, missing("operation", id)
}

func (f *Agent) WatchCloudlet(string) <-chan struct{} { return f.Updates() }

func (f *Agent) Updates() <-chan struct{} {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return f.updates
}

// Ago is a time so far back. Half a minute more keeps the hours and minutes of
// tables stable.
func Ago(d time.Duration) time.Time { return time.Now().Add(-d - 30*time.Second).UTC() }

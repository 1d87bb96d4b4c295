package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"syscall"
	"time"

	"cloudflash/agent/guest"
	"cloudflash/agent/schedule"
	"cloudflash/agent/store"
	"cloudflash/cgroup"
)

// runQueue starts what is queued and ends what is due, whenever either may
// have changed.
func (a *Agent) runQueue(ctx context.Context) {
	for {
		next := a.enforceDeadlines(sinceBoot())
		a.startQueued()
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// startQueued asks the policy who goes where, and starts them.
func (a *Agent) startQueued() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serveQueue()
}

// serveQueue is startQueued for callers that hold a.mu.
func (a *Agent) serveQueue() {
	plan := a.policy.Plan(a.queue(), a.nodes())
	for _, p := range plan.Placements {
		a.place(a.cloudlets[p.Item], a.vms[p.VM])
	}
	for id, why := range plan.Waiting {
		a.cloudlets[id].Reason = why // shown, not stored: it is worked out anew
	}
}

func (a *Agent) queue() []schedule.Item {
	var items []schedule.Item
	for _, c := range a.cloudlets {
		if c.State != CloudletQueued {
			continue
		}
		it := schedule.Item{ID: c.ID, SLA: c.SLA, Submitted: c.SubmittedBoot, Deadline: schedule.NoDeadline,
			CPUs: c.Request.CPUs, MemoryBytes: c.Request.MemoryBytes, GPUs: c.Request.GPUs}
		if c.Pinned {
			it.VM = c.VM
		}
		if c.DeadlineAt != nil {
			it.Deadline = c.DeadlineBoot
		}
		items = append(items, it)
	}
	return items
}

// nodes are the running VMs by name, with what they have not promised.
func (a *Agent) nodes() []schedule.Node {
	free := map[string]*schedule.Node{}
	for _, v := range a.vms {
		if v.State == VMRunning && v.guest != nil {
			free[v.ID] = &schedule.Node{ID: v.ID, Name: v.Name, CPUs: v.Spec.CPUs, MemoryBytes: v.Spec.MemoryBytes, GPUs: len(v.GPUs)}
		}
	}
	for _, c := range a.cloudlets {
		if n := free[c.VM]; n != nil && c.holds() {
			n.CPUs -= c.Request.CPUs
			n.MemoryBytes -= c.Request.MemoryBytes
			n.GPUs -= c.Request.GPUs
		}
	}
	nodes := make([]schedule.Node, 0, len(free))
	for _, n := range free {
		nodes = append(nodes, *n)
	}
	slices.SortFunc(nodes, func(x, y schedule.Node) int {
		if x.Name < y.Name {
			return -1
		}
		return 1
	})
	return nodes
}

// place stores that a cloudlet starts in a VM, then starts it.
func (a *Agent) place(c *cloudlet, v *vm) {
	rec := c.cloudletRecord
	rec.State, rec.VM, rec.VMName, rec.Reason = CloudletStarting, v.ID, v.Name, ""
	if a.commit([]store.Change{putCloudlet(rec)}) != nil {
		return
	}
	c.cloudletRecord = rec
	v.idle.touch(time.Now(), "a cloudlet was started in it")
	a.spawn(func(ctx context.Context) { a.start(ctx, c, v) })
}

// start makes the scope of a cloudlet and its process. When the agent dies in
// it, recovery asks the init whether the process came to be.
func (a *Agent) start(ctx context.Context, c *cloudlet, v *vm) {
	a.mu.Lock()
	rec, g, base := c.cloudletRecord, v.guest, int(v.uidBase())
	a.mu.Unlock()
	scope := v.slice.Scope(scopeName(rec.ID))
	run, err := a.launch(ctx, rec, g, scope, base)
	if err != nil {
		if ctx.Err() == nil {
			a.startFailed(ctx, c, v, scope, err)
		}
		return
	}
	a.started(c, v, g, scope, run)
}

func (a *Agent) launch(ctx context.Context, rec cloudletRecord, g *guest.Guest, scope *cgroup.Scope, base int) (guest.Running, error) {
	if g == nil {
		return guest.Running{}, fmt.Errorf("reach the init: %w", guest.ErrGone)
	}
	if err := makeScope(scope, rec.SLA, base); err != nil {
		return guest.Running{}, err
	}
	out, err := a.outputs(rec.VM).Create(rec.ID, "stdout", base)
	if err != nil {
		return guest.Running{}, err
	}
	defer out.Close()
	errOut, err := a.outputs(rec.VM).Create(rec.ID, "stderr", base)
	if err != nil {
		return guest.Running{}, err
	}
	defer errOut.Close()
	return g.Start(ctx, guest.Process{ID: rec.ID, Argv: rec.argv(), Env: rec.environ(), WorkDir: rec.WorkDir,
		Scope: scope, Stdout: out, Stderr: errOut})
}

func makeScope(scope *cgroup.Scope, sla, base int) error {
	if err := scope.Create(); err != nil {
		return err
	}
	if err := scope.Chown(base, base); err != nil {
		return err
	}
	weight, group := slaWeight(sla), true
	return scope.Apply(cgroup.Limits{CPUWeight: &weight, OOMGroup: &group})
}

// slaWeight is the cpu.weight of a cloudlet among those of its VM.
func slaWeight(sla int) int64 { return []int64{SLALow: 50, SLAMedium: 100, SLAHigh: 200}[sla] }

// argv is the command, or the built-in burn at the size of the request.
func (r cloudletRecord) argv() []string {
	if len(r.Argv) > 0 {
		return r.Argv
	}
	return []string{"burn",
		"--cpus", strconv.FormatFloat(r.Request.CPUs, 'f', -1, 64),
		"--memory", strconv.FormatInt(r.Request.MemoryBytes*3/4, 10), // the rest is its own overhead
		"--seconds", strconv.FormatFloat(r.Duration, 'f', -1, 64)}
}

// environ is what the cloudlet gets: nothing of the host's.
func (r cloudletRecord) environ() []string {
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/cloudflash/bin",
		"HOME": "/data", "USER": "root", "LANG": "C.UTF-8",
		"CLOUDFLASH_CLOUDLET": r.ID, "CLOUDFLASH_VM": r.VM,
	}
	maps.Copy(env, r.Env)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

// started stores that a cloudlet runs: it has just begun, or a new agent has found
// it.
func (a *Agent) started(c *cloudlet, v *vm, g *guest.Guest, scope *cgroup.Scope, run guest.Running) {
	p, err := a.meter.Scope(c.ID, scope)
	if err != nil {
		a.log.Warn("meter cloudlet", "cloudlet", c.Name, "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.State.Final() { // it ended before this line
		p.Close()
		return
	}
	rec := c.cloudletRecord
	at := run.StartedAt.UTC()
	rec.State, rec.PID, rec.StartedAt, rec.Reason = CloudletRunning, run.PID, &at, ""
	if c.State == CloudletStarting {
		rec.StartedBoot = now().bootOf(at, rec.SubmittedBoot)
	}
	if v.State == VMFrozen {
		rec.State = CloudletFrozen
	}
	var news []Event
	if c.State == CloudletStarting { // not found again by a new agent
		news = []Event{{Level: LevelInfo, Kind: "cloudlet.started", VM: v.ID, Cloudlet: rec.ID,
			Message: fmt.Sprintf("cloudlet %s started in VM %s", rec.Name, v.Name)}}
	}
	if a.commit([]store.Change{putCloudlet(rec)}, news...) != nil {
		p.Close()
		return
	}
	if c.State == CloudletStarting {
		a.outcomes.began(rec)
	}
	c.unmeter() // it may have been known before
	c.cloudletRecord, c.probe = rec, p
	if rec.State == CloudletFrozen { // the VM was frozen while it started
		a.spawn(func(ctx context.Context) { _ = scope.Freeze(ctx) })
	}
	if rec.Stop != "" { // it was told to stop before there was anybody to tell
		a.spawn(func(ctx context.Context) { a.sendTERM(ctx, g, rec.ID) })
	}
	a.poke()
}

// startFailed ends a cloudlet that never ran, or queues it again when that is
// its VM's fault.
func (a *Agent) startFailed(ctx context.Context, c *cloudlet, v *vm, scope *cgroup.Scope, cause error) {
	if err := ignoreGone(scope.Kill(ctx)); err != nil {
		a.log.Warn("clear scope", "cloudlet", c.Name, "err", err)
	}
	if err := scope.Remove(ctx); err != nil {
		a.log.Warn("remove scope", "cloudlet", c.Name, "err", err)
	}
	var se *guest.StartError
	if errors.Is(cause, guest.ErrGone) && !errors.As(cause, &se) {
		return // initGone is on its way and decides
	}
	if a.isDeleting(v) {
		return // delete ends it with the VM
	}
	end := ending{code: 125, reason: "not started: " + cause.Error()}
	if errors.As(cause, &se) {
		end = startEnding(se)
	} else if errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT) {
		end.reason = "not started: the storage of VM " + v.Name + " is full, not even an output file fits: delete files with vm exec, or vm set --storage"
	}
	a.end(c, v, end, Usage{}, now())
}

func (a *Agent) isDeleting(v *vm) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return v.State == VMDeleting
}

// startEnding gives a command that cannot be executed the codes shells use.
func startEnding(e *guest.StartError) ending {
	if e.Stage == "workdir" {
		return ending{code: 126, reason: fmt.Sprintf("cannot enter the working directory %s: %v", quote(e.Path), e.Errno)}
	}
	if e.Stage == "clone" && e.Errno == syscall.EAGAIN {
		return ending{code: 125, reason: "the VM's pids limit leaves no room for it"}
	}
	if e.Stage != "exec" {
		return ending{code: 125, reason: e.Error()}
	}
	switch e.Errno {
	case syscall.ENOENT, syscall.ENOTDIR:
		return ending{code: 127, reason: fmt.Sprintf("command not found: %s", quote(e.Path))}
	case syscall.EACCES, syscall.ENOEXEC, syscall.EISDIR, syscall.EPERM, syscall.ELOOP:
		return ending{code: 126, reason: fmt.Sprintf("cannot execute %s: %v", quote(e.Path), e.Errno)}
	}
	return ending{code: 125, reason: e.Error()}
}

func ignoreGone(err error) error {
	if errors.Is(err, cgroup.ErrGone) {
		return nil
	}
	return err
}

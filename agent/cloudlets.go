package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"cloudflash/agent/output"
	"cloudflash/agent/store"
)

// What a cloudlet that asks for nothing is counted as.
const (
	defaultRequestCPUs   = 0.1
	defaultRequestMemory = 32 * mib
)

// defaultDuration is how long the built-in burn runs.
const defaultDuration = 60

// keepCloudlets is how many cloudlets that have ended are remembered.
const keepCloudlets = 10000

// SubmitCloudlet queues a command and returns at once.
func (a *Agent) SubmitCloudlet(_ context.Context, req CloudletSubmit) (Cloudlet, error) {
	req = req.withDefaults()
	if err := req.check(); err != nil {
		return Cloudlet{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	vmID, err := a.pin(req)
	if err != nil {
		return Cloudlet{}, err
	}
	rec := req.record(vmID, a.boot)
	if rec.Name == "" {
		rec.Name = "cl-" + rec.ID
	}
	if other := a.findCloudlet(rec.Name); other != nil && !other.State.Final() {
		return Cloudlet{}, refuse(ErrExists, "name_taken", "choose another name, or wait until it has ended", "a cloudlet named %s is %s (%s)", quote(rec.Name), other.State, other.ID)
	}
	forget := a.forgettable()
	changes := []store.Change{putCloudlet(rec)}
	for _, id := range forget {
		changes = append(changes, store.Delete(store.Cloudlets, id))
	}
	if err := a.commit(changes, Event{Level: LevelInfo, Kind: "cloudlet.queued", VM: vmID, Cloudlet: rec.ID,
		Message: fmt.Sprintf("cloudlet %s queued, SLA %d", rec.Name, rec.SLA)}); err != nil {
		return Cloudlet{}, err
	}
	for _, id := range forget {
		delete(a.cloudlets, id)
	}
	c := &cloudlet{cloudletRecord: rec}
	a.cloudlets[rec.ID] = c
	if v := a.vms[vmID]; v != nil {
		v.idle.touch(time.Now(), "a cloudlet waits for it")
	}
	a.poke()
	return a.viewCloudlet(c), nil
}

func (r CloudletSubmit) withDefaults() CloudletSubmit {
	r.SLA = cmp.Or(r.SLA, SLAMedium)
	r.OnDeadline = cmp.Or(r.OnDeadline, OnDeadlineKill)
	r.Request.CPUs = cmp.Or(r.Request.CPUs, defaultRequestCPUs)
	r.Request.MemoryBytes = cmp.Or(r.Request.MemoryBytes, defaultRequestMemory)
	r.DurationSeconds = cmp.Or(r.DurationSeconds, defaultDuration)
	return r
}

func (r CloudletSubmit) record(vmID, boot string) cloudletRecord {
	m := now()
	rec := cloudletRecord{
		Cloudlet: Cloudlet{
			ID: newID(), Name: r.Name, VM: vmID, Argv: r.Argv, Env: r.Env, WorkDir: r.WorkDir,
			State: CloudletQueued, SLA: r.SLA, DeadlineSeconds: r.DeadlineSeconds, OnDeadline: r.OnDeadline,
			Request: r.Request, CreatedAt: m.day,
		},
		Boot: boot, SubmittedBoot: m.boot,
		Pinned: vmID != "", Duration: r.DurationSeconds,
	}
	if r.DeadlineSeconds > 0 {
		rec.DeadlineBoot = m.boot + seconds(r.DeadlineSeconds)
		rec.DeadlineAt = new(m.day.Add(seconds(r.DeadlineSeconds)))
	}
	return rec
}

// pin resolves the VM a cloudlet asks for and refuses what it can never hold.
// The caller holds a.mu.
func (a *Agent) pin(req CloudletSubmit) (string, error) {
	if req.VM == "" || req.VM == "auto" {
		return "", nil
	}
	v := a.find(req.VM)
	if v == nil {
		return "", vmNotFound(req.VM)
	}
	if v.State == VMDeleting || v.State == VMFailed {
		return "", wrongState(v, "given cloudlets")
	}
	var fields []Field
	if req.Request.CPUs > v.Spec.CPUs {
		fields = append(fields, Field{Pointer: "/request/cpus", Max: v.Spec.CPUs, Detail: "is more than the VM has"})
	}
	if req.Request.MemoryBytes > v.Spec.MemoryBytes {
		fields = append(fields, Field{Pointer: "/request/memory_bytes", Max: v.Spec.MemoryBytes, Detail: "is more than the VM has"})
	}
	if req.Request.GPUs > len(v.GPUs) {
		fields = append(fields, Field{Pointer: "/request/gpus", Max: len(v.GPUs), Detail: "is more than the VM has"})
	}
	if len(fields) > 0 {
		return "", &Error{Kind: ErrCapacity, Code: "insufficient_vm", Fields: fields, Hint: "ask for less, or resize the VM",
			Detail: fmt.Sprintf("VM %s has %s; the cloudlet asks for %.3g cpus, %d MiB, %d GPUs", v.Name, v.Spec, req.Request.CPUs, req.Request.MemoryBytes>>20, req.Request.GPUs)}
	}
	return v.ID, nil
}

// forgettable names the oldest ended cloudlets beyond keepCloudlets.
func (a *Agent) forgettable() []string {
	if len(a.cloudlets) < keepCloudlets {
		return nil
	}
	var ended []*cloudlet
	for _, c := range a.cloudlets {
		if c.State.Final() {
			ended = append(ended, c)
		}
	}
	slices.SortFunc(ended, func(x, y *cloudlet) int { return x.CreatedAt.Compare(y.CreatedAt) })
	var ids []string
	for _, c := range ended[:min(len(ended), len(a.cloudlets)-keepCloudlets+1)] {
		ids = append(ids, c.ID)
	}
	return ids
}

// findCloudlet returns the cloudlet with that id, or the newest of that name.
func (a *Agent) findCloudlet(ref string) *cloudlet {
	if c, ok := a.cloudlets[ref]; ok {
		return c
	}
	var newest *cloudlet
	for _, c := range a.cloudlets {
		if c.Name == ref && (newest == nil || c.CreatedAt.After(newest.CreatedAt)) {
			newest = c
		}
	}
	return newest
}

func cloudletNotFound(ref string) error {
	return refuse(ErrNotFound, "cloudlet_not_found", "cloudflash cloudlet list shows what there is", "cloudlet %s not found", quote(ref))
}

// Cloudlet returns the cloudlet with that id, or the newest of that name.
func (a *Agent) Cloudlet(ref string) (Cloudlet, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.findCloudlet(ref)
	if c == nil {
		return Cloudlet{}, cloudletNotFound(ref)
	}
	return a.viewCloudlet(c), nil
}

// Cloudlets returns all that are remembered, newest first.
func (a *Agent) Cloudlets() []Cloudlet {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.viewCloudlets()
}

func (a *Agent) viewCloudlets() []Cloudlet {
	all := make([]Cloudlet, 0, len(a.cloudlets))
	for _, c := range a.cloudlets {
		all = append(all, a.viewCloudlet(c))
	}
	slices.SortFunc(all, func(x, y Cloudlet) int {
		return cmp.Or(y.CreatedAt.Compare(x.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	return all
}

func (a *Agent) viewCloudlet(c *cloudlet) Cloudlet {
	out := c.Cloudlet
	if v := a.vms[out.VM]; v != nil {
		out.VMName = v.Name
	}
	if out.DeadlineAt != nil && !out.State.Final() {
		out.DeadlineAt = new(now().dayOf(c.DeadlineBoot, *out.DeadlineAt))
	}
	return out
}

// CancelCloudlet ends a cloudlet: at once while it is queued, else by SIGTERM
// and, a grace later, cgroup.kill.
func (a *Agent) CancelCloudlet(_ context.Context, ref string) (Cloudlet, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.findCloudlet(ref)
	if c == nil {
		return Cloudlet{}, cloudletNotFound(ref)
	}
	if c.State.Final() {
		return Cloudlet{}, refuse(ErrConflict, "already_finished", "", "cloudlet %s has ended: %s", c.Name, c.State)
	}
	if err := a.stop(c, stopCancel); err != nil {
		return Cloudlet{}, err
	}
	return a.viewCloudlet(c), nil
}

// OpenOutput opens what a cloudlet has written to stdout or stderr. It grows
// while the cloudlet runs.
func (a *Agent) OpenOutput(ref, stream string) (*output.Reader, error) {
	if !slices.Contains(output.Streams, stream) {
		var f faults
		f.add("/stream", nil, nil, "must be stdout or stderr, not %s", quote(stream))
		return nil, f.err("invalid_stream")
	}
	c, err := a.Cloudlet(ref)
	if err != nil {
		return nil, err
	}
	if c.VM == "" {
		return nil, refuse(ErrConflict, "not_started", "", "cloudlet %s has no output yet: %s", c.Name, c.State)
	}
	r, err := a.outputs(c.VM).Open(c.ID, stream)
	if errors.Is(err, os.ErrNotExist) {
		return nil, refuse(ErrNotFound, "no_output", "output is kept as long as the VM", "cloudlet %s has no %s", c.Name, stream)
	}
	return r, err
}

// outputs is where the cloudlets of a VM write to.
func (a *Agent) outputs(vmID string) output.Dir {
	return output.Dir(filepath.Join(a.stateDir(vmID), "logs"))
}

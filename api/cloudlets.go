package api

import (
	"context"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/cloudlet"
)

type requestBody struct {
	CPUs         float64 `json:"cpus,omitempty"`
	MemoryBytes  int64   `json:"memory_bytes,omitempty"`
	StorageBytes int64   `json:"storage_bytes,omitempty"`
	BandwidthBPS int64   `json:"bandwidth_bps,omitempty"`
	GPUs         int     `json:"gpus,omitempty"`
}

// submitBody asks for a cloudlet.
type submitBody struct {
	Name            string            `json:"name,omitempty"`
	VM              string            `json:"vm,omitempty" doc:"Id or name; left out or auto, the scheduler chooses"`
	Argv            []string          `json:"argv,omitempty" doc:"The command; left out, the built-in burn runs at the size of the request"`
	Env             map[string]string `json:"env,omitempty"`
	WorkDir         string            `json:"workdir,omitempty" doc:"Inside the VM; /data when left out"`
	SLA             *int              `json:"sla,omitempty" doc:"1 low, 2 medium (default), 3 high"`
	DeadlineSeconds float64           `json:"deadline_seconds,omitempty" doc:"From now; 0 for none"`
	OnDeadline      string            `json:"on_deadline,omitempty" doc:"kill (default) or continue"`
	DurationSeconds *float64          `json:"duration_seconds,omitempty" doc:"Of the built-in burn"`
	Request         requestBody       `json:"request,omitempty" doc:"What it needs of its VM; decides placement"`
}

type cloudletOutput struct {
	Location string `header:"Location"`
	Body     agent.Cloudlet
}

func cloudletAnswer(c agent.Cloudlet) *cloudletOutput {
	return &cloudletOutput{Location: base + "/cloudlets/" + c.ID, Body: c}
}

type submitInput struct {
	Keyed
	Waiting
}

func (s *server) submitCloudlet(ctx context.Context, in *submitInput, b *submitBody) (*cloudletOutput, error) {
	wait, err := duration("wait", in.Wait, maxWait)
	if err != nil {
		return nil, err
	}
	if err := refuseZeroes(map[string]bool{"/sla": isZero(b.SLA), "/duration_seconds": isZero(b.DurationSeconds)}); err != nil {
		return nil, err
	}
	req := cloudlet.Submit{Key: in.Key, Name: b.Name, VM: b.VM, Argv: b.Argv, Env: b.Env, WorkDir: b.WorkDir,
		DeadlineSeconds: b.DeadlineSeconds, OnDeadline: b.OnDeadline, Request: agent.Request(b.Request)}
	take(&req.SLA, b.SLA)
	take(&req.DurationSeconds, b.DurationSeconds)
	c, err := s.parts.Cloudlets.SubmitCloudlet(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.endedCloudlet(ctx, c, wait)
}

type listCloudletsInput struct {
	Paging
	VM    string `query:"vm" doc:"Only those of the VM with that id or name"`
	State string `query:"state" enum:"queued,starting,running,frozen,succeeded,failed,cancelled,deadline_exceeded,lost"`
}

func (s *server) listCloudlets(_ context.Context, in *listCloudletsInput) (*listOutput[agent.Cloudlet], error) {
	if in.VM != "" {
		if _, err := s.parts.VMs.VM(in.VM); err != nil {
			return nil, err
		}
	}
	return cut(filter(s.parts.Cloudlets.Cloudlets(), func(c agent.Cloudlet) bool {
		return (in.VM == "" || c.VM == in.VM || c.VMName == in.VM) && (in.State == "" || string(c.State) == in.State)
	}), in.Paging, func(c agent.Cloudlet) cursor { return cursor{c.CreatedAt.UnixNano(), c.ID} })
}

type showCloudletInput struct {
	Target
	Waiting
}

func (s *server) showCloudlet(ctx context.Context, in *showCloudletInput) (*cloudletOutput, error) {
	wait, err := duration("wait", in.Wait, maxWait)
	if err != nil {
		return nil, err
	}
	c, err := s.parts.Cloudlets.Cloudlet(in.Ref)
	if err != nil {
		return nil, err
	}
	return s.endedCloudlet(ctx, c, wait)
}

// endedCloudlet answers with a cloudlet that has ended, or with what it is after the wait.
func (s *server) endedCloudlet(ctx context.Context, c agent.Cloudlet, wait time.Duration) (*cloudletOutput, error) {
	if wait == 0 || c.State.Final() {
		return cloudletAnswer(c), nil
	}

	id := c.ID // a name may be taken by a newer one while we wait
	watch := func() <-chan struct{} { return s.parts.Cloudlets.WatchCloudlet(id) }
	err := until(ctx, wait, watch, func() (_ bool, err error) {
		c, err = s.parts.Cloudlets.Cloudlet(id)
		return c.State.Final(), err
	})
	if err != nil {
		return nil, err
	}
	return cloudletAnswer(c), nil
}

func (s *server) cancelCloudlet(ctx context.Context, in *Target) (*cloudletOutput, error) {
	c, err := s.parts.Cloudlets.CancelCloudlet(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	return cloudletAnswer(c), nil
}

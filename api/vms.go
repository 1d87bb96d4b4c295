package api

import (
	"context"
	"time"

	"cloudflash/agent"
)

// ioBody is block IO limits in a request. What is left out stays, or has no limit.
type ioBody struct {
	ReadBPS   *int64 `json:"rbps,omitempty" doc:"Bytes read per second, 0 for no limit"`
	WriteBPS  *int64 `json:"wbps,omitempty" doc:"Bytes written per second, 0 for no limit"`
	ReadIOPS  *int64 `json:"riops,omitempty" doc:"Read operations per second, 0 for no limit"`
	WriteIOPS *int64 `json:"wiops,omitempty" doc:"Write operations per second, 0 for no limit"`
}

// over returns old with what the request names.
func (b *ioBody) over(old agent.IO) agent.IO {
	take(&old.ReadBPS, b.ReadBPS)
	take(&old.WriteBPS, b.WriteBPS)
	take(&old.ReadIOPS, b.ReadIOPS)
	take(&old.WriteIOPS, b.WriteIOPS)
	return old
}

// Resources are the fields that create and resize share. A field left out takes
// its default, or stays.
type Resources struct {
	CPUs         *float64 `json:"cpus,omitempty" doc:"Cores; 1 is one whole core"`
	MemoryBytes  *int64   `json:"memory_bytes,omitempty"`
	StorageBytes *int64   `json:"storage_bytes,omitempty"`
	BandwidthBPS *int64   `json:"bandwidth_bps,omitempty" doc:"Bits per second, each direction"`
	IO           *ioBody  `json:"io,omitempty"`
	PIDs         *int64   `json:"pids,omitempty" doc:"Most processes and threads"`
	Keep         *bool    `json:"keep,omitempty" doc:"The VM is not deleted when idle"`

	Autoscale *agent.PolicyLayer `json:"autoscale,omitempty" doc:"The VM's own policy of autoscaling, in place of what it had"`
}

// networkBody is whom a VM may talk to, in a request.
type networkBody struct {
	Mode    string       `json:"mode,omitempty" enum:"nat,isolated,bridge" doc:"nat: the outside only; isolated: loopback only; bridge: also the other VMs in this mode"`
	Publish []agent.Port `json:"publish,omitempty" doc:"Ports of the host that lead to the VM"`
}

// createVMBody asks for a VM.
type createVMBody struct {
	Name   string            `json:"name,omitempty" doc:"Host name of the VM; made up when left out" example:"web"`
	Image  string            `json:"image,omitempty" doc:"host, or the absolute path of a root file system: a directory or a tar archive, plain or gzipped"`
	Labels map[string]string `json:"labels,omitempty"`
	GPUs   int               `json:"gpus,omitempty" doc:"GPUs or MIG instances for this VM alone"`
	// Network cannot be changed later.
	Network *networkBody `json:"network,omitempty"`
	Resources
}

// Target names one thing in a path. It is exported for huma, as Paging is.
type Target struct {
	Ref string `path:"ref" maxLength:"128" doc:"Id or name"`
}

type vmOutput struct {
	Location string `header:"Location"`
	Body     agent.VM
}

func vmAnswer(v agent.VM, err error) (*vmOutput, error) {
	if err != nil {
		return nil, err
	}
	return &vmOutput{Location: base + "/vms/" + v.ID, Body: v}, nil
}

type listVMsInput struct {
	Paging
	State string `query:"state" enum:"creating,running,frozen,deleting,failed" doc:"Only VMs in that state"`
}

func (s *server) listVMs(_ context.Context, in *listVMsInput) (*listOutput[agent.VM], error) {
	return cut(filter(s.parts.VMs.VMs(), func(v agent.VM) bool {
		return in.State == "" || string(v.State) == in.State
	}), in.Paging, func(v agent.VM) cursor { return cursor{Key: v.Name} })
}

// Keyed is a request that may be made again without making more.
type Keyed struct {
	Key string `header:"Idempotency-Key" doc:"Made up by the client, 1 to 255 characters. The same request with the same key makes nothing more: it is answered with what it has made, as it is now. Keys are remembered for 24 hours, the last 10,000"`
}

func (s *server) createVM(ctx context.Context, in *Keyed, b *createVMBody) (*vmOutput, error) {
	req := agent.VMCreate{Key: in.Key, Name: b.Name, Image: b.Image, Labels: b.Labels, Spec: agent.Spec{GPUs: b.GPUs}}
	take(&req.Spec.CPUs, b.CPUs)
	take(&req.Spec.MemoryBytes, b.MemoryBytes)
	take(&req.Spec.StorageBytes, b.StorageBytes)
	take(&req.Spec.BandwidthBPS, b.BandwidthBPS)
	take(&req.Spec.PIDs, b.PIDs)
	take(&req.Keep, b.Keep)
	take(&req.Autoscale, b.Autoscale)
	if b.IO != nil {
		req.Spec.IO = b.IO.over(agent.IO{})
	}
	if b.Network != nil {
		req.Network = agent.Network{Mode: b.Network.Mode, Publish: b.Network.Publish}
	}
	if p := b.zeroes(); p != nil {
		return nil, p
	}
	v, err := s.parts.VMs.CreateVM(ctx, req)
	return vmAnswer(v, inVM(err))
}

func take[T any](field *T, v *T) {
	if v != nil {
		*field = *v
	}
}

func (s *server) showVM(_ context.Context, in *Target) (*vmOutput, error) {
	v, err := s.parts.VMs.VM(in.Ref)
	if err != nil {
		return nil, err
	}
	return vmAnswer(v, nil)
}

func (s *server) changeVM(ctx context.Context, in *Target, b *Resources) (*vmOutput, error) {
	ref := in.Ref
	ch := agent.VMChange{CPUs: b.CPUs, MemoryBytes: b.MemoryBytes, StorageBytes: b.StorageBytes, BandwidthBPS: b.BandwidthBPS, PIDs: b.PIDs,
		Autoscale: b.Autoscale, Keep: b.Keep}
	if b.IO != nil {
		old, err := s.parts.VMs.VM(ref)
		if err != nil {
			return nil, err
		}
		io := b.IO.over(old.Spec.IO)
		ch.IO, ref = &io, old.ID
	}
	v, err := s.parts.VMs.ChangeVM(ctx, ref, ch)
	return vmAnswer(v, inVM(err))
}

type deleteVMInput struct {
	Target
	Grace string `query:"grace" default:"5s" doc:"How long cloudlets get from SIGTERM to SIGKILL, such as 10s"`
}

type operationOutput struct {
	Location string `header:"Location"`
	Body     agent.Operation
}

func (s *server) deleteVM(ctx context.Context, in *deleteVMInput) (*operationOutput, error) {
	grace, err := duration("grace", in.Grace, time.Hour)
	if err != nil {
		return nil, err
	}
	op, err := s.parts.VMs.DeleteVM(ctx, in.Ref, grace)
	if err != nil {
		return nil, err
	}
	return &operationOutput{Location: base + "/operations/" + op.ID, Body: op}, nil
}

func (s *server) freezeVM(ctx context.Context, in *Target) (*vmOutput, error) {
	v, err := s.parts.VMs.FreezeVM(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	return vmAnswer(v, nil)
}

func (s *server) thawVM(ctx context.Context, in *Target) (*vmOutput, error) {
	v, err := s.parts.VMs.ThawVM(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	return vmAnswer(v, nil)
}

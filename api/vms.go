package api

import (
	"context"
	"time"

	"cloudflash/agent"
)

// ioBody is block IO limits in a request.
type ioBody struct {
	ReadBPS   int64 `json:"rbps,omitempty" doc:"Bytes read per second, 0 for no limit"`
	WriteBPS  int64 `json:"wbps,omitempty" doc:"Bytes written per second, 0 for no limit"`
	ReadIOPS  int64 `json:"riops,omitempty" doc:"Read operations per second, 0 for no limit"`
	WriteIOPS int64 `json:"wiops,omitempty" doc:"Write operations per second, 0 for no limit"`
}

// resources are the fields that create and resize share. A field left out takes
// its default, or stays.
type resources struct {
	CPUs         *float64 `json:"cpus,omitempty" doc:"Cores; 1 is one whole core"`
	MemoryBytes  *int64   `json:"memory_bytes,omitempty"`
	StorageBytes *int64   `json:"storage_bytes,omitempty"`
	BandwidthBPS *int64   `json:"bandwidth_bps,omitempty" doc:"Bits per second, each direction"`
	IO           *ioBody  `json:"io,omitempty"`
	PIDs         *int64   `json:"pids,omitempty" doc:"Most processes and threads"`
}

type createVMInput struct {
	Body struct {
		Name   string            `json:"name,omitempty" doc:"Host name of the VM; made up when left out" example:"web"`
		Image  string            `json:"image,omitempty" doc:"host, or the absolute path of a root file system"`
		Labels map[string]string `json:"labels,omitempty"`
		GPUs   int               `json:"gpus,omitempty"`
		resources
	}
}

type refInput struct {
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
	page
	State string `query:"state" enum:"creating,running,frozen,deleting,failed" doc:"Only VMs in that state"`
}

func (s *server) listVMs(_ context.Context, in *listVMsInput) (*listOutput[agent.VM], error) {
	return cut(filter(s.agent.VMs(), func(v agent.VM) bool {
		return in.State == "" || string(v.State) == in.State
	}), in.page)
}

func (s *server) createVM(ctx context.Context, in *createVMInput) (*vmOutput, error) {
	b := in.Body
	req := agent.VMCreate{Name: b.Name, Image: b.Image, Labels: b.Labels, Spec: agent.Spec{GPUs: b.GPUs}}
	take(&req.Spec.CPUs, b.CPUs)
	take(&req.Spec.MemoryBytes, b.MemoryBytes)
	take(&req.Spec.StorageBytes, b.StorageBytes)
	take(&req.Spec.BandwidthBPS, b.BandwidthBPS)
	take(&req.Spec.PIDs, b.PIDs)
	if b.IO != nil {
		req.Spec.IO = agent.IO(*b.IO)
	}
	if p := b.zeroes(); p != nil {
		return nil, p
	}
	v, err := s.agent.CreateVM(ctx, req)
	if err != nil {
		return nil, s.fail(err)
	}
	return vmAnswer(v, nil)
}

func take[T any](field *T, v *T) {
	if v != nil {
		*field = *v
	}
}

func (s *server) showVM(_ context.Context, in *refInput) (*vmOutput, error) {
	v, err := s.agent.VM(in.Ref)
	if err != nil {
		return nil, s.fail(err)
	}
	return vmAnswer(v, nil)
}

type changeVMInput struct {
	refInput
	Body resources
}

func (s *server) changeVM(ctx context.Context, in *changeVMInput) (*vmOutput, error) {
	b := in.Body
	ch := agent.VMChange{CPUs: b.CPUs, MemoryBytes: b.MemoryBytes, StorageBytes: b.StorageBytes, BandwidthBPS: b.BandwidthBPS, PIDs: b.PIDs}
	if b.IO != nil {
		io := agent.IO(*b.IO)
		ch.IO = &io
	}
	v, err := s.agent.ChangeVM(ctx, in.Ref, ch)
	if err != nil {
		return nil, s.fail(err)
	}
	return vmAnswer(v, nil)
}

type deleteVMInput struct {
	refInput
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
	op, err := s.agent.DeleteVM(ctx, in.Ref, grace)
	if err != nil {
		return nil, s.fail(err)
	}
	return &operationOutput{Location: base + "/operations/" + op.ID, Body: op}, nil
}

func (s *server) freezeVM(ctx context.Context, in *refInput) (*vmOutput, error) {
	v, err := s.agent.FreezeVM(ctx, in.Ref)
	if err != nil {
		return nil, s.fail(err)
	}
	return vmAnswer(v, nil)
}

func (s *server) thawVM(ctx context.Context, in *refInput) (*vmOutput, error) {
	v, err := s.agent.ThawVM(ctx, in.Ref)
	if err != nil {
		return nil, s.fail(err)
	}
	return vmAnswer(v, nil)
}

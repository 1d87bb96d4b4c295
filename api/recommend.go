package api

import (
	"context"

	"cloudflash/agent/advice"
)

func (s *server) listAdvice(_ context.Context, in *Paging) (*listOutput[advice.Advice], error) {
	all, err := s.parts.Advice.Advice("")
	if err != nil {
		return nil, err
	}
	return cut(all, *in, func(v advice.Advice) cursor { return cursor{Key: v.VMName} })
}

// AdviceTarget names a VM or the host in a path.
type AdviceTarget struct {
	Ref string `path:"ref" maxLength:"128" doc:"Id or name of a VM, or host"`
}

type adviceOutput struct{ Body advice.Advice }

func (s *server) showAdvice(_ context.Context, in *AdviceTarget) (*adviceOutput, error) {
	all, err := s.parts.Advice.Advice(in.Ref)
	if err != nil {
		return nil, err
	}
	return &adviceOutput{Body: all[0]}, nil
}

// takeAdviceBody says which advice to take.
type takeAdviceBody struct {
	Resources []string `json:"resources,omitempty" doc:"Such as cpus or memory_bytes, taken however little is known; all that are worth it when left out" example:"[\"cpus\"]"`
}

func (s *server) takeAdvice(ctx context.Context, in *Target, b *takeAdviceBody) (*vmOutput, error) {
	v, err := s.parts.Advice.TakeAdvice(ctx, in.Ref, b.Resources)
	if err != nil {
		return nil, err
	}
	return vmAnswer(v, nil)
}

func (s *server) undoAdvice(ctx context.Context, in *Target) (*vmOutput, error) {
	v, err := s.parts.Advice.UndoAdvice(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	return vmAnswer(v, nil)
}

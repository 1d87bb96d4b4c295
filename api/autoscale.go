package api

import (
	"context"
	"errors"
	"slices"
	"strings"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/scaling"
	"cloudflash/api/problem"

	"github.com/danielgtaylor/huma/v2"
)

// PolicyOf chooses a policy. It is exported for huma, as Paging is.
type PolicyOf struct {
	VM string `query:"vm" maxLength:"128" doc:"Id or name; the host's policy when left out"`
}

type policyOutput struct {
	ETag string `header:"ETag"`
	Body policy.Policy
}

func policyAnswer(p policy.Policy, err error) (*policyOutput, error) {
	if err != nil {
		return nil, err
	}
	return &policyOutput{ETag: `"` + p.Version + `"`, Body: p}, nil
}

func (s *server) showPolicy(_ context.Context, in *PolicyOf) (*policyOutput, error) {
	return policyAnswer(s.parts.Scaling.Policy(in.VM))
}

type setPolicyInput struct {
	PolicyOf
	IfMatch string `header:"If-Match" doc:"The ETag that was read: 412 when somebody has set the policy since"`
}

func (s *server) setPolicy(ctx context.Context, in *setPolicyInput, b *agent.PolicyLayer) (*policyOutput, error) {
	version, err := s.wantedVersion(in)
	if err != nil {
		return nil, err
	}
	return policyAnswer(s.parts.Scaling.SetPolicy(ctx, in.VM, *b, version))
}

// wantedVersion reads If-Match (RFC 9110, 13.1.1): empty when any will do. Of
// several it takes the one that is there now; the agent compares once more.
func (s *server) wantedVersion(in *setPolicyInput) (string, error) {
	header := strings.TrimSpace(in.IfMatch)
	if header == "" || header == "*" {
		return "", nil
	}
	var versions []string
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if version := strings.Trim(tag, `"`); version != "" && tag == `"`+version+`"` {
			versions = append(versions, version)
		} else if strings.HasPrefix(tag, `W/"`) {
			versions = append(versions, tag) // a weak one is no version's
		} else {
			return "", refuseFields("invalid", []problem.Field{{Pointer: "If-Match", Detail: `must be the ETag of an answer, such as "7", or *`}})
		}
	}
	if len(versions) == 1 {
		return versions[0], nil
	}
	now, err := s.parts.Scaling.Policy(in.VM)
	if slices.Contains(versions, now.Version) {
		return now.Version, err
	}
	return versions[0], err
}

// inVM points to where a policy is in the body of a VM.
func inVM(err error) error {
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != "invalid_policy" {
		return err
	}
	moved := *e
	moved.Fields = slices.Clone(e.Fields)
	for i := range moved.Fields {
		moved.Fields[i].Pointer = "/autoscale" + moved.Fields[i].Pointer
	}
	return &moved
}

type scalingInput struct {
	VM string `query:"vm" maxLength:"128" doc:"Id or name: only that VM"`
}

type scalingOutput struct{ Body agent.ScalingStatus }

func (s *server) showScaling(_ context.Context, in *scalingInput) (*scalingOutput, error) {
	status := s.parts.Scaling.ScalingStatus()
	if in.VM != "" {
		v, err := s.parts.VMs.VM(in.VM)
		if err != nil {
			return nil, err
		}
		status.VMs = filter(status.VMs, func(x scaling.VMScaling) bool { return x.VM == v.ID })
	}
	status.VMs = append([]scaling.VMScaling{}, status.VMs...) // a list, if an empty one
	return &scalingOutput{Body: status}, nil
}

type decisionsInput struct {
	VM string `query:"vm" maxLength:"128" doc:"Id or name: only decisions about that VM, which may be gone"`
	Seqs
}

// listDecisions answers with decisions as they are now: one may be told before a
// second has shown what it did.
func (s *server) listDecisions(_ context.Context, in *decisionsInput) (*huma.StreamResponse, error) {
	f := plainFeed("decision", func(d agent.Decision) uint64 { return d.Seq }, s.parts.Scaling.Decisions)
	if in.VM == "" {
		return answerFeed(s, f, in.Seqs)
	}
	v, err := s.parts.VMs.VM(in.VM)
	if err == nil {
		return answerFeed(s, f.only(func(d agent.Decision) bool { return d.VM == v.ID }), in.Seqs)
	}
	f = f.only(func(d agent.Decision) bool { return d.VM == in.VM || d.VMName == in.VM })
	if kept, _, _, _ := f.read(0, 1); len(kept) == 0 {
		return nil, err // there never was one, as far as anybody remembers
	}
	return answerFeed(s, f, in.Seqs)
}

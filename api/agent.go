package api

import (
	"context"
	"net/http"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/output"
)

// Agent is what the API needs of the agent, resource by resource.
type Agent interface {
	vmAgent
	cloudletAgent
	hostAgent
	historyAgent
	tokenAgent
	memoryAgent
	adviceAgent
	scalingAgent
}

type vmAgent interface {
	CreateVM(context.Context, agent.VMCreate) (agent.VM, error)
	VMs() []agent.VM
	VM(ref string) (agent.VM, error)
	ChangeVM(ctx context.Context, ref string, ch agent.VMChange) (agent.VM, error)
	FreezeVM(ctx context.Context, ref string) (agent.VM, error)
	ThawVM(ctx context.Context, ref string) (agent.VM, error)
	DeleteVM(ctx context.Context, ref string, grace time.Duration) (agent.Operation, error)
	Exec(ctx context.Context, ref string, req agent.ExecRequest) (agent.ExecResult, error)
}

type cloudletAgent interface {
	SubmitCloudlet(context.Context, agent.CloudletSubmit) (agent.Cloudlet, error)
	Cloudlets() []agent.Cloudlet
	Cloudlet(ref string) (agent.Cloudlet, error)
	CancelCloudlet(ctx context.Context, ref string) (agent.Cloudlet, error)
	OpenOutput(ref, stream string) (*output.Reader, error)
}

type hostAgent interface {
	Host() agent.Host
	Health(context.Context) []agent.Check
	HostChecks(context.Context) []agent.Check
	Ready() <-chan struct{}
	Events(since uint64, limit int) ([]agent.Event, error)
	Operations() []agent.Operation
	Operation(id string) (agent.Operation, error)
	Updates() <-chan struct{}
}

type memoryAgent interface {
	Memory() (agent.Memory, error)
	MemoryMap(from, span int64, cells int, owner string) (agent.MemoryMap, error)
	MemoryOwners() ([]agent.MemoryOwner, time.Time, error)
	MemoryProcesses(ref string) ([]agent.MemoryProcess, error)
	MemoryMappings(ctx context.Context, ref string, pid int) (agent.MemoryProcess, error)
	ScanMemory() (agent.Operation, error)
	CancelMemoryScan() error
}

type adviceAgent interface {
	Advice(ref string) ([]agent.Advice, error)
	TakeAdvice(ctx context.Context, ref string, resources []string) (agent.VM, error)
	UndoAdvice(ctx context.Context, ref string) (agent.VM, error)
}

type scalingAgent interface {
	Policy(ref string) (agent.Policy, error)
	SetPolicy(ctx context.Context, ref string, own agent.PolicyLayer, version string) (agent.Policy, error)
	ScalingStatus() agent.ScalingStatus
	Decisions(since uint64, limit int) ([]agent.Decision, error)
}

type tokenAgent interface {
	Tokens() []agent.Token
	CreateToken(name, role string) (agent.Token, string, error)
	RevokeToken(ref string) error
}

// Login makes and redeems one-time codes.
type Login interface {
	NewCode(role string) (code string, expires time.Time)
	Redeem(code string) (*http.Cookie, error)
	Forget(secret string) error // ends a session
}

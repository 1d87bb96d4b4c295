package api

import (
	"context"
	"net/http"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/advice"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/output"
	"cloudflash/agent/pages"
	"cloudflash/agent/policy"
)

// Parts is what the API serves, each resource by who has it.
type Parts struct {
	VMs       VMs
	Cloudlets Cloudlets
	Host      Host
	History   History
	Memory    Memory
	Advice    Advice
	Scaling   Scaling
	Tokens    Tokens
}

// VMs is what the API needs of who has the VMs.
type VMs interface {
	CreateVM(context.Context, agent.VMCreate) (agent.VM, error)
	VMs() []agent.VM
	VM(ref string) (agent.VM, error)
	ChangeVM(ctx context.Context, ref string, ch agent.VMChange) (agent.VM, error)
	FreezeVM(ctx context.Context, ref string) (agent.VM, error)
	ThawVM(ctx context.Context, ref string) (agent.VM, error)
	DeleteVM(ctx context.Context, ref string, grace time.Duration) (agent.Operation, error)
	Exec(ctx context.Context, ref string, req agent.ExecRequest) (agent.ExecResult, error)
}

// Cloudlets has the cloudlets.
type Cloudlets interface {
	SubmitCloudlet(context.Context, cloudlet.Submit) (agent.Cloudlet, error)
	Cloudlets() []agent.Cloudlet
	Cloudlet(ref string) (agent.Cloudlet, error)
	WatchCloudlet(id string) <-chan struct{} // closed at its next change
	CancelCloudlet(ctx context.Context, ref string) (agent.Cloudlet, error)
	OpenOutput(ref, stream string) (*output.Reader, error)
}

// Host tells of this machine, the agent and what goes on.
type Host interface {
	Host() agent.Host
	Health(context.Context) []agent.Check
	HostChecks(context.Context) []agent.Check
	Ready() <-chan struct{}
	Events(since uint64, limit int) ([]agent.Event, error)
	Operations() []agent.Operation
	Operation(id string) (agent.Operation, error)
	Updates() <-chan struct{}
}

// History has what was used over time.
type History interface {
	VMHistory(ref string, span time.Duration, fields []string) (agent.History, error)
	HostHistory(span time.Duration, fields []string) (agent.History, error)
}

// Memory has the numbers and the map of pages.
type Memory interface {
	Look() (pages.Memory, error)
	Map(from, span int64, cells int, owner string) (pages.MemoryMap, error)
	Owners() ([]pages.MemoryOwner, time.Time, error)
	Processes(ref string) ([]pages.MemoryProcess, error)
	Mappings(ctx context.Context, ref string, pid int) (pages.MemoryProcess, error)
	Scan() (agent.Operation, error)
	CancelScan() error
}

// Advice has what is recommended for VMs.
type Advice interface {
	Advice(ref string) ([]advice.Advice, error)
	TakeAdvice(ctx context.Context, ref string, resources []string) (agent.VM, error)
	UndoAdvice(ctx context.Context, ref string) (agent.VM, error)
}

// Scaling has how limits are scaled.
type Scaling interface {
	Policy(ref string) (policy.Policy, error)
	SetPolicy(ctx context.Context, ref string, own agent.PolicyLayer, version string) (policy.Policy, error)
	ScalingStatus() agent.ScalingStatus
	Decisions(since uint64, limit int) ([]agent.Decision, error)
}

// Tokens has who may use the API.
type Tokens interface {
	List() []agent.Token
	Create(name, role string) (agent.Token, string, error)
	Revoke(ref string) error
}

// Login makes and redeems one-time codes.
type Login interface {
	NewCode(role string) (code string, expires time.Time)
	Redeem(code string) (*http.Cookie, error)
	Forget(secret string) error // ends a session
}

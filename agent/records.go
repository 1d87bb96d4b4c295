package agent

import (
	"cloudflash/agent/guest"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
)

// What the API shows as it is stored.
type (
	VMState        = state.VMState
	Spec           = state.Spec
	IO             = state.IO
	Network        = state.Network
	Port           = state.Port
	AppliedAdvice  = state.AppliedAdvice
	PolicyLayer    = state.PolicyLayer
	RuleChange     = state.RuleChange
	IdleChange     = state.IdleChange
	CloudletState  = state.CloudletState
	Request        = state.Request
	Usage          = state.Usage
	Event          = state.Event
	Decision       = state.Decision
	DecisionResult = state.DecisionResult
	Effect         = state.Effect
	Operation      = state.Operation
	OperationState = state.OperationState
	Token          = state.Token
)

// TerminalSize is in characters.
type TerminalSize = guest.TerminalSize

// What a VM has in the kernel.
type (
	Limits = vm.Limits
	GPU    = vm.GPU
)

// Modes of a VM's network.
const (
	NetworkNAT      = vm.NetworkNAT
	NetworkIsolated = vm.NetworkIsolated
	NetworkBridge   = vm.NetworkBridge
)

// StorageNone as Config.Storage leaves storage_bytes unenforced.
const StorageNone = vm.StorageNone

// What is stored in another form than it is shown in.
type (
	vmRecord       = state.VM
	cloudletRecord = state.Cloudlet
	ownPolicy      = state.OwnPolicy
)

// The states of a VM. Idle is a fact about a running VM (VM.IdleSince), not a state.
const (
	VMCreating = state.VMCreating
	VMRunning  = state.VMRunning
	VMFrozen   = state.VMFrozen
	VMDeleting = state.VMDeleting
	VMFailed   = state.VMFailed
)

// The states of a cloudlet. Those from Succeeded on are final.
const (
	CloudletQueued           = state.CloudletQueued
	CloudletStarting         = state.CloudletStarting
	CloudletRunning          = state.CloudletRunning
	CloudletFrozen           = state.CloudletFrozen
	CloudletSucceeded        = state.CloudletSucceeded
	CloudletFailed           = state.CloudletFailed
	CloudletCancelled        = state.CloudletCancelled
	CloudletDeadlineExceeded = state.CloudletDeadlineExceeded
	CloudletLost             = state.CloudletLost
)

// What happens to a cloudlet that is not done at its deadline.
const (
	OnDeadlineKill     = state.OnDeadlineKill
	OnDeadlineContinue = state.OnDeadlineContinue
)

// SLA priorities.
const (
	SLALow    = state.SLALow
	SLAMedium = state.SLAMedium
	SLAHigh   = state.SLAHigh
)

// Reasons the agent ends a cloudlet for.
const (
	stopCancel   = state.StopCancel
	stopDeadline = state.StopDeadline
	stopDelete   = state.StopDelete
	stopOOM      = state.StopOOM
)

// Event levels.
const (
	LevelInfo  = state.LevelInfo
	LevelWarn  = state.LevelWarn
	LevelError = state.LevelError
)

// The states of an operation.
const (
	OperationRunning   = state.OperationRunning
	OperationSucceeded = state.OperationSucceeded
	OperationFailed    = state.OperationFailed
)

// The results of a decision.
const (
	DecisionApplied     = state.DecisionApplied
	DecisionRecommended = state.DecisionRecommended
	DecisionDeferred    = state.DecisionDeferred
	DecisionInfeasible  = state.DecisionInfeasible
	DecisionFailed      = state.DecisionFailed
	DecisionNoticed     = state.DecisionNoticed
)

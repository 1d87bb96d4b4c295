package agent

import "time"

// VM is a named share of the host.
type VM struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	State     VMState           `json:"state"`
	Reason    string            `json:"reason,omitempty" doc:"Why the VM is in this state, when it needs saying"`
	Image     string            `json:"image" doc:"host, or the directory or tarball of the root file system"`
	Labels    map[string]string `json:"labels,omitempty"`
	Spec      Spec              `json:"spec"`
	Limits    Limits            `json:"limits"`
	Usage     Usage             `json:"usage"`
	Network   Network           `json:"network"`
	GPUs      []GPU             `json:"gpus,omitempty" doc:"The GPUs that are the VM's own"`
	Autoscale Autoscale         `json:"autoscale"`
	IdleSince *time.Time        `json:"idle_since" doc:"When the VM last showed a sign of life; null while it does"`
	CreatedAt time.Time         `json:"created_at"`
	Cloudlets int               `json:"cloudlets" doc:"Cloudlets that are starting, running or frozen in the VM"`
	InitPID   int               `json:"init_pid" doc:"Host process id of the VM's PID 1, 0 when it does not run"`
}

// Autoscale says in short how a VM's limits are scaled and whether it is deleted
// when idle; AutoscaleStatus has more.
type Autoscale struct {
	Mode     string     `json:"mode" enum:"off,recommend,auto" doc:"auto where any limit of the VM is scaled"`
	Keep     bool       `json:"keep" doc:"The VM is not deleted when idle"`
	DeleteAt *time.Time `json:"delete_at" doc:"When idle clean-up deletes the VM unless it gets busy; null while it is not announced"`
	// As they are for this VM now.
	IdleAfterSeconds  float64 `json:"idle_after_seconds" doc:"Idle for so long, the VM is announced; 0: it is not deleted when idle"`
	IdleNoticeSeconds float64 `json:"idle_notice_seconds" doc:"And deleted so much later"`
}

// VMCreate asks for a VM. Zero values take the defaults of Config.Defaults.
type VMCreate struct {
	Name   string
	Image  string
	Labels map[string]string
	Spec   Spec
	// Network says whom it may talk to; addresses are given by the agent.
	Network Network
	// Autoscale is the VM's own policy, laid over the host's.
	Autoscale PolicyLayer
	// Keep saves it from being deleted when idle.
	Keep bool
	// Key tells the same request, made again, from a second one; empty for none.
	Key string `json:"-"`
}

// VMChange changes a VM's spec; nil leaves a field alone.
type VMChange struct {
	CPUs         *float64
	MemoryBytes  *int64
	StorageBytes *int64
	BandwidthBPS *int64
	IO           *IO
	PIDs         *int64
	Autoscale    *PolicyLayer // in place of the VM's own
	Keep         *bool
}

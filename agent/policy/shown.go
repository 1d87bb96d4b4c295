package policy

import "cloudflash/agent/state"

// RuleAll stands in a layer for every resource whose limit is scaled: cpus memory_bytes
// storage_bytes bandwidth_bps rbps wbps riops wiops.
const RuleAll = "all"

// Where a value of a policy comes from.
const (
	SourceDefault = "default"
	SourceServe   = "serve" // a flag, the environment or the file of cloudflash serve
	SourceHost    = "host"  // the policy of the host, as set through the API
	SourceVM      = "vm"    // the policy of the VM
	SourceSpec    = "spec"  // a quarter and four times of what the VM was asked for
)

// Rule is how one resource is scaled, all layers put together.
type Rule struct {
	Resource        string            `json:"resource"`
	Mode            string            `json:"mode" enum:"off,recommend,auto"`
	Up              float64           `json:"up"`
	Down            float64           `json:"down"`
	CooldownSeconds float64           `json:"cooldown_seconds"`
	WindowSeconds   float64           `json:"window_seconds"`
	Target          float64           `json:"target"`
	Margin          float64           `json:"margin"`
	Step            float64           `json:"step"`
	Min             *float64          `json:"min" doc:"Null in the policy of the host: a quarter of each VM's spec"`
	Max             *float64          `json:"max" doc:"Null in the policy of the host: four times each VM's spec"`
	Sources         map[string]string `json:"sources" doc:"Where each value comes from: default, serve, host, vm or spec"`
}

// IdlePolicy is what becomes of idle VMs.
type IdlePolicy struct {
	AfterSeconds  float64           `json:"after_seconds" doc:"0: idle VMs are not deleted"`
	NoticeSeconds float64           `json:"notice_seconds"`
	MinVMs        int               `json:"min_vms"`
	Sources       map[string]string `json:"sources"`
}

// Policy is how limits are scaled: of the host, or of one VM.
type Policy struct {
	VM        string            `json:"vm,omitempty" doc:"Id; none for the policy of the host"`
	VMName    string            `json:"vm_name,omitempty"`
	Version   string            `json:"version" doc:"The ETag, for If-Match"`
	Own       state.PolicyLayer `json:"own" doc:"What was set here, as a PUT takes it"`
	Rules     []Rule            `json:"rules"`
	PerMinute int               `json:"per_minute" doc:"Most changes of one VM's limits"`
	PerHour   int               `json:"per_hour"`
	Idle      IdlePolicy        `json:"idle"`
	Keep      bool              `json:"keep" doc:"Of a VM: it is not deleted when idle"`
}

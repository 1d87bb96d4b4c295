package agent

import "time"

// Resources whose limits are scaled, in API order: cpus memory_bytes
// storage_bytes bandwidth_bps rbps wbps riops wiops. RuleAll in a layer is every
// one of them.
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
	VM        string      `json:"vm,omitempty" doc:"Id; none for the policy of the host"`
	VMName    string      `json:"vm_name,omitempty"`
	Version   string      `json:"version" doc:"The ETag, for If-Match"`
	Own       PolicyLayer `json:"own" doc:"What was set here, as a PUT takes it"`
	Rules     []Rule      `json:"rules"`
	PerMinute int         `json:"per_minute" doc:"Most changes of one VM's limits"`
	PerHour   int         `json:"per_hour"`
	Idle      IdlePolicy  `json:"idle"`
	Keep      bool        `json:"keep" doc:"Of a VM: it is not deleted when idle"`
}

// Scaled is how one resource of a VM stands.
type Scaled struct {
	Resource      string     `json:"resource"`
	Mode          string     `json:"mode" enum:"off,recommend,auto"`
	State         string     `json:"state" enum:"off,steady,saturated,cooldown,at_max,deferred,infeasible" doc:"saturated: more is wanted now; at_max: more is needed than max allows"`
	Spec          float64    `json:"spec"`
	Limit         float64    `json:"limit" doc:"As the kernel has it"`
	High          float64    `json:"high,omitempty" doc:"memory.high"`
	Use           float64    `json:"use"`
	Min           float64    `json:"min"`
	Max           float64    `json:"max"`
	Up            float64    `json:"up"`
	Down          float64    `json:"down"`
	CooldownUntil *time.Time `json:"cooldown_until" doc:"No shrink before; null when none holds it"`
	HoldSeconds   float64    `json:"hold_seconds" doc:"How long a need is held on to now"`
	LearnedHold   float64    `json:"learned_hold_seconds" doc:"How much of that was learned from needs that came back"`
	LastDecision  *Decision  `json:"last_decision,omitempty"`
}

// VMScaling is how autoscaling and idle clean-up stand with one VM.
type VMScaling struct {
	VM        string     `json:"vm"`
	VMName    string     `json:"vm_name"`
	Mode      string     `json:"mode" enum:"off,recommend,auto"`
	Resources []Scaled   `json:"resources"`
	Spent     int        `json:"changes_last_hour"`
	PerHour   int        `json:"changes_per_hour"`
	Keep      bool       `json:"keep"`
	IdleSince *time.Time `json:"idle_since"`
	DeleteAt  *time.Time `json:"delete_at" doc:"When idle clean-up deletes the VM unless it gets busy; null while it is not announced"`
	Activity  string     `json:"activity,omitempty" doc:"Why it is not idle"`
}

// ScalingStatus is how autoscaling stands.
type ScalingStatus struct {
	Mode     string      `json:"mode" enum:"off,recommend,auto" doc:"Of the host"`
	Wakeups  string      `json:"wakeups" enum:"events,polling" doc:"events: the kernel wakes the agent (PSI triggers, memory.events); polling: it looks once a second"`
	Note     string      `json:"note,omitempty" doc:"Why it only polls"`
	Capacity Capacity    `json:"capacity" doc:"That limits of VMs together may have, the host's reserve taken off"`
	Free     Capacity    `json:"free"`
	Idle     IdlePolicy  `json:"idle"`
	VMs      []VMScaling `json:"vms"`
}

// Recommendation is advice for one number of a VM's spec.
type Recommendation struct {
	Resource   string  `json:"resource"`
	Spec       float64 `json:"spec" doc:"As asked for"`
	Lower      float64 `json:"lower"`
	Target     float64 `json:"target"`
	Upper      float64 `json:"upper"`
	Uncapped   float64 `json:"uncapped_target" doc:"Before the bounds of the VM's policy"`
	Confidence float64 `json:"confidence" doc:"0 to 1: days of history"`
	Reason     string  `json:"reason"`
	Saves      float64 `json:"saves" doc:"Of the spec; below 0 where it asks for more"`
	Throttled  float64 `json:"throttled" doc:"Share of the time that more than target was used"`
	Worth      bool    `json:"worth" doc:"Worth taking: less than lower was asked for, or the spec is a tenth off with half a day of history"`
}

// Finding is something worth knowing about a VM or the host, in words.
type Finding struct {
	Kind      string             `json:"kind" enum:"over-provisioned,throttled,swapping,near-oom,idle,noisy-neighbour,fragmented-host,fits-together"`
	Other     string             `json:"other,omitempty" doc:"Id of the other VM"`
	OtherName string             `json:"other_name,omitempty"`
	Text      string             `json:"text"`
	Evidence  map[string]float64 `json:"evidence"`
}

// Advice is what is recommended for one VM, or found out about the host: its VM is
// empty and its name host.
type Advice struct {
	VM              string           `json:"vm"`
	VMName          string           `json:"vm_name"`
	Template        string           `json:"template,omitempty" doc:"The VM's label template: what was seen of its other VMs counts too"`
	HistorySeconds  float64          `json:"history_seconds" doc:"How long use has been seen"`
	Recommendations []Recommendation `json:"recommendations"`
	Findings        []Finding        `json:"findings"`
	Applied         *AppliedAdvice   `json:"applied" doc:"The last that was taken and can be undone"`
}

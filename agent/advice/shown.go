package advice

import "cloudflash/agent/state"

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
	VM              string               `json:"vm"`
	VMName          string               `json:"vm_name"`
	Template        string               `json:"template,omitempty" doc:"The VM's label template: what was seen of its other VMs counts too"`
	HistorySeconds  float64              `json:"history_seconds" doc:"How long use has been seen"`
	Recommendations []Recommendation     `json:"recommendations"`
	Findings        []Finding            `json:"findings"`
	Applied         *state.AppliedAdvice `json:"applied" doc:"The last that was taken and can be undone"`
}

package agent

import (
	"time"

	"cloudflash/agent/outcomes"
	"cloudflash/agent/pages"
)

// Host is this machine, as the agent sees it now.
type Host struct {
	Name             string                `json:"name"`
	Kernel           string                `json:"kernel"`
	OS               string                `json:"os"`
	BootID           string                `json:"boot_id"`
	Version          string                `json:"version" doc:"Version of the agent"`
	AgentStartedAt   time.Time             `json:"agent_started_at"`
	UptimeSeconds    float64               `json:"uptime_seconds"`
	CPUs             int                   `json:"cpus"`
	MemoryBytes      int64                 `json:"memory_bytes"`
	StorageBytes     int64                 `json:"storage_bytes"`
	Capacity         Capacity              `json:"capacity" doc:"What all VMs together may be promised"`
	Reserved         Capacity              `json:"reserved" doc:"What they have been promised"`
	Free             Capacity              `json:"free" doc:"What is left to promise"`
	Usage            HostUsage             `json:"usage"`
	VMs              int                   `json:"vms"`
	CloudletsByState map[CloudletState]int `json:"cloudlets"`
	CgroupParent     string                `json:"cgroup_parent"`
	StateDir         string                `json:"state_dir"`
}

// Capacity is an amount of each resource that VMs are made of.
type Capacity struct {
	CPUs         float64 `json:"cpus"`
	MemoryBytes  int64   `json:"memory_bytes"`
	StorageBytes int64   `json:"storage_bytes"`
	GPUs         int     `json:"gpus"`
}

// Check is one line of `cloudflash host check` or /health.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail" doc:"What was found"`
	Fix    string `json:"fix,omitempty" doc:"The way out, when it is not OK"`
}

// Snapshot is one immutable picture of everything, with the numbers of the last second.
// The API, the stream and the metrics all read the same one.
type Snapshot struct {
	Seq       uint64           `json:"seq"`
	At        time.Time        `json:"at"`
	Host      Host             `json:"host"`
	Memory    *pages.Memory    `json:"memory" doc:"Pages of the host; null before the first numbers"`
	VMs       []VM             `json:"vms"`
	Cloudlets []Cloudlet       `json:"cloudlets" doc:"Not yet final, and the last that ended"`
	Outcomes  *outcomes.Counts `json:"-"` // for the metrics
}

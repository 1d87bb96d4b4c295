package agent

import "time"

// Event levels.
const (
	LevelInfo  = "info"
	LevelWarn  = "warn"
	LevelError = "error"
)

// Event is one line of the system log.
type Event struct {
	Seq      uint64         `json:"seq"`
	At       time.Time      `json:"at"`
	Level    string         `json:"level" enum:"info,warn,error"`
	Kind     string         `json:"kind" doc:"Such as vm.created, vm.resized, cloudlet.finished, agent.started"`
	VM       string         `json:"vm,omitempty" doc:"Id of the VM it is about"`
	Cloudlet string         `json:"cloudlet,omitempty" doc:"Id of the cloudlet it is about"`
	Message  string         `json:"message"`
	Data     map[string]any `json:"data,omitempty"`
}

// OperationState is where an operation is in its life.
type OperationState string

// The states of an operation.
const (
	OperationRunning   OperationState = "running"
	OperationSucceeded OperationState = "succeeded"
	OperationFailed    OperationState = "failed"
)

// Operation is work that may take over a second.
type Operation struct {
	ID         string         `json:"id"`
	Kind       string         `json:"kind" doc:"Such as vm.delete"`
	Target     string         `json:"target" doc:"Id of the VM or cloudlet it works on"`
	State      OperationState `json:"state"`
	CreatedAt  time.Time      `json:"created_at"`
	FinishedAt *time.Time     `json:"finished_at"`
	Error      string         `json:"error,omitempty"`
	Progress   *float64       `json:"progress,omitempty" doc:"0-1, where it is known"`
}

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

// Snapshot is one immutable picture of everything, taken once a second. The
// API, the stream and the metrics all read the same one.
type Snapshot struct {
	Seq       uint64     `json:"seq"`
	At        time.Time  `json:"at"`
	Host      Host       `json:"host"`
	Memory    *Memory    `json:"memory" doc:"Pages of the host; null before the first numbers"`
	VMs       []VM       `json:"vms"`
	Cloudlets []Cloudlet `json:"cloudlets" doc:"Not yet final, and the last that ended"`
	Outcomes  *Outcomes  `json:"-"` // for the metrics
}

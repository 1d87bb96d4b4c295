package agent

import (
	"log/slog"
	"time"

	"cloudflash/agent/advice"
	"cloudflash/agent/meter"
	"cloudflash/agent/policy"
)

// Config is everything the agent is told at start.
type Config struct {
	StateDir     string   // database, data and output of VMs
	RunDir       string   // sockets and init journals; empty after a reboot
	CgroupParent string   // the delegated cgroup, such as /sys/fs/cgroup/cloudflash
	InitPath     string   // cloudflash-init
	Binaries     []string // put on PATH inside every VM
	Version      string
	Erase        bool // VMs that are here although no database knows them

	Defaults   Spec // for fields a VMCreate leaves at zero
	Ranges     policy.Ranges
	Overcommit Overcommit

	Storage     string        // backend of package storage: auto, native or pool; or StorageNone
	Bridge      string        // of the VMs' network
	NetworkPool string        // IPv4 addresses of VMs, in CIDR notation
	NetworkULA  string        // and IPv6
	Grace       time.Duration // from SIGTERM to cgroup.kill
	OutputKeep  int64         // bytes of each output stream that are kept, the newest
	Autoscale   string        // mode of all limits unless a policy says otherwise: off, recommend or auto
	Idle        policy.Idle   // VMs in which nothing goes on
	PageScan    float64       // cores the rolling scan of memory pages may take; negative: no scan at all

	HistoryEvery  time.Duration // how often the history of usage is saved
	UpkeepEvery   time.Duration // how often limits are read back and the network is mended
	TrimAfter     time.Duration // how long deletes are waited for before their blocks are given back
	FindingsAfter time.Duration // how long a VM is watched until something is found about it

	Log *slog.Logger
}

// Overcommit is how many times the host's own amount may be promised.
type Overcommit struct {
	CPUs, Memory, Storage float64
}

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
)

// DefaultConfig returns the defaults of design: what `cloudflash serve` runs
// with when it is told nothing.
func DefaultConfig() Config {
	return Config{
		StateDir: "/var/lib/cloudflash",
		RunDir:   "/run/cloudflash",
		Defaults: Spec{CPUs: 1, MemoryBytes: 512 * mib, StorageBytes: 10 * gib, BandwidthBPS: 100e6, PIDs: 4096},
		Ranges: policy.Ranges{
			CPUs:         policy.Range[float64]{Min: 0.1, Max: 32},
			MemoryBytes:  policy.Range[int64]{Min: 32 * mib, Max: 256 * gib},
			StorageBytes: policy.Range[int64]{Min: 64 * mib, Max: 10 * tib},
			BandwidthBPS: policy.Range[int64]{Min: 1e6, Max: 10e9},
			GPUs:         policy.Range[int]{Min: 0, Max: 64},
			PIDs:         policy.Range[int64]{Min: 16, Max: 1 << 20},
		},
		Overcommit: Overcommit{CPUs: 4, Memory: 1, Storage: 2},
		Storage:    "auto", Bridge: "cf0", NetworkPool: "10.88.0.0/16", NetworkULA: "fd0c:f1a5:c10d::/64",
		Grace:      5 * time.Second,
		OutputKeep: 64 * mib,
		Idle:       policy.DefaultIdle,
		PageScan:   0.01,
		Autoscale:  "auto",
		Log:        slog.Default(),

		HistoryEvery: meter.SaveEvery, UpkeepEvery: 5 * time.Second, TrimAfter: 5 * time.Second, FindingsAfter: advice.ShortestSpan,
	}
}

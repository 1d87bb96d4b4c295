// Package vm is the life of a VM in the kernel: its directories and root file system,
// its slice, its init, its limits, its network, storage and GPUs, until all of it is
// erased.
//
// A Platform is what the VMs of this host stand on and share: the file system of their
// data, the bridge, the GPUs. A VM is one of them. What changes it in the kernel are
// methods of a Lease, of which there is one at a time; what may be read at any time are
// methods of the VM.
//
// What a VM shall be is read from its record (package state) each time it is needed.
// Nothing here decides on it, and of the record only the counters of links that are gone
// are written here. Every step may find its work done already, or half done.
package vm

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"cloudflash/agent/gpu"
	"cloudflash/agent/meter"
	"cloudflash/agent/network"
	"cloudflash/agent/state"
	"cloudflash/agent/storage"
	"cloudflash/cgroup"
)

// Config is what a Platform is told and given.
type Config struct {
	Log    *slog.Logger
	State  *state.DB
	Parent *cgroup.Parent
	Meter  *meter.Meter

	StateDir string   // data of VMs, in its directory vms
	RunDir   string   // their sockets and journals, in its directory vms
	InitPath string   // cloudflash-init
	Binaries []string // put on PATH inside every VM
	Erase    bool     // data that belongs to no VM, in place of setting it aside

	Storage    string  // backend of package storage: auto, native or pool; or StorageNone
	Overcommit float64 // how many times the disk's size may be promised
	TrimAfter  time.Duration

	Bridge       string
	Pool, ULA    string // addresses of VMs, in CIDR notation
	NetworkOwner string // what the bridge says of whose it is

	UpkeepEvery time.Duration

	// High is what memory.high of a VM shall be.
	High func(state.View, *state.VM) int64
	// VMs are all that there are.
	VMs func() []*VM
}

// A Platform is what the VMs of this host share. Make one with New, then Open it; Run
// keeps it in order.
type Platform struct {
	cfg     Config
	log     *slog.Logger
	network *network.Network
	trim    chan struct{} // files of VMs have been deleted

	mu         sync.Mutex       // guards what follows; nothing is waited for with it
	disk       *storage.Storage // nil where storage is not enforced
	diskErr    error            // why there is none
	networkErr error            // why VMs can only be isolated
	bridge     int              // its index when all VMs were last seen to hang on it, 0 when there was none
	gpus       gpu.Inventory
	worn       map[int]bool // slots whose storage ids still have files
}

// New checks the configuration. It changes nothing.
func New(cfg Config) (*Platform, error) {
	pool, err := netip.ParsePrefix(cfg.Pool)
	if err != nil {
		return nil, fmt.Errorf("network pool: %w", err)
	}
	ula, err := netip.ParsePrefix(cfg.ULA)
	if err != nil {
		return nil, fmt.Errorf("network ULA: %w", err)
	}

	net, err := network.New(network.Config{
		Bridge: cfg.Bridge,
		Pool:   pool,
		ULA:    ula,
		Owner:  cfg.NetworkOwner,
	})
	if err != nil {
		return nil, err
	}

	return &Platform{
		cfg:     cfg,
		log:     cfg.Log,
		network: net,
		trim:    make(chan struct{}, 1),
		worn:    map[int]bool{},
	}, nil
}

// Open finds or makes what VMs stand on. What is missing is told to whoever asks for it.
func (p *Platform) Open(ctx context.Context) {
	p.openStorage(ctx)
	_ = p.openNetwork(ctx)
	p.hang()
	p.findGPUs(ctx)
}

// Run keeps the network, the storage and the numbers of GPUs in order until ctx ends.
func (p *Platform) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { p.runTrim(ctx) })
	wg.Go(func() { p.runNetwork(ctx) })
	wg.Go(func() { p.runGPUs(ctx) })
	wg.Wait()
}

// Close lets go of the kernel's files. VMs live on.
func (p *Platform) Close() error {
	p.network.Close()
	if disk := p.storage(); disk != nil {
		return disk.Close()
	}
	return nil
}

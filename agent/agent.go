package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"cloudflash/agent/advice"
	"cloudflash/agent/clock"
	"cloudflash/agent/host"
	"cloudflash/agent/idle"
	"cloudflash/agent/meter"
	"cloudflash/agent/outcomes"
	"cloudflash/agent/pages"
	"cloudflash/agent/scaling"
	"cloudflash/agent/schedule"
	"cloudflash/agent/state"
	"cloudflash/agent/store"
	"cloudflash/agent/thrash"
	"cloudflash/agent/tokens"
	"cloudflash/agent/vm"
	"cloudflash/cgroup"
)

// An Agent owns the VMs and cloudlets of this host. Make one with New, then
// Run it; methods may be called from any goroutine once Ready is closed.
type Agent struct {
	Tokens *tokens.Tokens
	Pages  *pages.Pages

	cfg       Config
	log       *slog.Logger
	store     *store.Store
	parent    *cgroup.Parent
	policy    schedule.Policy
	host      *host.Host
	meter     *meter.Meter
	platform  *vm.Platform
	advisor   *advice.Advisor
	scaling   *scaling.Loop
	startedAt time.Time
	boot      string // the id of this boot of the machine
	lock      machineLock

	state *state.DB // what is intended and what became of it

	showing sync.Mutex // of who makes a snapshot; it is taken before held

	// held guards the fields below: what the agent holds of VMs and cloudlets in the
	// kernel, and what is only counted and shown. Nobody waits with it, for the disk,
	// the kernel or a change; a change may take it, for a moment (see doc.go).
	held      sync.Mutex
	vms       map[string]*heldVM       // all that are stored, and one that is about to be
	cloudlets map[string]*heldCloudlet // those that have been seen to run
	waiting   map[string]string        // why queued cloudlets wait, as last worked out
	sessions  map[string]*session
	updates   chan struct{}
	sampledAt time.Time
	snapshot  *Snapshot
	metered   bool  // there are numbers
	dirty     bool  // something changed since the snapshot
	woke      awake // when idle VMs were last looked for
	outcomes  outcomes.Counts

	wake    chan struct{}              // the queue, a VM or a deadline changed
	tasks   chan func(context.Context) // work that Run owns
	ready   chan struct{}
	stopped chan struct{}
}

// heldVM is the agent's hold on a VM: the VM in the kernel, and what is only measured and
// shown of it.
type heldVM struct {
	*vm.VM

	thrash   thrash.Watch // the sampler's alone
	bounding atomic.Bool  // somebody is at work on its outputs

	// Agent.held guards these.
	usage Usage
	idle  idle.Watch
}

// record is what is stored of a VM now.
func (a *Agent) record(v *vm.VM) *vmRecord { return v.Record(a.state.View()) }

// heldCloudlet is the agent's hold on a cloudlet that runs.
type heldCloudlet struct {
	probe   *meter.Probe
	usage   Usage
	termed  time.Duration // since boot, when it got SIGTERM: storing that may have taken long
	killing bool          // cgroup.kill is under way
}

// New opens the store and the delegated cgroup, and locks other agents out. It changes
// nothing but those.
func New(cfg Config) (*Agent, error) {
	if err := checkOtherAgent(cfg); err != nil {
		return nil, err
	}
	if err := checkOwnerless(cfg); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.StateDir, cfg.RunDir, filepath.Join(cfg.StateDir, "vms"), filepath.Join(cfg.RunDir, "vms")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	st, err := store.Open(filepath.Join(cfg.StateDir, databaseFile))
	if err != nil {
		return nil, err
	}
	id, err := st.ID()
	if err != nil { // the disk is full, perhaps
		cfg.Log.Warn("name this store", "err", err)
	}
	lock, err := lockMachine(cfg, id)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	a, err := assemble(cfg, st, id)
	if err != nil {
		return nil, errors.Join(err, lock.Close(), st.Close())
	}
	a.lock = lock
	return a, nil
}

// assemble makes an agent of its parts. What it opens, but for the store, needs no close
// where it fails.
func assemble(cfg Config, st *store.Store, id string) (*Agent, error) {
	parent, err := cgroup.OpenParent(cfg.CgroupParent)
	if err != nil {
		return nil, err
	}
	if err := claim(cfg, id, parent); err != nil {
		return nil, err
	}
	h, err := host.New(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	boot, err := clock.BootID()
	if err != nil {
		return nil, err
	}

	a := &Agent{
		cfg:       cfg,
		log:       cfg.Log,
		store:     st,
		parent:    parent,
		policy:    schedule.FirstFit{},
		host:      h,
		startedAt: time.Now(),
		boot:      boot,
		meter: meter.New(meter.Config{
			StateDir:  cfg.StateDir,
			File:      filepath.Join(cfg.StateDir, "history"),
			SaveEvery: cfg.HistoryEvery,
			Log:       cfg.Log,
		}),

		vms:       map[string]*heldVM{},
		cloudlets: map[string]*heldCloudlet{},
		sessions:  map[string]*session{},
		updates:   make(chan struct{}),
		outcomes:  outcomes.New(),

		wake:    make(chan struct{}, 1),
		tasks:   make(chan func(context.Context)),
		ready:   make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if err := a.load(networkOwner(cfg, id)); err != nil {
		return nil, err
	}
	if err := st.Relax(); err != nil {
		cfg.Log.Warn("give back memory", "err", err)
	}
	debug.FreeOSMemory() // reading took several times of what is kept
	a.Pages = pages.Open(pages.Config{
		Log:     cfg.Log,
		State:   a.state,
		Parent:  parent,
		Budget:  cfg.PageScan,
		Report:  func(took time.Duration, err error) { a.meter.Report("pagemap", took, err) },
		Changed: a.tellUpdates,
	})
	a.advisor = a.newAdvisor()
	a.scaling = a.newScaling()
	return a, nil
}

// Enter moves this process into the agent's own cgroup, so that what it uses is
// counted apart.
func (a *Agent) Enter() error { return a.parent.Enter() }

// Close closes the store. VMs and cloudlets live on.
func (a *Agent) Close() error {
	a.meter.Close()
	return errors.Join(a.platform.Close(), a.Pages.Close(), a.store.Close(), a.lock.Close())
}

// Ready is closed once what was stored and what the kernel has agree again.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Run makes the kernel obey the store, then keeps it so until ctx ends. VMs and
// cloudlets live on when it returns.
func (a *Agent) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(a.stopped) // before the wait: nobody takes tasks any more, see spawn
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	a.loadHistory()
	a.advisor.Load()
	recovered := make(chan error, 1)
	wg.Go(func() {
		a.platform.Open(ctx)
		recovered <- a.recover(ctx)
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case task := <-a.tasks:
			wg.Go(func() { task(ctx) })
		case err := <-recovered:
			if err != nil {
				return fmt.Errorf("recover: %w", err)
			}
			a.held.Lock()
			a.sampledAt = time.Now() // the first is about to be taken: nobody is late yet
			a.held.Unlock()
			wg.Go(func() { a.runSampler(ctx) })
			wg.Go(func() { a.meter.Run(ctx) })
			wg.Go(func() { a.runQueue(ctx) })
			wg.Go(func() { a.platform.Run(ctx) })
			wg.Go(func() { a.Pages.Run(ctx) })
			wg.Go(func() { a.advisor.Run(ctx) })
			wg.Go(func() { a.scaling.Run(ctx) })
			close(a.ready)
		}
	}
}

// spawn hands a task to Run; it is dropped, and false returned, when the agent is
// stopping, and recovery picks the work up at the next start. It may be called in a
// change or with a.held: the loop that takes the task wants neither.
func (a *Agent) spawn(task func(context.Context)) bool {
	select {
	case a.tasks <- task:
		return true
	case <-a.stopped:
		return false
	}
}

// unmeter closes the kept files of a cloudlet that is not there any more, and forgets
// it. The caller has a.held.
func (a *Agent) unmeter(id string) {
	if c := a.cloudlets[id]; c != nil {
		c.probe.Close()
		delete(a.cloudlets, id)
	}
}

// poke makes the queue loop look again.
func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Updates returns a channel that is closed at the next change of anything.
func (a *Agent) Updates() <-chan struct{} {
	a.held.Lock()
	defer a.held.Unlock()
	return a.updates
}

// changed tells the waiters of Updates. The caller has a.held.
func (a *Agent) changed() {
	close(a.updates)
	a.updates = make(chan struct{})
	a.dirty = true
}

package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"cloudflash/agent/guest/wire"
	"cloudflash/cgroup"
)

var (
	// ErrGone says that the VM's init does not run.
	ErrGone = errors.New("init is gone")
	// ErrExists says that a process of that id was started before.
	ErrExists = errors.New("process exists")
	// ErrNotFound says that no process of that id runs.
	ErrNotFound = errors.New("no such process")
)

// Config is what a VM is made of.
type Config struct {
	ID       string
	Hostname string
	UIDBase  uint32        // its 65,536 user and group ids begin here
	Slice    *cgroup.Slice // exists, and cgroup.procs belongs to UIDBase
	RunDir   string        // socket, journal and log of the init; root's alone
	DataDir  string        // becomes /data
	Image    string        // "host", or a directory to be the root file system
	UpperDir string        // what the VM writes to its image; of the VM's ids
	Resolv   string        // content of /etc/resolv.conf
	Devices  []Device      // shown in /dev beside the usual ones
	Files    []string      // of the host, shown read-only at the same place in an image
	InitPath string        // cloudflash-init on the host
	Binaries []string      // files of the host to put on PATH
}

// Device is a character device of the host's.
type Device struct {
	Path         string // below /dev, such as /dev/nvidia0
	Major, Minor uint32
}

// initScope is the leaf of the init in the VM's slice.
const initScope = "init"

const (
	socketName  = "init.sock"
	journalName = "journal"
	logName     = "init.log"
)

// Guest is a connection to the init of one VM. Its methods may be called from
// several goroutines.
type Guest struct {
	cfg  Config
	pid  int
	conn *net.UnixConn
	own  *os.Process // set when this process is the init's parent, to be reaped

	mu      sync.Mutex
	seq     uint32
	waiting map[uint32]chan reply
	exits   []Exit
	closed  error // why the connection ended

	arrived chan struct{} // an exit has arrived, or the connection has ended
	done    chan struct{} // the reading goroutine has ended
}

// Running is a process that has been started and has not ended.
type Running struct {
	ID        string
	PID       int // on the host
	StartedAt time.Time
	Terminal  *os.File // of a Process with one; the caller closes it
}

// Exit is how a process ended.
type Exit struct {
	ID         string
	Code       int            // when Signal is 0
	Signal     syscall.Signal // 0 when it exited by itself
	StartedAt  time.Time
	FinishedAt time.Time
	// FinishedBoot is the same on CLOCK_BOOTTIME; 0 when the init does not tell.
	FinishedBoot time.Duration
	CPUTime      time.Duration // of the process and of the children it waited for
}

func exitFrom(e wire.Exit) Exit {
	return Exit{ID: e.ID, Code: int(e.Code), Signal: syscall.Signal(e.Signal), StartedAt: time.Unix(0, e.StartedAt),
		FinishedAt: time.Unix(0, e.FinishedAt), CPUTime: time.Duration(e.CPUTime), FinishedBoot: time.Duration(e.FinishedBoot)}
}

// connectTimeout is how long an init may take to answer a new agent. One that is
// stuck must not keep the agent from all the other VMs.
const connectTimeout = 10 * time.Second

// Connect reaches the init that an earlier agent has started. ErrGone says that
// there is none, or that it never got ready.
func Connect(ctx context.Context, cfg Config) (*Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	g, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	ready, err := g.ping(ctx)
	if err == nil && !ready {
		err = fmt.Errorf("%w: it was never set up", ErrGone)
	}
	if err == nil {
		g.pid, err = initPID(cfg)
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// initPID is the only process in the scope of the init.
func initPID(cfg Config) (int, error) {
	pids, err := cfg.Slice.Scope(initScope).PIDs()
	if err != nil {
		return 0, err
	}
	if len(pids) != 1 {
		return 0, fmt.Errorf("%w: its scope holds %d processes", ErrGone, len(pids))
	}
	return pids[0], nil
}

// PID is the process id of the init on the host.
func (g *Guest) PID() int { return g.pid }

// Ping asks whether the init answers.
func (g *Guest) Ping(ctx context.Context) error {
	_, err := g.ping(ctx)
	return err
}

func (g *Guest) ping(ctx context.Context) (ready bool, err error) {
	r, err := g.request(ctx, wire.Ping, nil)
	if err != nil {
		return false, fmt.Errorf("ping: %w", err)
	}
	return r.Uint32() == wire.Ready, nil
}

// Processes lists what runs.
func (g *Guest) Processes(ctx context.Context) ([]Running, error) {
	var all []Running
	for last, more := "", true; more; {
		r, err := g.request(ctx, wire.List, func(w *wire.Writer) { w.String(last) })
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		n := r.Uint32()
		for range n {
			id, vpid, started := r.String(), int(r.Uint32()), r.Int64()
			if r.Bad || id <= last {
				return nil, errors.New("list processes: malformed answer")
			}
			last = id
			pid, err := hostPID(g.cfg.Slice.Scope("cl-"+id), vpid)
			if errors.Is(err, ErrNotFound) {
				continue // it has just ended
			}
			if err != nil {
				return nil, err
			}
			all = append(all, Running{ID: id, PID: pid, StartedAt: time.Unix(0, started)})
		}
		more = n == wire.MaxList
	}
	return all, nil
}

// Acknowledge says that an exit is stored: it will not be told again.
func (g *Guest) Acknowledge(ctx context.Context, id string) error {
	_, err := g.request(ctx, wire.Acknowledge, func(w *wire.Writer) { w.String(id) })
	return err
}

// Run calls exited for every exit that has not been acknowledged, then for each
// new one, one at a time. It returns nil when ctx ends, and an error matching
// ErrGone when the init is dead.
func (g *Guest) Run(ctx context.Context, exited func(Exit)) error {
	if _, err := g.request(ctx, wire.Subscribe, nil); err != nil {
		return g.ended(ctx, err)
	}
	for {
		g.mu.Lock()
		exits, closed := g.exits, g.closed
		g.exits = nil
		g.mu.Unlock()
		for _, e := range exits {
			exited(e)
		}
		if closed != nil && len(exits) == 0 {
			return g.ended(ctx, closed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-g.arrived:
		}
	}
}

// ended is what Run returns. It reaps an init that is our own child.
func (g *Guest) ended(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return nil
	}
	if g.own != nil {
		g.reap()
	}
	return fmt.Errorf("%w: %w", ErrGone, cause)
}

// reap takes in an init that has died. One that dies hangs up first, and is in its
// cgroup until everything else in the VM has ended, and its file systems in memory
// are empty: that may take long, and it may also live on behind a broken connection.
// So the caller waits only so long, and a goroutine that ends with the init goes on:
// one that nobody takes in stays a zombie for as long as the agent lives.
func (g *Guest) reap() {
	for wait := time.Millisecond; wait < 2*time.Second; wait *= 2 {
		if pids, err := g.cfg.Slice.Scope(initScope).PIDs(); err != nil || len(pids) == 0 {
			_, _ = g.own.Wait()
			return
		}
		time.Sleep(wait)
	}
	go func() { _, _ = g.own.Wait() }()
}

// Close ends the connection. The init lives on.
func (g *Guest) Close() error {
	err := g.conn.Close()
	<-g.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Remove removes what a VM's init has left in its run directory.
func Remove(runDir string) error {
	var errs []error
	for _, name := range []string{socketName, journalName, logName} {
		if err := os.Remove(filepath.Join(runDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

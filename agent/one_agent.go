package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent/network"
	"cloudflash/cgroup"

	"golang.org/x/sys/unix"
)

// ErrOtherAgent means that the cgroup parent, or the network of the machine, is another
// agent's: to start would be to sweep away its VMs or their links.
var ErrOtherAgent = errors.New("another agent's")

// errOwnParent means that this store has VMs in another cgroup than it is to have them in.
var errOwnParent = errors.New("that of an agent with this store")

// otherAgentTime is how long an agent that ends may still be seen.
const otherAgentTime = 5 * time.Second

// checkOtherAgent refuses to start beside an agent with the same cgroup parent. One that
// was killed just now may be there for a moment longer.
func checkOtherAgent(cfg Config) error {
	for end := time.Now().Add(otherAgentTime); ; time.Sleep(50 * time.Millisecond) {
		pid, err := otherAgent(cfg.CgroupParent)
		if pid == 0 || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("cgroup %s is %w, process %d: there is one for each machine", cfg.CgroupParent, ErrOtherAgent, pid)
		}
	}
}

// checkOtherNetwork refuses to start where an agent with another cgroup parent has VMs, be
// it one with this store that was told another: links, addresses and rules are those of
// one. The bridges tell whose they are.
func checkOtherNetwork(cfg Config, storeID string) error {
	owners, err := network.Owners()
	if err != nil {
		cfg.Log.Warn("cannot tell whose the network is", "err", err)
		return nil
	}
	for _, owner := range owners {
		its, parent, _ := strings.Cut(owner, " ")
		if parent == "" || parent == cfg.CgroupParent { // a claim tells of that
			continue
		}
		if err := checkOtherParent(cfg, parent, its == storeID); err != nil {
			return err
		}
	}
	return nil
}

// checkOtherParent refuses to start where an agent runs, or has VMs, in another cgroup.
func checkOtherParent(cfg Config, parent string, own bool) error {
	at := cfg
	at.CgroupParent = parent
	if err := checkOtherAgent(at); err != nil {
		return err
	}

	entries, err := os.ReadDir(filepath.Join(parent, "vms"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !slices.ContainsFunc(entries, fs.DirEntry.IsDir) {
		return nil
	}

	whose := ErrOtherAgent
	if own {
		whose = errOwnParent
	}
	return fmt.Errorf("the network of this machine is %w, which has VMs in cgroup %s: start it with that "+
		"--cgroup-parent, and delete them first", whose, parent)
}

// machineLock keeps a second agent out, also one that starts at the same moment, when
// neither is to be seen yet by what it has. It is of the network namespace, which is what
// agents cannot share. Where there is no place for it, an agent starts without.
type machineLock struct{ f *os.File } // nil without one

// Close gives the lock back.
func (l machineLock) Close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

// lockMachine takes the lock, once no other agent has the network of this machine.
func lockMachine(cfg Config, storeID string) (machineLock, error) {
	if err := checkOtherNetwork(cfg, storeID); err != nil {
		return machineLock{}, err
	}
	l, err := takeLock(cfg.Log)
	if err != nil {
		return machineLock{}, err
	}
	if err := checkOtherNetwork(cfg, storeID); err != nil { // one may have come and gone meanwhile
		return machineLock{}, errors.Join(err, l.Close())
	}
	return l, nil
}

func takeLock(log *slog.Logger) (machineLock, error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &ns); err != nil {
		log.Warn("cannot lock out a second agent", "err", err)
		return machineLock{}, nil
	}

	path := fmt.Sprintf("/run/cloudflash-%d.lock", ns.Ino)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		log.Warn("cannot lock out a second agent", "err", err)
		return machineLock{}, nil
	}

	for end := time.Now().Add(otherAgentTime); ; time.Sleep(50 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return machineLock{f}, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			log.Warn("cannot lock out a second agent", "err", err)
			return machineLock{f}, nil
		case time.Now().After(end):
			_ = f.Close()
			return machineLock{}, fmt.Errorf("the network of this machine is %w, which has locked %s: "+
				"there is one for each machine", ErrOtherAgent, path)
		}
	}
}

// longestAlias is that of a link, IFALIASZ of linux/if.h without the zero.
const longestAlias = 255

// networkOwner is what the bridge says of whose it is; nothing where that is not known or
// too long for an alias.
func networkOwner(cfg Config, storeID string) string {
	owner := storeID + " " + cfg.CgroupParent
	if storeID == "" || len(owner) > longestAlias {
		return ""
	}
	return owner
}

// otherAgent is a process that runs this program in the agent's cgroup; 0 for none. What
// such a process has started may outlive it.
func otherAgent(parent string) (int, error) {
	pids, err := cgroup.Entered(parent)
	if err != nil {
		return 0, err
	}
	mine, err := program(os.Getpid())
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if its, err := program(pid); err == nil && its == mine && pid != os.Getpid() {
			return pid, nil
		}
	}
	return 0, nil
}

// program is the name of the file that a process executes.
func program(pid int) (string, error) {
	path, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	return filepath.Base(strings.TrimSuffix(path, " (deleted)")), err
}

// claim gives the cgroup parent to the store with that id. Where it is another's that has VMs there,
// the agent does not start. Where that cannot be told or noted, on a full disk or in a
// container, it does.
func claim(cfg Config, id string, parent *cgroup.Parent) error {
	if id == "" {
		return nil
	}
	owner, err := parent.Owner()
	if err != nil {
		cfg.Log.Warn("cannot tell whose the cgroup is", "err", err)
		return nil
	}
	slices, err := parent.Slices()
	if err != nil {
		return err
	}

	its, dir, _ := strings.Cut(owner, " ")
	if its != "" && its != id && len(slices) > 0 && !cfg.Erase {
		return fmt.Errorf("the %d VMs in cgroup %s are %w, which has its database in %s: start it with that --state-dir, "+
			"or once with --erase to erase them", len(slices), cfg.CgroupParent, ErrOtherAgent, dir)
	}
	if err := parent.SetOwner(id + " " + cfg.StateDir); err != nil {
		cfg.Log.Warn("cannot note whose the cgroup is", "err", err)
	}
	return nil
}

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cloudflash/agent/store"
	"cloudflash/cgroup"
)

// ErrOtherAgent means that the cgroup parent is another agent's: to start would be to
// sweep away its VMs.
var ErrOtherAgent = errors.New("another agent's")

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

// claim gives the cgroup parent to this store. Where it is another's that has VMs there,
// the agent does not start. Where that cannot be told or noted, on a full disk or in a
// container, it does.
func claim(cfg Config, st *store.Store, parent *cgroup.Parent) error {
	id, err := st.ID()
	if err != nil {
		cfg.Log.Warn("name this store", "err", err)
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

package systemtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
)

// Settle waits until every cloudlet has ended and no VM is on its way, and returns the VMs.
func (a *Agent) Settle() []agent.VM {
	a.T.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		vms := Must[List[agent.VM]](a, "GET", "/api/v1/vms?limit=1000", nil).Items
		cloudlets := Must[List[agent.Cloudlet]](a, "GET", "/api/v1/cloudlets?limit=1000", nil).Items
		busy := ""
		for _, v := range vms {
			if v.State == agent.VMCreating || v.State == agent.VMDeleting {
				busy = v.Name + " is " + string(v.State)
			}
		}
		for _, c := range cloudlets {
			if !c.State.Final() {
				busy = "cloudlet " + c.ID + " is " + string(c.State) + " " + c.Reason
			}
		}
		if busy == "" {
			return vms
		}
		if time.Now().After(deadline) {
			a.T.Fatalf("not settled after two minutes: %s", busy)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// DeleteAll deletes all VMs and waits until they are gone.
func (a *Agent) DeleteAll() {
	a.T.Helper()
	for _, v := range Must[List[agent.VM]](a, "GET", "/api/v1/vms?limit=1000", nil).Items {
		if _, err := Call[agent.Operation](a, "DELETE", "/api/v1/vms/"+v.ID+"?grace=0s", nil); err != nil && !isGone(err) {
			a.T.Error(err)
		}
	}
	if left := a.Settle(); len(left) != 0 {
		a.T.Errorf("VMs left: %v", left)
	}
}

// NothingLeft checks that the host has nothing of VMs that are gone. There were so many mounts before the agent began.
func (a *Agent) NothingLeft(mounts int) {
	a.T.Helper()
	for _, dir := range []string{filepath.Join(a.StateDir, "vms"), filepath.Join(a.RunDir, "vms")} {
		if got := Names(a.T, dir); len(got) != 0 {
			a.T.Errorf("left in %s: %v", dir, got)
		}
	}
	if got := a.Slices(); len(got) != 0 {
		a.T.Errorf("slices left: %v", got)
	}
	if got := Mounts(a.T); got != mounts+1 { // the pool
		a.T.Errorf("%d mounts, there were %d before the pool", got, mounts)
	}
	if got := Links(a.T); len(got) != 0 {
		a.T.Errorf("links of %v left", got)
	}
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("elements")) && bytes.Contains(out, []byte("comment")) {
		a.T.Errorf("left in the rules: %v %s", err, out)
	}
	if out, err := exec.Command("pgrep", "-f", "cloudflash-init").Output(); err == nil {
		a.T.Errorf("inits left: %s", out)
	}
}

// Slices are the VMs that have a cgroup.
func (a *Agent) Slices() []string {
	a.T.Helper()
	return Dirs(a.T, filepath.Join(a.Parent, "vms"))
}

// Links are the VMs that have links on the host, each its two.
func Links(t testing.TB) []string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, l := range all {
		if strings.HasPrefix(l.Name, "cfv") || strings.HasPrefix(l.Name, "cfi") {
			count[l.Name[3:]]++
		}
	}
	ids := []string{}
	for id, n := range count {
		if n != 2 {
			t.Errorf("VM %s has %d links", id, n)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Mounts is how many there are.
func Mounts(t testing.TB) int {
	t.Helper()
	return strings.Count(read(t, "/proc/self/mountinfo"), "\n")
}

// Names are the entries of a folder.
func Names(t testing.TB, dir string) []string {
	t.Helper()
	return names(t, dir, false)
}

// Dirs are the folders in a folder.
func Dirs(t testing.TB, dir string) []string {
	t.Helper()
	return names(t, dir, true)
}

func names(t testing.TB, dir string, onlyDirs bool) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, e := range entries {
		if !onlyDirs || e.IsDir() {
			all = append(all, e.Name())
		}
	}
	return all
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Descriptors are what the agent has open.
func (a *Agent) Descriptors() []string {
	a.T.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", a.PID())
	var all []string
	for _, e := range Names(a.T, dir) {
		if to, err := os.Readlink(filepath.Join(dir, e)); err == nil {
			all = append(all, to)
		}
	}
	return all
}

// Counts is how much there is of what could leak.
func (a *Agent) Counts() map[string]int {
	a.T.Helper()
	open := a.Descriptors()
	c := map[string]int{
		"descriptors": len(open),
		"goroutines":  a.Metric("go_goroutines"),
		"links":       len(Names(a.T, "/sys/class/net")),
		"mounts":      Mounts(a.T),
	}
	for _, to := range open {
		if strings.Contains(to, "inotify") {
			c["inotify"]++
		}
	}
	_ = filepath.WalkDir(a.Parent, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			c["cgroups"]++
		}
		return nil
	})
	spaces := map[string]bool{}
	for _, e := range Names(a.T, "/proc") {
		if ns, err := os.Readlink("/proc/" + e + "/ns/net"); err == nil {
			spaces[ns] = true
		}
	}
	c["network namespaces"] = len(spaces)
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		a.T.Fatal(err)
	}
	c["rules"] = strings.Count(string(rules), "\n")
	c["quotas"] = strings.Count(a.Quotas(), "#")
	return c
}

// Quotas is what the file system of the VMs says of projects.
func (a *Agent) Quotas() string {
	a.T.Helper()
	vms := filepath.Join(a.StateDir, "vms")
	out, err := exec.Command("xfs_quota", "-x", "-c", "report -p -N -b", vms).CombinedOutput()
	if err != nil {
		a.T.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// slack is what may come and go by itself: connections of a test, and the goroutines that serve them.
var slack = map[string]int{"descriptors": 4, "goroutines": 8}

// NoMore waits until there is no more of anything than there was before.
func (a *Agent) NoMore(before map[string]int) {
	a.T.Helper()
	var after map[string]int
	more := func() (what []string) {
		after = a.Counts()
		for name, n := range after {
			if n > before[name]+slack[name] {
				what = append(what, name)
			}
		}
		return what
	}
	for end := time.Now().Add(30 * time.Second); len(more()) > 0; time.Sleep(time.Second) {
		if time.Now().After(end) {
			a.T.Errorf("more %v: before %v, after %v", more(), before, after)
			return
		}
	}
	a.T.Logf("before %v, after %v", before, after)
}

// Rest waits until an agent has metered that its VMs are gone, and returns the counts of then.
func (a *Agent) Rest() map[string]int {
	a.T.Helper()
	a.Looks(1)
	return a.Counts()
}

// ProcessTime is the CPU time of the agent, in seconds.
func (a *Agent) ProcessTime() float64 {
	a.T.Helper()
	stat := read(a.T, fmt.Sprintf("/proc/%d/stat", a.PID()))
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	ticks := 0.0
	for _, field := range f[11:13] { // utime and stime, proc_pid_stat(5)
		ticks += number(a.T, field)
	}
	return ticks / 100
}

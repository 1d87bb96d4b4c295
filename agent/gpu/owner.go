package gpu

import (
	"path"
	"strings"
)

// ParseCgroup finds the VM of a process in the text of its /proc/PID/cgroup.
// base is the cgroup above all VMs, "/cloudflash/vms"; below it are
// <vm>/<scope>. The scope is empty for a process of the VM itself. Only the
// first two names are the agent's: what a VM makes below them does not count.
func ParseCgroup(text []byte, base string) (vm, scope string, ok bool) {
	for line := range strings.Lines(string(text)) {
		dir, unified := strings.CutPrefix(line, "0::")
		if !unified {
			continue
		}
		dir = strings.TrimSuffix(strings.TrimSuffix(dir, "\n"), " (deleted)")
		rest, below := strings.CutPrefix(dir, strings.TrimSuffix(path.Clean("/"+base), "/")+"/")
		if !below {
			return "", "", false
		}
		vm, rest, _ = strings.Cut(rest, "/")
		scope, _, _ = strings.Cut(rest, "/")
		return vm, scope, vm != ""
	}
	return "", "", false
}

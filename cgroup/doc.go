// Package cgroup drives cgroup v2: the slice of a VM, the scopes of its
// cloudlets, their limits and what they use. It knows nothing of VMs.
//
// Limits are written through github.com/containerd/cgroups/v3; what that library
// does not offer or does wrongly (a freeze that is over before anything is
// frozen, statistics that read as zero on an error, memory.reclaim, burst,
// kill) is done here with plain system calls. Files are written with
// unix.Open and unix.Write: an os.File parks the goroutine for ever when the
// kernel answers EAGAIN, as memory.reclaim does.
//
// A Watcher waits for what the kernel tells of itself: PSI triggers and modified
// memory.events.
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html,
// https://docs.kernel.org/accounting/psi.html
package cgroup

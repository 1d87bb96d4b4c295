// Package autoscale decides how big a VM should be now, and advises how big it
// should have been asked for. It is pure: what one look at a VM saw goes in,
// decisions come out. There is no clock (every sample carries its time), no
// goroutine, no I/O, no randomness: the same samples give the same decisions,
// live or replayed.
//
// A Scaler follows one VM. What it can see is what the kernel shows: use is
// never above the limit, so how much more is wanted has to be read from
// throttled periods, pressure and memory events.
//
// Growing has no cooldown and is sized to the need. Shrinking needs evidence: the
// peak of a window, a cooldown, a bounded step; a shrink that hurt is taken back
// and makes the window longer. Memory has two knobs: memory.high, the working
// limit, follows the working set; memory.max, the safety net, follows the peak of
// a day. Arrange brings the wishes of all VMs in line with what the host has.
//
// Where the constants come from is said where they stand. In short: Autopilot
// (margin, one hour, half-lives; doi 10.1145/3342195.3387524), Autothrottle's
// Captain (throttling targets, rollback; microsoft/autothrottle), the Kubernetes
// VPA (histograms, OOM) and HPA (300 s, 10 %, twice), Borg (300 s), and Senpai
// (memory pressure; facebookincubator/oomd).
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html,
// https://docs.kernel.org/accounting/psi.html,
// https://docs.kernel.org/scheduler/sched-bwc.html
package autoscale

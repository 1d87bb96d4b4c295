// Package systemtest runs tests against the whole agent: `cloudflash serve` as a process of its own, with a cgroup, a
// state folder and a socket of its own, on the real kernel and as root.
//
// An agent that runs and answers, with options of serve as they are needed:
//
//	a := systemtest.Start(t, "--idle-after", "5s")
//
// Limits and VMs stay as they were asked for unless an option says otherwise: autoscaling is off, idle VMs are kept.
// Without CLOUDFLASH_KERNEL_TESTS=1 a test is skipped where it cannot run. When it ends, all VMs are deleted, what
// the agent made is removed, and if the test has failed the end of the agent's log is printed. New makes one that has not
// been started; Spawn, Start, Kill, End and Restart are its life.
//
// The command line, as a person or a script would use it:
//
//	a.Out("vm", "create", "web", "--memory", "64MiB")            // must succeed
//	_, stderr, code := a.Run("vm", "create", "web")              // may fail
//	v := systemtest.JSON[agent.VM](a, "vm", "show", "web", "-o", "json")
//	v = a.VM("web")                                              // the same, shorter
//
// The API, where the command line would be too slow or has no such thing. An error is either no answer, or Refused:
//
//	v, err := systemtest.Call[agent.VM](a, "PATCH", "/api/v1/vms/web", map[string]any{"cpus": 2})
//
// Nothing sleeps for something to happen. It is waited for, up to a deadline:
//
//	a.Await("job", agent.CloudletRunning)
//	systemtest.Until(t, "the VM has grown", func() bool { return a.Number(v, "memory.max") > 64<<20 })
//
// The agent looks at its VMs once a second. What it must not do, it has not done some looks later:
//
//	a.Looks(3)
//
// What the kernel has is read from the cgroup of a VM, past the agent:
//
//	a.Slice(v, "cpu.max")                                        // the path; ControlFile, Number, Counters, Stalled read
//	quota := a.Follow(v, "cpu.max")                              // all that it holds, with times
//
// NewWorld is a network beyond the host. Counts, NoMore and NothingLeft tell what is left behind.
package systemtest

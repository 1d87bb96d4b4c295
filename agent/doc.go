// Package agent holds the VMs and cloudlets of one host: the nouns the API
// speaks, the operations on them, and what makes the kernel obey the stored intent:
// everything at a start (recover.go), later each change, by the code that stored it.
//
// Rules that hold everywhere in it: intent is stored before it is acted on;
// every step can be repeated or undone; nothing a cloudlet controls is followed
// as root. What it refuses is a fault.Error.
//
// Its files: agent.go ties the parts together, one_agent.go and no_database.go are why it
// may not start, recover.go brings kernel and store to agree after a start, sample.go is
// what happens once a second, queue.go what happens to cloudlets that wait or are due.
// vm*.go and cloudlet*.go are what is done to a VM and to a cloudlet, exec.go to a command
// of vm exec, idle*.go to VMs in which nothing goes on; scale*.go, advice.go and policies.go
// are what the parts for these are given and asked, capacity.go what the host has to
// promise, config.go what the agent is given at its start; host*.go, health.go, events.go,
// history.go and records.go are what is shown.
// The packages below it are told of in the README, under "How it is built".
//
// # Who owns what
//
// What is intended, and what became of it, is in agent/state and nowhere else:
// records of VMs and cloudlets, events, decisions, operations, tokens, the host's
// policy. It has one writer: state.DB.Update runs a change alone, after all before it
// and before all after it, and returns once it is on the disk. Everybody reads a
// view (Agent.state.View), which costs no lock and never changes; a record in it is
// as old as the view, and who decides on one does so in a change.
//
// What a VM has in the kernel is in agent/vm: the connection to its init, its meter, its
// limits as last read, its addresses. What changes the VM there is a method of vm.Lease,
// of which there is one for each VM at a time: create, resize, freeze, delete, recover. A
// cloudlet's scope belongs to whoever starts or ends it, and needs no lease. The loop of
// agent/scaling hands a lease on to the goroutine that writes the limits.
//
// What is only measured, shown or counted is in the fields of Agent under Agent.held:
// usage as last read, sessions, how long a VM has been idle. None of either is stored; all
// of it is found again after a start. agent/vm, agent/scaling, agent/pages, agent/advice
// and agent/tokens keep what is theirs; they ask the agent by what they were given at the
// start. A change writes there in Tx.Then, when it is stored, unless it is a sign of life or
// worked out anew each time.
//
// # In which order
//
// Locks are taken in this order: the lease of a VM, that of agent/scaling, Agent.showing,
// that of a change, Agent.held, those of the other parts. A change may take held for a
// moment, so nobody calls Update with it.
// What gives a VM work (a cloudlet placed or submitted, a session, a change of its
// spec) and what takes an idle VM away are changes, even those that store nothing: so
// one comes before the other, and the second sees the first.
//
// # What may block
//
// With a lease: anything the kernel does, bounded by a timeout. In Update: one synced
// write, for all changes that wait. Never with held, nor in a change: they touch
// memory, and read facts of the host. A reader waits for nobody but the holder of held.
//
// What cannot be stored has not happened: the change is refused (fault.ErrFull where
// the disk has no room) and memory is as before. What has happened all the same, such
// as the end of a cloudlet, is tried again until it is stored; the journal of the VM's
// init keeps it until then.
package agent

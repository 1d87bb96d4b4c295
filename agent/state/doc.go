// Package state holds what is intended on this host and what became of it: VMs,
// cloudlets, the system log, decisions of autoscaling, operations, tokens and
// the host's policy, in memory and on disk.
//
// There is one writer. A change is a small function that Update runs, alone, on
// a Tx: it reads, decides and puts records. Changes that are waiting are stored
// together in one synced transaction of agent/store, and only then published and
// answered, so what anybody has seen is on disk. What cannot be stored is refused
// and leaves memory as it was. The order of changes is that of their events.
//
// There are many readers. A View is what was stored at one moment. It costs no
// lock, waits for no disk and never changes, as nothing that is reached from it
// does: records are replaced, not written to. Whoever has one reads records
// through indexes; what has ended is kept apart, so that no look at what goes on
// costs more because of it.
//
// What is measured is no state: usage and limits as the kernel has them are kept
// by whoever reads them. The stored form of a record is its JSON, which later
// agents have to read; how the API shows it is the agent's.
package state

// Package agent holds the VMs and cloudlets of one host: the nouns the API
// speaks, the operations on them, and the reconcile loop that makes the kernel
// obey the stored intent.
//
// Rules that hold everywhere in it: intent is stored before it is acted on;
// every step can be repeated or undone; nothing a cloudlet controls is followed
// as root. Limits live in package cgroup, namespaces in agent/guest, records in
// agent/store, samples in agent/meter, queue order in agent/schedule.
package agent

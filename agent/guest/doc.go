// Package guest is the inside of a VM as the agent sees it: it starts the VM's
// cloudflash-init in new namespaces, hands it the root file system, and asks it
// to start and signal processes.
//
// The init outlives the agent. Connect finds it again by its socket; exits that
// nobody has acknowledged are told again. What an init that has died could not
// tell any more is in its journal (ReadJournal).
//
// Nothing here trusts the VM: paths inside it are never opened from outside,
// and of the init's answers only process ids, times and exit codes are used,
// each checked against the cgroup they must be in.
package guest

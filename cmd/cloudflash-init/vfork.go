package main

// vfork is clone3 with CLONE_VM and CLONE_VFORK among its flags. The child runs on
// this very stack until it executes another program or ends, and the thread that
// called waits for that. It is written in assembly because the child would
// otherwise overwrite the address that the parent returns to.
//
//go:noescape
func vfork(args *cloneArgs, size uintptr) (pid, errno uintptr)

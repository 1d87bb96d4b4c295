package main

import (
	"syscall"
	"unsafe"

	"cloudflash/agent/guest/wire"

	"golang.org/x/sys/unix"
)

// child is everything a new process needs between fork and exec. The two share
// their memory until then: what the child writes here, init reads.
type child struct {
	cgroup, stdin, stdout, stderr int
	null, master                  int  // opened here, closed again by close; -1 when there is none
	terminal                      bool // stdin is one, to be its controlling terminal
	argv, env, paths              []*byte
	dir                           *byte
	prog                          unix.SockFprog
	failed                        syscall.Errno // why it did not come to exec
	stage                         byte          // and where
}

func (c *child) setFilter(f []unix.SockFilter) {
	if len(f) > 0 {
		c.prog = unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	}
}

func (c *child) close() {
	for _, fd := range [...]int{c.null, c.master} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// The runtime's side of a fork, offered to those who make their own
// (go.dev/issue/67401): os/exec would need a second program between fork and
// exec to drop capabilities and load the filter.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// cloneArgs is struct clone_args of linux/sched.h, version 2 (Linux 5.7).
type cloneArgs struct {
	flags      uint64
	_          [3]uint64 // pidfd, child_tid, parent_tid
	exitSignal uint64
	_          [5]uint64 // stack, stack_size, tls, set_tid, set_tid_size
	cgroup     uint64
}

// keepCaps is what root in a VM may do: what is bound to the VM's own
// namespaces and ids. Missing on purpose, among others: SYS_ADMIN, SYS_PTRACE,
// MKNOD, SYS_RESOURCE, NET_ADMIN, NET_RAW: what raw sockets receive is charged to nobody.
const keepCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID |
	1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP |
	1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_CHROOT

const lastCap = 63 // those the kernel does not know answer EINVAL

// oomScore is where a process gives up the protection from the OOM killer that it
// has inherited from init. It cannot take it back: the agent has set the lowest
// value it may choose (guest.protect).
var (
	oomScore  = [...]byte{'/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 'o', 'o', 'm', '_', 's', 'c', 'o', 'r', 'e', '_', 'a', 'd', 'j', 0}
	noDefence = [...]byte{'0'}
)

// openFiles is how many descriptors a program may have: as many as select(2) can deal with,
// and more when it asks for them.
var openFiles = unix.Rlimit{Cur: 1024, Max: wire.MaxOpenFiles}

// fork makes the process inside its cgroup and returns when it has executed its
// program or failed to. In the child it does not return.
//
// Between fork and exec only raw system calls are allowed: no allocation, no
// stack growth, no lock. Other threads of init go on meanwhile.
//
//go:noinline
//go:norace
func (c *child) fork() (syscall.Errno, int) {
	var (
		args = cloneArgs{flags: unix.CLONE_INTO_CGROUP | unix.CLONE_VM | unix.CLONE_VFORK, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(c.cgroup)}
		caps = [2]uint32{unix.LINUX_CAPABILITY_VERSION_3, 0}
		data = [6]uint32{keepCaps, keepCaps, 0, 0, 0, 0}
	)
	beforeFork()
	pid, failed := vfork(&args, unsafe.Sizeof(args))
	if failed != 0 || pid != 0 {
		afterFork()
		return syscall.Errno(failed), int(pid)
	}
	afterForkInChild()
	c.become(&caps, &data)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// become turns the child into its program. It returns only when that failed, with
// the reason in c. It must not grow the stack: beforeFork has forbidden that.
//
//go:noinline
//go:nosplit
//go:norace
func (c *child) become(caps *[2]uint32, data *[6]uint32) {
	var (
		fd, i uintptr
		errno syscall.Errno
	)
	c.stage = stageOOM
	fd, _, errno = syscall.RawSyscall6(unix.SYS_OPENAT, ^uintptr(0)-99, uintptr(unsafe.Pointer(&oomScore)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0) // AT_FDCWD
	if errno != 0 {
		goto fail
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&noDefence)), 1); errno != 0 {
		goto fail
	}

	c.stage = stageFiles
	_, _, _ = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.stdin), 0, 0); errno != 0 {
		goto fail
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.stdout), 1, 0); errno != 0 {
		goto fail
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.stderr), 2, 0); errno != 0 {
		goto fail
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 3, ^uintptr(0)>>32, unix.CLOSE_RANGE_CLOEXEC); errno != 0 {
		goto fail
	}
	// Go raises the soft limit of its own process at its start.
	if _, _, errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&openFiles)), 0, 0, 0); errno != 0 {
		goto fail
	}

	if c.terminal {
		c.stage = stageTerminal
		if _, _, errno = syscall.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0); errno != 0 {
			goto fail
		}
	}

	c.stage = stageCgroup
	if _, _, errno = syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP, 0, 0); errno != 0 {
		goto fail
	}
	c.stage = stageDir
	if _, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0); errno != 0 {
		goto fail
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_UMASK, 0o022, 0, 0)
	c.stage = stageCaps
	for i = 0; i <= lastCap; i++ {
		if i < 32 && keepCaps&(1<<i) != 0 {
			continue
		}
		_, _, errno = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, i, 0)
		if errno == unix.EINVAL {
			break
		}
		if errno != 0 {
			goto fail
		}
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(caps)), uintptr(unsafe.Pointer(data)), 0); errno != 0 {
		goto fail
	}
	c.stage = stageSeccomp
	if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		goto fail
	}
	if c.prog.Len > 0 {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&c.prog))); errno != 0 {
			goto fail
		}
	}

	c.stage = stageExec
	for i = 0; i < uintptr(len(c.paths)); i++ {
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.paths[i])),
			uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.env[0])))
		if errno != unix.ENOENT && errno != unix.ENOTDIR && c.failed == 0 {
			c.failed = errno // like execvp: go on, but a file that was there tells more
		}
	}
	if c.failed != 0 {
		return
	}
fail:
	c.failed = errno
}

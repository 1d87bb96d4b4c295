package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// child is everything a new process needs between fork and exec.
type child struct {
	cgroup, stdout, stderr, gate int
	status, null                 int
	argv, env, paths             []*byte
	dir                          *byte
	prog                         unix.SockFprog
}

func (c *child) setFilter(f []unix.SockFilter) {
	if len(f) > 0 {
		c.prog = unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	}
}

func (c *child) close() {
	for _, fd := range [...]int{c.status, c.null} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// The runtime's side of a fork, offered to those who make their own
// (go.dev/issue/67401): os/exec would need a second program between fork and
// exec to wait at the gate, drop capabilities and load the filter.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// cloneArgs is struct clone_args of linux/sched.h, version 2 (Linux 5.7).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// keepCaps is what root in a VM may do: what is bound to the VM's own
// namespaces and ids. Missing on purpose, among others: SYS_ADMIN, SYS_PTRACE,
// MKNOD, SYS_RESOURCE, NET_ADMIN.
const keepCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID |
	1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP |
	1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_CHROOT

const lastCap = 63 // those the kernel does not know answer EINVAL

// fork makes the process inside its cgroup. In the child it does not return.
//
// Between fork and exec only raw system calls are allowed: no allocation, no
// stack growth, no lock. Other threads of init do not exist in the child.
//
//go:noinline
//go:norace
func (c *child) fork() (pid uintptr, errno syscall.Errno) {
	var (
		args  = cloneArgs{flags: unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(c.cgroup)}
		caps  = [2]uint32{unix.LINUX_CAPABILITY_VERSION_3, 0}
		data  = [6]uint32{keepCaps, keepCaps, 0, 0, 0, 0}
		stage = [2]uint32{0, uint32(stageGate)} // errno and stage, as outcome reads them
		one   [1]byte
		n, i  uintptr
	)
	beforeFork()
	pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()

	// The gate: the agent now lifts the protection from the OOM killer that was
	// inherited from init, and says go. If the agent is gone, so is the child.
	if _, _, errno = syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.gate), uintptr(unsafe.Pointer(&one)), 1, unix.MSG_NOSIGNAL, 0, 0); errno != 0 {
		goto fail
	}
	for {
		n, _, errno = syscall.RawSyscall(unix.SYS_READ, uintptr(c.gate), uintptr(unsafe.Pointer(&one)), 1)
		if errno != unix.EINTR {
			break
		}
	}
	if errno == 0 && n != 1 {
		errno = unix.EPIPE
	}
	if errno != 0 {
		goto fail
	}

	stage[1] = uint32(stageFiles)
	_, _, _ = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(c.null), 0, 0); errno != 0 {
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

	stage[1] = uint32(stageCgroup)
	if _, _, errno = syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP, 0, 0); errno != 0 {
		goto fail
	}
	stage[1] = uint32(stageDir)
	if _, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0); errno != 0 {
		goto fail
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_UMASK, 0o022, 0, 0)
	stage[1] = uint32(stageCaps)
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
	if _, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&caps)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		goto fail
	}
	stage[1] = uint32(stageSeccomp)
	if _, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		goto fail
	}
	if c.prog.Len > 0 {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&c.prog))); errno != 0 {
			goto fail
		}
	}

	stage[1] = uint32(stageExec)
	for i = 0; i < uintptr(len(c.paths)); i++ {
		_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(c.paths[i])),
			uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.env[0])))
		if errno != unix.ENOENT && errno != unix.ENOTDIR && stage[0] == 0 {
			stage[0] = uint32(errno) // like execvp: go on, but a file that was there tells more
		}
	}
	if stage[0] != 0 {
		errno = syscall.Errno(stage[0])
	}

fail:
	stage[0] = uint32(errno)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.status), uintptr(unsafe.Pointer(&stage)), 8)
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

package guest

// allowed are the system calls that cloudlets may make: those that container
// engines allow by default to a process with the capabilities that cloudflash-init
// leaves it (keepCaps in its child.go), without io_uring, io_setup, modify_ldt, fanotify and
// name_to_handle_at, which reach far into the kernel for little. Names that an
// architecture lacks are skipped there. Calls judged by their arguments are in
// filtered.
//
// https://github.com/moby/profiles/blob/main/seccomp/default.json
var allowed = []string{
	// Processes, threads, signals, time. uretprobe is made by the kernel's own trampoline.
	"alarm", "arch_prctl", "brk", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue",
	"futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getcpu", "getegid", "geteuid", "getgid", "getgroups",
	"getitimer", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage",
	"getsid", "gettid", "gettimeofday", "getuid", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset",
	"landlock_restrict_self", "membarrier", "nanosleep", "pause", "pidfd_open", "pidfd_send_signal", "prctl",
	"process_mrelease", "process_vm_readv", "process_vm_writev", "ptrace", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending",
	"rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_get_priority_max",
	"sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
	"sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list",
	"set_thread_area", "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "setitimer", "setpgid", "setpriority", "setregid",
	"setresgid", "setresuid", "setreuid", "setrlimit", "setsid", "setuid", "sigaltstack", "sysinfo", "tgkill", "time", "times", "tkill",
	"timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
	"timerfd_settime", "umask", "uname", "uretprobe", "vfork", "wait4", "waitid",
	// The clock may be asked; changing it takes CAP_SYS_TIME.
	"adjtimex", "clock_adjtime", "clock_getres", "clock_gettime", "clock_nanosleep",
	// Memory.
	"cachestat", "madvise", "map_shadow_stack", "memfd_secret", "mincore", "mlock", "mlock2", "mlockall", "mprotect",
	"mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect", "remap_file_pages",
	// Files. mknod makes fifos; devices take CAP_MKNOD.
	"access", "chdir", "chmod", "chown", "chroot", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3", "faccessat",
	"faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync",
	"fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat", "fstatat", "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd",
	"getdents", "getdents64", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "lchown",
	"lgetxattr", "link", "linkat", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "mkdir", "mkdirat",
	"mknod", "mknodat", "newfstatat", "open", "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read",
	"readahead", "readlink", "readlinkat", "readv", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir", "sendfile",
	"setxattr", "setxattrat", "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee",
	"truncate", "unlink", "unlinkat", "utime", "utimensat", "utimes", "vmsplice", "write", "writev",
	// Waiting for files.
	"epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
	"pipe", "pipe2", "poll", "ppoll", "pselect6", "select", "signalfd",
	"signalfd4",
	// Sockets and IPC.
	"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "mq_getsetattr", "mq_notify", "mq_open",
	"mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "recvfrom", "recvmmsg", "recvmsg", "semctl",
	"semget", "semop", "semtimedop", "sendmmsg", "sendmsg", "sendto", "shmat", "shmctl", "shmdt", "shmget", "shutdown",
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attacks run inside a VM, as its root. Each returns what it has got hold of;
// "" is that the walls held.
var attacks = map[string]func(args []string) string{
	"forbidden calls":   forbiddenCalls,
	"namespaces":        namespaces,
	"the init":          theInit,
	"writable kernel":   writableKernel,
	"devices":           devices,
	"priorities":        priorities,
	"limits of its own": raiseLimits,
	"sockets":           sockets,
	"modules":           modules,
	"uncharged memory":  uncharged,
	"setuid":            setuid,
	"mount flags":       mountFlags,
	"files of the host": filesOfTheHost,
	"file attributes":   fileAttributes,
	"image":             imageIsARoot,
	"inotify": func(_ []string) string {
		return exhaust(func() error { _, err := unix.InotifyInit1(0); return err }, 100000, false)
	},
	"terminals": func(_ []string) string {
		return exhaust(func() error { _, err := unix.Open("/dev/ptmx", unix.O_RDWR, 0); return err }, 1000, true)
	},
	// More than a host of this size had for all.
	"descriptors": func(_ []string) string {
		return exhaust(func() error { _, err := unix.Open("/dev/null", unix.O_RDWR, 0); return err }, 250000, false)
	},
	"shared memory":   func(_ []string) string { return exhaust(sharedMemory, 1<<20, false) },
	"message queues":  func(_ []string) string { return exhaust(messageQueue(), 1<<20, true) },
	"files in memory": filesInMemory,
	"deep":            deep,
}

func attack(args []string) {
	f := attacks[args[0]]
	if f == nil {
		fmt.Println("BREACH: no such attack")
		return
	}
	if said := f(args[1:]); said != "" {
		fmt.Println("BREACH:", said)
		return
	}
	fmt.Println("held")
}

// try names what has worked that should not.
type try struct{ worked []string }

func (t *try) must(what string, err error) {
	if err == nil {
		t.worked = append(t.worked, what)
	}
}

func (t *try) call(what string, nr uintptr, a ...uintptr) {
	var arg [6]uintptr
	copy(arg[:], a)
	_, _, errno := unix.RawSyscall6(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5])
	if errno == 0 {
		t.worked = append(t.worked, what)
	}
}

func (t *try) String() string { return strings.Join(t.worked, ", ") }

var kept []any // what system calls were told to look at

func keep[T any](v *T) uintptr {
	kept = append(kept, v)
	return uintptr(unsafe.Pointer(v))
}

func text(s string) uintptr { return keep(&append([]byte(s), 0)[0]) }

func forbiddenCalls([]string) string {
	var t try
	var buf [4096]byte
	p := keep(&buf)
	cwd := ^uintptr(99) // AT_FDCWD
	t.must("mount tmpfs", unix.Mount("x", "/tmp", "tmpfs", 0, ""))
	t.must("mount bind", unix.Mount("/", "/tmp", "", unix.MS_BIND, ""))
	t.must("mount cgroup2", unix.Mount("x", "/tmp", "cgroup2", 0, ""))
	t.must("remount /usr", unix.Mount("", "/usr", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	t.must("umount /proc", unix.Unmount("/proc", unix.MNT_DETACH))
	t.must("pivot_root", unix.PivotRoot(".", "."))
	t.call("fsopen", unix.SYS_FSOPEN, text("tmpfs"), 0)
	t.call("fspick", unix.SYS_FSPICK, cwd, text("/"), 0)
	t.call("open_tree", unix.SYS_OPEN_TREE, cwd, text("/"), unix.OPEN_TREE_CLONE)
	t.call("move_mount", unix.SYS_MOVE_MOUNT, cwd, text("/data"), cwd, text("/tmp"), 0)
	t.call("mount_setattr", unix.SYS_MOUNT_SETATTR, cwd, text("/usr"), 0, p, 32)
	t.call("init_module", unix.SYS_INIT_MODULE, p, 10, text(""))
	t.call("finit_module", unix.SYS_FINIT_MODULE, 0, text(""), 0)
	t.call("delete_module", unix.SYS_DELETE_MODULE, text("loop"), 0)
	t.call("bpf", unix.SYS_BPF, 0, p, 128)
	t.call("perf_event_open", unix.SYS_PERF_EVENT_OPEN, p, 0, ^uintptr(0), ^uintptr(0), 0)
	t.call("io_uring_setup", unix.SYS_IO_URING_SETUP, 8, p)
	t.call("userfaultfd", unix.SYS_USERFAULTFD, 1)
	t.call("keyctl", unix.SYS_KEYCTL, 0, ^uintptr(2), 1)
	t.call("add_key", unix.SYS_ADD_KEY, text("user"), text("x"), p, 8, ^uintptr(3))
	t.call("request_key", unix.SYS_REQUEST_KEY, text("user"), text("x"), 0, 0)
	t.call("fanotify_init", unix.SYS_FANOTIFY_INIT, 0, 0)
	t.call("quotactl", unix.SYS_QUOTACTL, 0, 0, 0, 0)
	t.call("open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, cwd, p, 0)
	t.call("syslog", unix.SYS_SYSLOG, 3, p, 4096)
	t.call("acct", unix.SYS_ACCT, 0)
	t.call("swapon", unix.SYS_SWAPON, text("/data/hostile"), 0)
	t.call("reboot", unix.SYS_REBOOT, unix.LINUX_REBOOT_MAGIC1, unix.LINUX_REBOOT_MAGIC2, unix.LINUX_REBOOT_CMD_CAD_OFF)
	t.call("kexec_load", unix.SYS_KEXEC_LOAD, 0, 0, 0, 0)
	t.must("sethostname", unix.Sethostname([]byte("owned")))
	t.must("setdomainname", unix.Setdomainname([]byte("owned")))
	t.must("settimeofday", unix.Settimeofday(&unix.Timeval{Sec: 1}))
	t.must("clock_settime", unix.ClockSettime(unix.CLOCK_REALTIME, &unix.Timespec{Sec: 1}))
	_, err := unix.Adjtimex(&unix.Timex{Modes: 2, Freq: 1})
	t.must("adjtimex", err)
	t.call("personality", unix.SYS_PERSONALITY, 0x40000)
	t.call("statmount", unix.SYS_STATMOUNT, p, p, 4096, 0)
	t.call("vhangup", unix.SYS_VHANGUP)
	return t.String()
}

func namespaces([]string) string {
	var t try
	for name, flag := range map[string]uintptr{"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS, "net": unix.CLONE_NEWNET, "pid": unix.CLONE_NEWPID,
		"ipc": unix.CLONE_NEWIPC, "uts": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME} {
		t.must("unshare "+name, unix.Unshare(int(flag)))
		if name != "time" { // not a flag of clone
			t.call("clone "+name, unix.SYS_CLONE, flag|uintptr(unix.SIGCHLD))
		}
	}
	args := [11]uint64{0: unix.CLONE_NEWUSER, 4: uint64(unix.SIGCHLD)}
	t.call("clone3 user", unix.SYS_CLONE3, keep(&args), unsafe.Sizeof(args))
	for _, kind := range []string{"user", "mnt", "net", "pid", "ipc", "uts", "cgroup"} {
		_, err := unix.Open("/proc/1/ns/"+kind, unix.O_RDONLY, 0)
		t.must("open the init's "+kind, err)
		if fd, err := unix.Open("/proc/self/ns/"+kind, unix.O_RDONLY, 0); err == nil {
			t.must("setns "+kind, unix.Setns(fd, 0))
		}
	}
	return t.String()
}

func theInit([]string) string {
	var t try
	for _, file := range []string{"mem", "root/etc", "cwd/etc", "environ", "maps", "exe", "fd/3", "fd/4", "map_files", "stack", "io", "personality"} {
		if file == "map_files" {
			_, err := os.ReadDir("/proc/1/map_files")
			t.must(file, err)
			continue
		}
		_, err := os.ReadFile("/proc/1/" + file)
		if errors.Is(err, syscall.EISDIR) {
			err = nil
		}
		t.must("/proc/1/"+file, err)
	}
	// oom_score_adj can be raised: it is the VM's own init that dies of it. Not lowered for others, see priorities.
	for _, file := range []string{"timerslack_ns", "comm", "uid_map", "gid_map", "setgroups", "clear_refs"} {
		err := os.WriteFile("/proc/1/"+file, []byte("0"), 0)
		t.must("write /proc/1/"+file, err)
	}
	t.call("ptrace attach", unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1)
	t.call("ptrace seize", unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1)
	var buf [64]byte
	local := []unix.Iovec{{Base: &buf[0], Len: 64}}
	_, err := unix.ProcessVMReadv(1, local, []unix.RemoteIovec{{Base: 0x400000, Len: 64}}, 0)
	t.must("read its memory", err)
	if pidfd, err := unix.PidfdOpen(1, 0); err == nil {
		_, err := unix.PidfdGetfd(pidfd, 3, 0)
		t.must("take its socket", err)
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
	t.must("prlimit", unix.Prlimit(1, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 3}, nil))
	for sig := 1; sig <= 64; sig++ {
		_ = unix.Kill(1, unix.Signal(sig))
	}
	_ = unix.Kill(-1, unix.SIGCONT)
	if b, err := os.ReadFile("/proc/1/comm"); err != nil || string(b) != "cloudflash-init\n" {
		t.worked = append(t.worked, "it is gone")
	}
	return t.String()
}

// writableKernel opens everything in /proc and /sys that is not of a process.
func writableKernel([]string) string {
	var t try
	for _, top := range []string{"/proc", "/sys"} {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if d.IsDir() && top == "/proc" && (strings.Trim(d.Name(), "0123456789") == "" || d.Name() == "task") {
				return fs.SkipDir
			}
			if d.IsDir() && top == "/sys" && strings.Count(path, "/") > 3 {
				return fs.SkipDir // there are a great many, on one read-only mount
			}
			if d.Type().IsRegular() {
				fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK, 0)
				var st unix.Stat_t
				if err == nil && unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG { // else it is masked by /dev/null
					t.worked = append(t.worked, path)
				}
				if err == nil {
					_ = unix.Close(fd)
				}
			}
			return nil
		})
	}
	for _, secret := range []string{"/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/timer_list", "/proc/interrupts"} {
		if b, err := os.ReadFile(secret); err == nil && len(b) > 0 {
			t.worked = append(t.worked, "read "+secret)
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
		case d.IsDir():
			t.must("make a cgroup in "+path, os.Mkdir(path+"/own", 0o755))
		default:
			fd, err := unix.Open(path, unix.O_WRONLY, 0)
			t.must("write "+path, err)
			if err == nil {
				_ = unix.Close(fd)
			}
		}
		return nil
	})
	return t.String()
}

func devices([]string) string {
	var t try
	for _, d := range []struct {
		name string
		mode uint32
		dev  uint64
	}{{"mem", unix.S_IFCHR, unix.Mkdev(1, 1)}, {"kmsg", unix.S_IFCHR, unix.Mkdev(1, 11)}, {"vda", unix.S_IFBLK, unix.Mkdev(254, 0)}, {"loop0", unix.S_IFBLK, unix.Mkdev(7, 0)}, {"null", unix.S_IFCHR, unix.Mkdev(1, 3)}} {
		for _, dir := range []string{"/data", "/tmp", "/dev", "/dev/shm"} {
			t.must("mknod "+dir+"/"+d.name, unix.Mknod(dir+"/x"+d.name, d.mode|0o666, int(d.dev)))
		}
		_, err := os.OpenFile("/dev/"+d.name, os.O_RDWR, 0)
		if d.name != "null" {
			t.must("open /dev/"+d.name, err)
		}
	}
	pty, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return "no terminal: " + err.Error()
	}
	c := byte('x')
	t.call("TIOCSTI", unix.SYS_IOCTL, uintptr(pty), unix.TIOCSTI, keep(&c))
	t.call("TIOCLINUX", unix.SYS_IOCTL, uintptr(pty), unix.TIOCLINUX, keep(&c))
	return t.String()
}

func priorities([]string) string {
	var t try
	t.must("nice -20", unix.Setpriority(unix.PRIO_PROCESS, 0, -20))
	t.must("nice -1", unix.Setpriority(unix.PRIO_PROCESS, 0, -1))
	for name, a := range map[string]unix.SchedAttr{"SCHED_FIFO": {Policy: 1, Priority: 1}, "SCHED_RR": {Policy: 2, Priority: 99},
		"SCHED_DEADLINE": {Policy: 6, Runtime: 1e6, Deadline: 1e7, Period: 1e7}} {
		a.Size = unix.SizeofSchedAttr
		t.must(name, unix.SchedSetAttr(0, &a, 0))
	}
	t.call("ioprio RT", unix.SYS_IOPRIO_SET, 1, 0, 1<<13)
	t.must("oom_score_adj", os.WriteFile("/proc/self/oom_score_adj", []byte("-1"), 0))
	t.must("oom_adj", os.WriteFile("/proc/self/oom_adj", []byte("-17"), 0))
	return t.String()
}

func raiseLimits([]string) string {
	var t try
	for resource := range 16 {
		var have unix.Rlimit
		if unix.Getrlimit(resource, &have) == nil && have.Max != unix.RLIM_INFINITY {
			t.must(fmt.Sprintf("rlimit %d", resource), unix.Prlimit(0, resource, &unix.Rlimit{Cur: have.Max + 1, Max: have.Max + 1}, nil))
		}
		if resource == unix.RLIMIT_RTPRIO || resource == unix.RLIMIT_NICE {
			if have.Max != 0 {
				t.worked = append(t.worked, fmt.Sprintf("rlimit %d is %d", resource, have.Max))
			}
		}
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"} {
		t.must("cgroup.procs", os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0))
		t.must("memory.max", os.WriteFile(dir+"/memory.max", []byte("max"), 0))
	}
	return t.String()
}

// modules asks for what the kernel may have a module for. The host sees which it was asked for.
func modules([]string) string {
	for family := range 50 {
		for kind := range 11 {
			for _, protocol := range []int{0, 1, 6, 17, 31, 33, 58, 132, 136, 262, 4711} {
				tryClose(unix.Socket(family, kind, protocol))
				if fds, err := unix.Socketpair(family, kind, protocol); err == nil {
					_, _ = unix.Close(fds[0]), unix.Close(fds[1])
				}
			}
		}
	}
	for protocol := range 40 {
		tryClose(unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, protocol))
	}

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return "no socket: " + err.Error()
	}
	request := keep(&[64]byte{'n', 'o', 's', 'u', 'c', 'h'})
	for _, nr := range []uintptr{unix.SIOCGIFVLAN, unix.SIOCSIFVLAN, unix.SIOCGIFBR, unix.SIOCSIFBR,
		unix.SIOCBRADDBR, unix.SIOCBRDELBR, unix.SIOCGIFINDEX} {
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nr, request)
	}
	_ = unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_CONGESTION, "nosuchcontrol")
	_ = unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_ULP, "nosuchulp")
	key := make([]byte, 0xa8) // struct tcp_ao_add of linux/tcp.h
	key[0] = unix.AF_INET
	copy(key[128:], "nosuchhash")
	_ = unix.SetsockoptString(fd, unix.SOL_TCP, 38, string(key))

	if pty, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0); err == nil {
		for discipline := range 31 {
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(pty), unix.TIOCSETD, keep(&discipline))
		}
	}
	return ""
}

func tryClose(fd int, err error) {
	if err == nil {
		_ = unix.Close(fd)
	}
}

// uncharged opens what holds memory of the kernel that no cgroup is charged for.
func uncharged([]string) string {
	var t try
	for name, s := range map[string][3]int{
		"a packet socket":          {unix.AF_PACKET, unix.SOCK_RAW, 0},
		"a packet socket, cooked":  {unix.AF_PACKET, unix.SOCK_DGRAM, 0},
		"a raw socket":             {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		"a raw socket, IPv6":       {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
		"a socket to other users":  {unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_USERSOCK},
		"one for socket diagnosis": {unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_SOCK_DIAG},
		"one for events":           {unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_KOBJECT_UEVENT},
	} {
		_, err := unix.Socket(s[0], s[1], s[2])
		t.must(name, err)
	}
	var ctx uintptr
	t.call("asynchronous IO", unix.SYS_IO_SETUP, 128, keep(&ctx))
	_, err := unix.Mmap(-1, 0, 2<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_HUGETLB)
	t.must("a huge page", err)
	_, err = unix.MemfdCreate("huge", unix.MFD_HUGETLB)
	t.must("a file of huge pages", err)
	_, err = unix.SysvShmGet(unix.IPC_PRIVATE, 2<<20, 0o600|shmHugeTLB)
	t.must("shared huge pages", err)
	return t.String()
}

const shmHugeTLB = 0o4000 // SHM_HUGETLB of linux/shm.h

// sockets gets the addresses that the host listens on.
func sockets(listening []string) string {
	var t try
	for _, family := range []int{unix.AF_VSOCK, unix.AF_ALG, unix.AF_TIPC, unix.AF_BLUETOOTH, unix.AF_CAN, unix.AF_RDS, unix.AF_KEY, unix.AF_XDP, unix.AF_SMC} {
		_, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		_, err2 := unix.Socket(family, unix.SOCK_SEQPACKET, 0)
		_, err3 := unix.Socket(family, unix.SOCK_RAW, 0)
		t.must(fmt.Sprintf("address family %d", family), err)
		t.must(fmt.Sprintf("address family %d", family), err2)
		t.must(fmt.Sprintf("address family %d", family), err3)
	}
	for _, address := range listening {
		kind, where, _ := strings.Cut(address, ":")
		c, err := net.Dial(kind, where)
		t.must("connect to "+address, err)
		if err == nil {
			_ = c.Close()
		}
	}
	return t.String()
}

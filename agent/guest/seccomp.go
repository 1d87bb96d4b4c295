package guest

import (
	"cmp"
	"runtime"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// denied are the system calls that no cloudlet has a use for and that reach the
// whole kernel, or that only an owner of namespaces may make. The list follows
// the default profile of container engines.
var denied = []string{
	"acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick",
	"init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie",
	"mount", "mount_setattr", "move_mount", "name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root",
	"quotactl", "reboot", "request_key", "setns", "settimeofday", "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd", "vhangup",
	// These exist on amd64 only.
	"_sysctl", "create_module", "get_kernel_syms", "ioperm", "iopl", "modify_ldt", "query_module", "sysfs", "uselib", "ustat",
}

// namespaceFlags are those of clone(2) that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// What a filter answers: seccomp(2), linux/seccomp.h.
const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retErrno = unix.SECCOMP_RET_ERRNO
)

// Where a filter finds what it decides on: struct seccomp_data, little-endian.
var (
	loadNumber = bpf.LoadAbsolute{Off: 0, Size: 4}
	loadArch   = bpf.LoadAbsolute{Off: 4, Size: 4}
	loadFlags  = bpf.LoadAbsolute{Off: 16, Size: 4} // the low half of the first argument
)

const x32Bit = 0x40000000 // marks calls of the x32 ABI, which share amd64's AUDIT_ARCH

// seccompFilter assembles the filter of every cloudlet: an array of struct
// sock_filter. Denied calls answer EPERM. clone3 answers ENOSYS, for its flags
// are out of a filter's reach and libraries then fall back to clone. So does
// every call of another architecture: 32-bit programs do not run.
//
// The kernel runs a new filter once for every call there is, to remember those
// that are always allowed (seccomp_cache_prepare, Linux 5.11), and each cloudlet
// brings a new filter: as a search tree it starts them faster than as a list.
func seccompFilter() ([]byte, error) {
	table, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	eperm, enosys := bpf.RetConstant{Val: retErrno | uint32(unix.EPERM)}, bpf.RetConstant{Val: retErrno | uint32(unix.ENOSYS)}
	rules := []rule{
		{uint32(table.SyscallNames["clone3"]), []bpf.Instruction{enosys}},
		{uint32(table.SyscallNames["clone"]), []bpf.Instruction{loadFlags, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaceFlags, SkipFalse: 1}, eperm}},
	}
	for _, name := range denied {
		if nr, ok := table.SyscallNames[name]; ok {
			rules = append(rules, rule{uint32(nr), []bpf.Instruction{eperm}})
		}
	}
	slices.SortFunc(rules, func(a, b rule) int { return cmp.Compare(a.nr, b.nr) })
	program := append([]bpf.Instruction{
		loadArch, bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch(), SkipTrue: 1}, enosys,
		loadNumber, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1}, enosys,
	}, tree(rules)...)
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, i := range raw {
		b = append(b, byte(i.Op), byte(i.Op>>8), i.Jt, i.Jf, byte(i.K), byte(i.K>>8), byte(i.K>>16), byte(i.K>>24))
	}
	return b, nil
}

// rule is what happens at one system call, unless the instructions run past
// their end.
type rule struct {
	nr   uint32
	then []bpf.Instruction
}

// tree finds the rule of the loaded number by halving, and allows what has none.
func tree(rules []rule) []bpf.Instruction {
	allow := bpf.RetConstant{Val: retAllow}
	if len(rules) == 1 {
		then := rules[0].then
		return append(append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpEqual, Val: rules[0].nr, SkipFalse: uint8(len(then))}}, then...), allow)
	}
	half := len(rules) / 2
	below, above := tree(rules[:half]), tree(rules[half:])
	jump := bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: rules[half].nr, SkipTrue: uint8(len(below))} // TestSeccompFilter sees that it fits
	return append(append([]bpf.Instruction{jump}, below...), above...)
}

func auditArch() uint32 {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}

package guest

import (
	"runtime"

	seccomp "github.com/elastic/go-seccomp-bpf"
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
}

// deniedAMD64 exist on that architecture only.
var deniedAMD64 = []string{"_sysctl", "create_module", "get_kernel_syms", "ioperm", "iopl", "modify_ldt", "query_module", "uselib", "ustat", "sysfs"}

// namespaceFlags are those of clone(2) that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// seccompFilter assembles the filter of every cloudlet: an array of struct
// sock_filter. Denied calls answer EPERM. clone3 answers ENOSYS, for its flags
// are out of a filter's reach and libraries then fall back to clone. So does
// every call of another architecture: 32-bit programs do not run.
func seccompFilter() ([]byte, error) {
	names := denied
	if runtime.GOARCH == "amd64" {
		names = append(append([]string(nil), denied...), deniedAMD64...)
	}
	var flags []seccomp.NameWithConditions
	for bit := uint64(1); bit <= namespaceFlags; bit <<= 1 {
		if namespaceFlags&bit != 0 {
			flags = append(flags, seccomp.NameWithConditions{Name: "clone",
				Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: bit}}})
		}
	}
	policy := seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{
		{Names: names, NamesWithCondtions: flags, Action: seccomp.ActionErrno | seccomp.Action(unix.EPERM)},
		{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
	}}
	program, err := policy.Assemble()
	if err != nil {
		return nil, err
	}
	// The library lets other architectures through: refuse them first.
	program = append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 4}, // seccomp_data.arch
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch(), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)},
	}, program...)
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

func auditArch() uint32 {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}

package guest

import (
	"runtime"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// namespaceFlags are those of clone(2) that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// What a filter answers: seccomp(2), linux/seccomp.h.
var (
	allow  = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	eperm  = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	enosys = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	enomem = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOMEM)}

	noFamily   = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)}
	noProtocol = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)}
	noOption   = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOPROTOOPT)}
)

// Where a filter finds what it decides on: struct seccomp_data, little-endian.
// Of arguments the low half is enough: the calls here take them as 32 bits.
var (
	loadNumber = bpf.LoadAbsolute{Off: 0, Size: 4}
	loadArch   = bpf.LoadAbsolute{Off: 4, Size: 4}
	loadArg0   = bpf.LoadAbsolute{Off: 16, Size: 4}
	loadArg1   = bpf.LoadAbsolute{Off: 24, Size: 4}
	loadArg2   = bpf.LoadAbsolute{Off: 32, Size: 4}
	loadArg3   = bpf.LoadAbsolute{Off: 40, Size: 4}
)

const x32Bit = 0x40000000 // marks calls of the x32 ABI, which share amd64's AUDIT_ARCH

// filtered are the calls that are judged by an argument.
func filtered() map[string][]bpf.Instruction {
	return map[string][]bpf.Instruction{
		"clone": anyBit(loadArg0, namespaceFlags, eperm),
		// Its flags are out of a filter's reach; libraries fall back to clone.
		"clone3":     {enosys},
		"socket":     socket(),
		"socketpair": oneOf(loadArg0, allow, noFamily, unix.AF_UNIX),
		// TCP-AO takes the name of an algorithm, and the kernel loads the module of that name.
		"setsockopt": append(
			when(loadArg1, unix.SOL_TCP, oneOf(loadArg2, noOption, allow, tcpAOAddKey)...),
			allow,
		),
		// What is submitted to it is charged to nobody, and there is a number for the whole host.
		"io_setup": {enosys},
		// Huge pages are reserved by the host and charged to no cgroup.
		"mmap":         anyBit(loadArg3, unix.MAP_HUGETLB, enomem),
		"memfd_create": anyBit(loadArg1, unix.MFD_HUGETLB, enomem),
		// PER_LINUX, PER_LINUX32, both with UNAME26, and the question what it is.
		"personality": oneOf(loadArg0, allow, eperm, 0, 8, 0x20000, 0x20008, 0xffffffff),
		// Of oneself only: the VM's root has the init's user id, and could leave the init no
		// descriptor, process or CPU time to serve the agent with.
		"prlimit64": oneOf(loadArg0, allow, eperm, 0),
		"ioctl": oneOf(loadArg1, eperm, allow,
			// These type on a terminal in somebody else's name.
			unix.TIOCSTI, unix.TIOCLINUX,
			// And these have the kernel load a module: line disciplines, VLANs, bridges.
			unix.TIOCSETD, unix.SIOCGIFVLAN, unix.SIOCSIFVLAN, unix.SIOCGIFBR, unix.SIOCSIFBR, unix.SIOCBRADDBR, unix.SIOCBRDELBR),
	}
}

// tcpAOAddKey is TCP_AO_ADD_KEY of linux/tcp.h (Linux 6.7).
const tcpAOAddKey = 38

// socket lets a VM make the sockets that programs need: UNIX, TCP, UDP and ICMP, and netlink
// to ask for its own addresses and routes. For any other family, type or protocol the
// kernel loads a module at anybody's word (__sock_create, inet_create, netlink_create), and
// what packet, raw and other netlink sockets hold is charged to nobody.
func socket() []bpf.Instruction {
	const typeMask = 0xf // SOCK_TYPE_MASK of linux/net.h: the rest are flags
	typed := bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: typeMask}
	internet := func(icmp uint32) []bpf.Instruction {
		stream := oneOf(loadArg2, allow, noProtocol, 0, unix.IPPROTO_TCP)
		datagram := oneOf(loadArg2, allow, noProtocol, 0, unix.IPPROTO_UDP, icmp)
		return slices.Concat(
			[]bpf.Instruction{loadArg1, typed},
			is(unix.SOCK_STREAM, stream...),
			is(unix.SOCK_DGRAM, datagram...),
			is(unix.SOCK_RAW, eperm), // as for everybody without CAP_NET_RAW
			[]bpf.Instruction{noProtocol},
		)
	}
	return slices.Concat(
		when(loadArg0, unix.AF_UNIX, allow),
		is(unix.AF_INET, internet(unix.IPPROTO_ICMP)...),
		is(unix.AF_INET6, internet(unix.IPPROTO_ICMPV6)...),
		is(unix.AF_NETLINK, oneOf(loadArg2, allow, noProtocol, unix.NETLINK_ROUTE)...),
		[]bpf.Instruction{noFamily},
	)
}

// is goes through then, which has to end with an answer, where what was loaded is a value.
func is(value uint32, then ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: uint8(len(then))}}, then...)
}

// when does the same for an argument.
func when(load bpf.LoadAbsolute, value uint32, then ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{load}, is(value, then...)...)
}

// anyBit answers no when the argument has one of the bits.
func anyBit(load bpf.LoadAbsolute, bits uint32, no bpf.RetConstant) []bpf.Instruction {
	return []bpf.Instruction{load, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: bits, SkipFalse: 1}, no, allow}
}

// oneOf answers yes when the argument is one of the values, else no.
func oneOf(load bpf.LoadAbsolute, yes, no bpf.RetConstant, values ...uint32) []bpf.Instruction {
	then := []bpf.Instruction{load}
	for i, v := range values {
		then = append(then, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - i)})
	}
	return append(then, no, yes)
}

// recent is the first of the calls that programs expect to be missing and have a
// way round: those since Linux 5.17. Their numbers are the same everywhere.
const recent = 450

// seccompFilter assembles the filter of every cloudlet: an array of struct
// sock_filter. What is on no list answers EPERM, and ENOSYS where it is recent or
// unknown, so that libraries fall back. ENOSYS is also the answer to every call
// of another architecture: 32-bit programs do not run.
//
// The kernel runs a new filter once for every call there is, to remember those
// that are always allowed (seccomp_cache_prepare, Linux 5.11), and each cloudlet
// brings a new filter: as a search tree it starts them faster than as a list.
func seccompFilter() ([]byte, error) {
	table, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(program(auditArch(), table.SyscallNumbers))
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, i := range raw {
		b = append(b, byte(i.Op), byte(i.Op>>8), i.Jt, i.Jf, byte(i.K), byte(i.K>>8), byte(i.K>>16), byte(i.K>>24))
	}
	return b, nil
}

func program(audit uint32, names map[int]string) []bpf.Instruction {
	return append([]bpf.Instruction{
		loadArch, bpf.JumpIf{Cond: bpf.JumpEqual, Val: audit, SkipTrue: 1}, enosys,
		loadNumber, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1}, enosys,
	}, tree(rules(names))...)
}

// rule is what happens at system calls from a number up to the next rule's.
type rule struct {
	from uint32
	then []bpf.Instruction
}

// rules are in ascending order, the first at 0. Neighbours that do the same are
// one rule: that makes a short tree.
func rules(names map[int]string) []rule {
	listed, special := map[string]bool{}, filtered()
	for _, name := range allowed {
		listed[name] = true
	}
	highest := 0
	for nr := range names {
		highest = max(highest, nr)
	}
	var all []rule
	for nr := range uint32(highest + 2) { // the last one begins what nobody knows yet
		name, known := names[int(nr)]
		then, judged := special[name]
		switch {
		case judged:
		case listed[name]:
			then = []bpf.Instruction{allow}
		case known && nr < recent:
			then = []bpf.Instruction{eperm}
		default:
			then = []bpf.Instruction{enosys}
		}
		if len(all) == 0 || !slices.Equal(all[len(all)-1].then, then) {
			all = append(all, rule{nr, then})
		}
	}
	return all
}

// tree finds the rule of the loaded number by halving.
func tree(rules []rule) []bpf.Instruction {
	if len(rules) == 1 {
		return rules[0].then
	}
	half := len(rules) / 2
	below, above := tree(rules[:half]), tree(rules[half:])
	jump := bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: rules[half].from, SkipTrue: uint8(len(below))} // TestSeccompFilterIsTheList sees that it fits
	return append(append([]bpf.Instruction{jump}, below...), above...)
}

func auditArch() uint32 {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}

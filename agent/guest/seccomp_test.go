package guest

import (
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const answerAllow = 0x7fff0000

func answer(errno unix.Errno) uint32 { return 0x00050000 | uint32(errno) }

// TestSeccompFilter runs the filter in a BPF machine on the data that the kernel
// would hand it.
func TestSeccompFilter(t *testing.T) {
	vm := filterVM(t)
	a := auditArch()
	type call struct {
		arch, nr uint32
		args     []uint64
	}
	for name, tt := range map[string]struct {
		call
		want uint32
	}{
		"read":                      {call{a, unix.SYS_READ, nil}, answerAllow},
		"execve":                    {call{a, unix.SYS_EXECVE, nil}, answerAllow},
		"mmap":                      {call{a, unix.SYS_MMAP, nil}, answerAllow},
		"openat2":                   {call{a, unix.SYS_OPENAT2, nil}, answerAllow},
		"rseq":                      {call{a, unix.SYS_RSEQ, nil}, answerAllow},
		"mount":                     {call{a, unix.SYS_MOUNT, nil}, answer(unix.EPERM)},
		"fsopen":                    {call{a, unix.SYS_FSOPEN, nil}, answer(unix.EPERM)},
		"unshare":                   {call{a, unix.SYS_UNSHARE, nil}, answer(unix.EPERM)},
		"setns":                     {call{a, unix.SYS_SETNS, nil}, answer(unix.EPERM)},
		"bpf":                       {call{a, unix.SYS_BPF, nil}, answer(unix.EPERM)},
		"io_uring_setup":            {call{a, unix.SYS_IO_URING_SETUP, nil}, answer(unix.EPERM)},
		"keyctl":                    {call{a, unix.SYS_KEYCTL, nil}, answer(unix.EPERM)},
		"userfaultfd":               {call{a, unix.SYS_USERFAULTFD, nil}, answer(unix.EPERM)},
		"quotactl":                  {call{a, unix.SYS_QUOTACTL, nil}, answer(unix.EPERM)},
		"open_by_handle_at":         {call{a, unix.SYS_OPEN_BY_HANDLE_AT, nil}, answer(unix.EPERM)},
		"pidfd_getfd":               {call{a, unix.SYS_PIDFD_GETFD, nil}, answer(unix.EPERM)},
		"fork":                      {call{a, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}}, answerAllow},
		"a thread":                  {call{a, unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND}}, answerAllow},
		"clone of a user namespace": {call{a, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}}, answer(unix.EPERM)},
		"clone of a net namespace":  {call{a, unix.SYS_CLONE, []uint64{unix.CLONE_NEWNET}}, answer(unix.EPERM)},
		"clone3":                    {call{a, unix.SYS_CLONE3, nil}, answer(unix.ENOSYS)},
		"which personality":         {call{a, unix.SYS_PERSONALITY, []uint64{0xffffffff}}, answerAllow},
		"linux32":                   {call{a, unix.SYS_PERSONALITY, []uint64{8}}, answerAllow},
		"no randomisation":          {call{a, unix.SYS_PERSONALITY, []uint64{0x40000}}, answer(unix.EPERM)},
		"limits of its own":         {call{a, unix.SYS_PRLIMIT64, []uint64{0, 7}}, answerAllow},
		"limits of the init":        {call{a, unix.SYS_PRLIMIT64, []uint64{1, 7}}, answer(unix.EPERM)},
		"a terminal's size":         {call{a, unix.SYS_IOCTL, []uint64{0, unix.TIOCGWINSZ}}, answerAllow},
		"TIOCSTI":                   {call{a, unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}}, answer(unix.EPERM)},
		"TIOCSTI, high bits set":    {call{a, unix.SYS_IOCTL, []uint64{0, 1<<32 | unix.TIOCSTI}}, answer(unix.EPERM)},
		"TIOCLINUX":                 {call{a, unix.SYS_IOCTL, []uint64{0, unix.TIOCLINUX}}, answer(unix.EPERM)},
		"a line discipline":         {call{a, unix.SYS_IOCTL, []uint64{0, unix.TIOCSETD}}, answer(unix.EPERM)},
		"a question of VLANs":       {call{a, unix.SYS_IOCTL, []uint64{0, unix.SIOCGIFVLAN}}, answer(unix.EPERM)},
		"TCP_NODELAY":               {call{a, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_TCP, unix.TCP_NODELAY}}, answerAllow},
		"TCP_AO_ADD_KEY":            {call{a, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_TCP, 38}}, answer(unix.ENOPROTOOPT)},
		"38 of another level":       {call{a, unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_SOCKET, 38}}, answerAllow},
		"io_setup":                  {call{a, unix.SYS_IO_SETUP, []uint64{128}}, answer(unix.ENOSYS)},
		"memory":                    {call{a, unix.SYS_MMAP, []uint64{0, 4096, 3, unix.MAP_PRIVATE | unix.MAP_ANON}}, answerAllow},
		"huge pages":                {call{a, unix.SYS_MMAP, []uint64{0, 2 << 20, 3, unix.MAP_ANON | unix.MAP_HUGETLB}}, answer(unix.ENOMEM)},
		"a file in memory":          {call{a, unix.SYS_MEMFD_CREATE, []uint64{0, unix.MFD_CLOEXEC}}, answerAllow},
		"a file of huge pages":      {call{a, unix.SYS_MEMFD_CREATE, []uint64{0, unix.MFD_HUGETLB | 21<<26}}, answer(unix.ENOMEM)},
		"the highest known":         {call{a, unix.SYS_OPEN_TREE_ATTR, nil}, answer(unix.ENOSYS)},
		"denied, not recent":        {call{a, unix.SYS_QUOTACTL_FD, nil}, answer(unix.EPERM)},
		"the first unknown":         {call{a, unix.SYS_OPEN_TREE_ATTR + 1, nil}, answer(unix.ENOSYS)},
		"a call not made yet":       {call{a, 4000, nil}, answer(unix.ENOSYS)},
		"a gap in the numbers":      {call{a, 400, nil}, answer(unix.ENOSYS)},
		"x32 read":                  {call{a, x32Bit | unix.SYS_READ, nil}, answer(unix.ENOSYS)},
		"minus one":                 {call{a, 0xffffffff, nil}, answer(unix.ENOSYS)},
		"32-bit mount":              {call{unix.AUDIT_ARCH_I386, 21, nil}, answer(unix.ENOSYS)},
		"32-bit read":               {call{unix.AUDIT_ARCH_I386, 3, nil}, answer(unix.ENOSYS)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vm.Run(seccompData(tt.arch, tt.nr, tt.args...))
			if err != nil || uint32(got) != tt.want {
				t.Errorf("%#x, %v, want %#x", got, err, tt.want)
			}
		})
	}
}

// Programs get the sockets that they need, and no other one gets as far as the kernel, which would load a module for it.
func TestSeccompSockets(t *testing.T) {
	vm := filterVM(t)
	refused := map[string]unix.Errno{
		"raw":      unix.EPERM,
		"protocol": unix.EPROTONOSUPPORT,
		"family":   unix.EAFNOSUPPORT,
	}
	flags := uint64(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)
	for name, tt := range map[string]struct {
		family, kind, protocol uint64
		refused                string
	}{
		"unix":                  {unix.AF_UNIX, unix.SOCK_SEQPACKET, 0, ""},
		"tcp":                   {unix.AF_INET, unix.SOCK_STREAM, 0, ""},
		"tcp, told":             {unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP, ""},
		"udp":                   {unix.AF_INET6, unix.SOCK_DGRAM, 0, ""},
		"udp, told":             {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP, ""},
		"ping":                  {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, ""},
		"ping6":                 {unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, ""},
		"routes":                {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, ""},
		"ping of the other":     {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, "protocol"},
		"tcp for datagrams":     {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_TCP, "protocol"},
		"sctp":                  {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, "protocol"},
		"sctp, the other type":  {unix.AF_INET6, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP, "protocol"},
		"mptcp":                 {unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, "protocol"},
		"dccp":                  {unix.AF_INET, unix.SOCK_DCCP, unix.IPPROTO_DCCP, "protocol"},
		"udplite":               {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, "protocol"},
		"raw":                   {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, "raw"},
		"user sockets":          {unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_USERSOCK, "protocol"},
		"socket diagnosis":      {unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_SOCK_DIAG, "protocol"},
		"generic netlink":       {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC, "protocol"},
		"an unknown netlink":    {unix.AF_NETLINK, unix.SOCK_RAW, 31, "protocol"},
		"packet":                {unix.AF_PACKET, unix.SOCK_RAW, 3, "family"},
		"an old form of packet": {unix.AF_INET, unix.SOCK_PACKET, 3, "protocol"},
		"vsock":                 {unix.AF_VSOCK, unix.SOCK_STREAM, 0, "family"},
		"vsock, high bits set":  {1<<32 | unix.AF_VSOCK, unix.SOCK_STREAM, 0, "family"},
		"alg":                   {unix.AF_ALG, unix.SOCK_SEQPACKET, 0, "family"},
		"an unknown family":     {200, unix.SOCK_STREAM, 0, "family"},
	} {
		want := uint32(answerAllow)
		if tt.refused != "" {
			want = answer(refused[tt.refused])
		}
		for _, kind := range []uint64{tt.kind, tt.kind | flags, tt.kind | 1<<32} {
			got, err := vm.Run(seccompData(auditArch(), unix.SYS_SOCKET, tt.family, kind, tt.protocol))
			if err != nil || uint32(got) != want {
				t.Errorf("%s, type %#x: %#x, %v, want %#x", name, kind, got, err, want)
			}
		}

		want = answer(unix.EAFNOSUPPORT)
		if tt.family == unix.AF_UNIX {
			want = answerAllow
		}
		got, err := vm.Run(seccompData(auditArch(), unix.SYS_SOCKETPAIR, tt.family, tt.kind, tt.protocol))
		if err != nil || uint32(got) != want {
			t.Errorf("a pair of %s: %#x, %v, want %#x", name, got, err, want)
		}
	}
}

// Each kind of namespace is refused on its own, not only those that others are tried with.
func TestSeccompRefusesEveryNamespace(t *testing.T) {
	vm := filterVM(t)
	for name, flag := range map[string]uint64{
		"mount":  unix.CLONE_NEWNS,
		"cgroup": unix.CLONE_NEWCGROUP,
		"uts":    unix.CLONE_NEWUTS,
		"ipc":    unix.CLONE_NEWIPC,
		"user":   unix.CLONE_NEWUSER,
		"pid":    unix.CLONE_NEWPID,
		"net":    unix.CLONE_NEWNET,
	} {
		got, err := vm.Run(seccompData(auditArch(), unix.SYS_CLONE, flag|uint64(unix.SIGCHLD)))
		if err != nil || uint32(got) != answer(unix.EPERM) {
			t.Errorf("clone of a %s namespace: %#x, %v", name, got, err)
		}
	}
}

// Every number there is gets the answer that the lists say, on both architectures.
func TestSeccompFilterIsTheList(t *testing.T) {
	special := filtered()
	for audit, table := range map[uint32]*arch.Info{unix.AUDIT_ARCH_X86_64: arch.X86_64, unix.AUDIT_ARCH_AARCH64: arch.AARCH64} {
		p := program(audit, table.SyscallNumbers)
		t.Logf("%s: %d ranges, %d instructions", table.Name, len(rules(table.SyscallNumbers)), len(p))
		vm, err := bpf.NewVM(p)
		if err != nil {
			t.Fatal(err)
		}
		for nr := range uint32(600) {
			name, known := table.SyscallNumbers[int(nr)]
			want := answer(unix.ENOSYS)
			switch _, judged := special[name]; {
			case judged:
				continue
			case slices.Contains(allowed, name):
				want = answerAllow
			case known && nr < recent:
				want = answer(unix.EPERM)
			}
			if got, err := vm.Run(seccompData(audit, nr)); err != nil || uint32(got) != want {
				t.Errorf("%s: %s (%d): %#x, %v, want %#x", table.Name, name, nr, got, err, want)
			}
		}
	}
}

func TestSeccompNamesExist(t *testing.T) {
	special := filtered()
	for i, name := range allowed {
		_, amd64 := arch.X86_64.SyscallNames[name]
		_, arm64 := arch.AARCH64.SyscallNames[name]
		if !amd64 && !arm64 {
			t.Errorf("no system call is called %s", name)
		}
		if slices.Contains(allowed[:i], name) || special[name] != nil {
			t.Errorf("%s is listed twice", name)
		}
	}
}

func filterVM(t *testing.T) *bpf.VM {
	t.Helper()
	raw, err := seccompFilter()
	if err != nil {
		t.Fatal(err)
	}
	var program []bpf.Instruction
	for i := 0; i < len(raw); i += 8 {
		program = append(program, bpf.RawInstruction{Op: uint16(raw[i]) | uint16(raw[i+1])<<8, Jt: raw[i+2], Jf: raw[i+3],
			K: uint32(raw[i+4]) | uint32(raw[i+5])<<8 | uint32(raw[i+6])<<16 | uint32(raw[i+7])<<24}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// seccompData is struct seccomp_data. The machine of x/net loads words as
// big-endian, the kernel in host order: each word is put in the other way round.
func seccompData(arch, nr uint32, args ...uint64) []byte {
	b := make([]byte, 64)
	put := func(off int, v uint32) {
		b[off], b[off+1], b[off+2], b[off+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	}
	put(0, nr)
	put(4, arch)
	for i, arg := range args {
		put(16+8*i, uint32(arg))
		put(20+8*i, uint32(arg>>32))
	}
	return b
}

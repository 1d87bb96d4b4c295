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
		arch, nr   uint32
		arg0, arg1 uint64
	}
	for name, tt := range map[string]struct {
		call
		want uint32
	}{
		"read":                      {call{a, unix.SYS_READ, 0, 0}, answerAllow},
		"execve":                    {call{a, unix.SYS_EXECVE, 0, 0}, answerAllow},
		"mmap":                      {call{a, unix.SYS_MMAP, 0, 0}, answerAllow},
		"openat2":                   {call{a, unix.SYS_OPENAT2, 0, 0}, answerAllow},
		"rseq":                      {call{a, unix.SYS_RSEQ, 0, 0}, answerAllow},
		"mount":                     {call{a, unix.SYS_MOUNT, 0, 0}, answer(unix.EPERM)},
		"fsopen":                    {call{a, unix.SYS_FSOPEN, 0, 0}, answer(unix.EPERM)},
		"unshare":                   {call{a, unix.SYS_UNSHARE, 0, 0}, answer(unix.EPERM)},
		"setns":                     {call{a, unix.SYS_SETNS, 0, 0}, answer(unix.EPERM)},
		"bpf":                       {call{a, unix.SYS_BPF, 0, 0}, answer(unix.EPERM)},
		"io_uring_setup":            {call{a, unix.SYS_IO_URING_SETUP, 0, 0}, answer(unix.EPERM)},
		"keyctl":                    {call{a, unix.SYS_KEYCTL, 0, 0}, answer(unix.EPERM)},
		"userfaultfd":               {call{a, unix.SYS_USERFAULTFD, 0, 0}, answer(unix.EPERM)},
		"quotactl":                  {call{a, unix.SYS_QUOTACTL, 0, 0}, answer(unix.EPERM)},
		"open_by_handle_at":         {call{a, unix.SYS_OPEN_BY_HANDLE_AT, 0, 0}, answer(unix.EPERM)},
		"pidfd_getfd":               {call{a, unix.SYS_PIDFD_GETFD, 0, 0}, answer(unix.EPERM)},
		"fork":                      {call{a, unix.SYS_CLONE, uint64(unix.SIGCHLD), 0}, answerAllow},
		"a thread":                  {call{a, unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND, 0}, answerAllow},
		"clone of a user namespace": {call{a, unix.SYS_CLONE, unix.CLONE_NEWUSER | uint64(unix.SIGCHLD), 0}, answer(unix.EPERM)},
		"clone of a net namespace":  {call{a, unix.SYS_CLONE, unix.CLONE_NEWNET, 0}, answer(unix.EPERM)},
		"clone3":                    {call{a, unix.SYS_CLONE3, 0, 0}, answer(unix.ENOSYS)},
		"an internet socket":        {call{a, unix.SYS_SOCKET, unix.AF_INET6, 1}, answerAllow},
		"a netlink socket":          {call{a, unix.SYS_SOCKET, unix.AF_NETLINK, 3}, answerAllow},
		"a packet socket":           {call{a, unix.SYS_SOCKET, unix.AF_PACKET, 3}, answerAllow},
		"AF_VSOCK":                  {call{a, unix.SYS_SOCKET, unix.AF_VSOCK, 1}, answer(unix.EAFNOSUPPORT)},
		"AF_VSOCK, high bits set":   {call{a, unix.SYS_SOCKET, 1<<32 | unix.AF_VSOCK, 1}, answer(unix.EAFNOSUPPORT)},
		"AF_ALG":                    {call{a, unix.SYS_SOCKET, unix.AF_ALG, 5}, answer(unix.EAFNOSUPPORT)},
		"a pair of sockets":         {call{a, unix.SYS_SOCKETPAIR, unix.AF_UNIX, 1}, answerAllow},
		"a pair of AF_TIPC":         {call{a, unix.SYS_SOCKETPAIR, unix.AF_TIPC, 1}, answer(unix.EAFNOSUPPORT)},
		"which personality":         {call{a, unix.SYS_PERSONALITY, 0xffffffff, 0}, answerAllow},
		"linux32":                   {call{a, unix.SYS_PERSONALITY, 8, 0}, answerAllow},
		"no randomisation":          {call{a, unix.SYS_PERSONALITY, 0x40000, 0}, answer(unix.EPERM)},
		"limits of its own":         {call{a, unix.SYS_PRLIMIT64, 0, 7}, answerAllow},
		"limits of the init":        {call{a, unix.SYS_PRLIMIT64, 1, 7}, answer(unix.EPERM)},
		"a terminal's size":         {call{a, unix.SYS_IOCTL, 0, unix.TIOCGWINSZ}, answerAllow},
		"TIOCSTI":                   {call{a, unix.SYS_IOCTL, 0, unix.TIOCSTI}, answer(unix.EPERM)},
		"TIOCSTI, high bits set":    {call{a, unix.SYS_IOCTL, 0, 1<<32 | unix.TIOCSTI}, answer(unix.EPERM)},
		"TIOCLINUX":                 {call{a, unix.SYS_IOCTL, 0, unix.TIOCLINUX}, answer(unix.EPERM)},
		"the highest known":         {call{a, unix.SYS_OPEN_TREE_ATTR, 0, 0}, answer(unix.ENOSYS)},
		"denied, not recent":        {call{a, unix.SYS_QUOTACTL_FD, 0, 0}, answer(unix.EPERM)},
		"the first unknown":         {call{a, unix.SYS_OPEN_TREE_ATTR + 1, 0, 0}, answer(unix.ENOSYS)},
		"a call not made yet":       {call{a, 4000, 0, 0}, answer(unix.ENOSYS)},
		"a gap in the numbers":      {call{a, 400, 0, 0}, answer(unix.ENOSYS)},
		"x32 read":                  {call{a, x32Bit | unix.SYS_READ, 0, 0}, answer(unix.ENOSYS)},
		"minus one":                 {call{a, 0xffffffff, 0, 0}, answer(unix.ENOSYS)},
		"32-bit mount":              {call{unix.AUDIT_ARCH_I386, 21, 0, 0}, answer(unix.ENOSYS)},
		"32-bit read":               {call{unix.AUDIT_ARCH_I386, 3, 0, 0}, answer(unix.ENOSYS)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := vm.Run(seccompData(tt.arch, tt.nr, tt.arg0, tt.arg1))
			if err != nil || uint32(got) != tt.want {
				t.Errorf("%#x, %v, want %#x", got, err, tt.want)
			}
		})
	}
}

// Every number there is gets the answer that the lists say, on both architectures.
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
		got, err := vm.Run(seccompData(auditArch(), unix.SYS_CLONE, flag|uint64(unix.SIGCHLD), 0))
		if err != nil || uint32(got) != answer(unix.EPERM) {
			t.Errorf("clone of a %s namespace: %#x, %v", name, got, err)
		}
	}
}

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
			if got, err := vm.Run(seccompData(audit, nr, 0, 0)); err != nil || uint32(got) != want {
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
func seccompData(arch, nr uint32, arg0, arg1 uint64) []byte {
	b := make([]byte, 64)
	put := func(off int, v uint32) {
		b[off], b[off+1], b[off+2], b[off+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	}
	put(0, nr)
	put(4, arch)
	put(16, uint32(arg0))
	put(20, uint32(arg0>>32))
	put(24, uint32(arg1))
	put(28, uint32(arg1>>32))
	return b
}

package guest

import (
	"slices"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestParseJournal(t *testing.T) {
	whole := "ab 0 0 1 2 3\ncd 3 9 10 20 30\n"
	want := []Exit{
		{ID: "ab", StartedAt: time.Unix(0, 1), FinishedAt: time.Unix(0, 2), CPUTime: 3},
		{ID: "cd", Code: 3, Signal: 9, StartedAt: time.Unix(0, 10), FinishedAt: time.Unix(0, 20), CPUTime: 30},
	}
	tests := map[string]struct {
		text string
		want []Exit
		bad  bool
	}{
		"nothing":                       {"", nil, false},
		"two exits":                     {whole, want, false},
		"a line cut off by a power cut": {whole + "ef 0 0 1", want, false},
		"too few fields":                {"ab 0 0 1 2\n", nil, true},
		"no number":                     {"ab x 0 1 2 3\n", nil, true},
		"good lines before a bad one":   {whole + "\x00\x00\x00\n", want, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseJournal([]byte(tt.text))
			if (err != nil) != tt.bad {
				t.Errorf("err = %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if got, err := ReadJournal(t.TempDir()); got != nil || err != nil {
		t.Errorf("no journal: %v %v", got, err)
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte("ab 0 0 1 2 3\n"))
	f.Add([]byte("ab -1 99999999999 1 2 3\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		exits, _ := parseJournal(b)
		for _, e := range exits {
			if e.ID == "" {
				t.Error("an exit without id")
			}
		}
	})
}

func TestParseNSPID(t *testing.T) {
	for text, want := range map[string]int{
		"Name:\tsh\nNSpid:\t4021\t7\nFoo:\n": 7,
		"NSpid:\t12\n":                       12,
		"NSpid:\n":                           0,
		"NSpid:\t1\tx\n":                     0,
		"Name:\tNSpid: 9\n":                  0,
		"":                                   0,
	} {
		if got := parseNSPID([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func FuzzParseNSPID(f *testing.F) {
	f.Add([]byte("NSpid:\t4021\t7\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseNSPID(b) })
}

// TestSeccompFilter runs the filter in a BPF machine on the data that the kernel
// would hand it.
func TestSeccompFilter(t *testing.T) {
	vm := filterVM(t)
	const allow, eperm, enosys = 0x7fff0000, 0x00050000 | uint32(unix.EPERM), 0x00050000 | uint32(unix.ENOSYS)
	tests := map[string]struct {
		arch, nr uint32
		arg0     uint64
		want     uint32
	}{
		"read":                      {auditArch(), unix.SYS_READ, 0, allow},
		"execve":                    {auditArch(), unix.SYS_EXECVE, 0, allow},
		"mount":                     {auditArch(), unix.SYS_MOUNT, 0, eperm},
		"unshare":                   {auditArch(), unix.SYS_UNSHARE, 0, eperm},
		"bpf":                       {auditArch(), unix.SYS_BPF, 0, eperm},
		"io_uring_setup":            {auditArch(), unix.SYS_IO_URING_SETUP, 0, eperm},
		"keyctl":                    {auditArch(), unix.SYS_KEYCTL, 0, eperm},
		"fork":                      {auditArch(), unix.SYS_CLONE, uint64(unix.SIGCHLD), allow},
		"a thread":                  {auditArch(), unix.SYS_CLONE, unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND, allow},
		"clone of a user namespace": {auditArch(), unix.SYS_CLONE, unix.CLONE_NEWUSER | uint64(unix.SIGCHLD), eperm},
		"clone of a net namespace":  {auditArch(), unix.SYS_CLONE, unix.CLONE_NEWNET, eperm},
		"clone3":                    {auditArch(), unix.SYS_CLONE3, 0, enosys},
		"x32 mount":                 {auditArch(), x32Bit | unix.SYS_MOUNT, 0, enosys},
		"quotactl":                  {auditArch(), unix.SYS_QUOTACTL, 0, eperm},
		"the highest denied":        {auditArch(), unix.SYS_MOUNT_SETATTR, 0, eperm},
		"a call not made yet":       {auditArch(), 4000, 0, allow},
		"32-bit mount":              {unix.AUDIT_ARCH_I386, 21, 0, enosys},
		"32-bit read":               {unix.AUDIT_ARCH_I386, 3, 0, enosys},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := vm.Run(seccompData(tt.arch, tt.nr, tt.arg0))
			if err != nil || uint32(got) != tt.want {
				t.Errorf("%#x, %v, want %#x", got, err, tt.want)
			}
		})
	}
}

// Every number there is gets the answer that the list says.
func TestSeccompFilterIsTheList(t *testing.T) {
	vm := filterVM(t)
	table, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range denied {
		if _, amd64 := arch.X86_64.SyscallNames[name]; !amd64 {
			t.Errorf("no system call is called %s", name)
		}
	}
	for nr := range uint32(600) {
		want := 0x7fff0000
		switch name := table.SyscallNumbers[int(nr)]; {
		case name == "clone3":
			want = 0x00050000 | int(unix.ENOSYS)
		case slices.Contains(denied, name):
			want = 0x00050000 | int(unix.EPERM)
		}
		if got, err := vm.Run(seccompData(auditArch(), nr, 0)); err != nil || got != want {
			t.Errorf("call %d: %#x, %v, want %#x", nr, got, err, want)
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
func seccompData(arch, nr uint32, arg0 uint64) []byte {
	b := make([]byte, 64)
	put := func(off int, v uint32) {
		b[off], b[off+1], b[off+2], b[off+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	}
	put(0, nr)
	put(4, arch)
	put(16, uint32(arg0))
	put(20, uint32(arg0>>32))
	return b
}

package gpu

import (
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseInformation(t *testing.T) {
	tests := map[string]struct {
		text string
		want card
	}{
		"an H100": {information(uuid0, "0000:62:00.0", 5, "No"),
			card{uuid: uuid0, name: "NVIDIA H100 80GB HBM3", pci: "0000:62:00.0", minor: 5}},
		"not used since boot": {"Model: \t\t Tesla T4\nGPU UUID: \t GPU-????????-????-????-????-????????????\nBus Location: \t 0000:3b:00.0\nDevice Minor: \t 0\n",
			card{name: "Tesla T4", pci: "0000:3b:00.0"}},
		"excluded":             {"GPU Excluded:\t Yes\n", card{minor: -1, excluded: true}},
		"an address to escape": {"Bus Location: ../../etc\nDevice Minor: -3\n", card{minor: -1}},
		"nothing":              {"", card{minor: -1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parseInformation(tt.text), cmp.AllowUnexported(card{}, instance{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseDriverVersion(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"open module":        {openVersion, "570.86.15"},
		"proprietary module": {"NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc version 12.2.0\n", "550.54.15"},
		"two parts":          {"NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256  x\n", "470.256"},
		"only the compiler":  {"GCC version:  gcc version 12.2.0 (Debian)\n", ""},
		"nothing":            {"", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := parseDriverVersion(tt.text); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseMajors(t *testing.T) {
	want := map[string]uint32{"mem": 1, "misc": 10, "nvidia": 195, "nvidiactl": 195, "drm": 226, "nvidia-caps": 235, "nvidia-uvm": 510}
	if diff := cmp.Diff(want, parseMajors(majors)); diff != "" {
		t.Error(diff)
	}
}

func TestParseAccess(t *testing.T) {
	for text, want := range map[string]uint32{access(21): 21, access(0): 0} {
		if got, err := parseAccess(text); err != nil || got != want {
			t.Errorf("%q = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "DeviceFileMinor:\n", "DeviceFileMinor: -1\n", "DeviceFileMinor: 1048576\n", "DeviceFileMode: 256\n"} {
		if got, err := parseAccess(text); err == nil {
			t.Errorf("%q = %d, want an error", text, got)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	tests := map[string]struct {
		text, vm, scope string
		ok              bool
	}{
		"a cloudlet":               {"0::/cloudflash/vms/v1/cl-2\n", "v1", "cl-2", true},
		"below a cloudlet":         {"0::/cloudflash/vms/v1/cl-2/cloudflash/vms/v9/cl-9\n", "v1", "cl-2", true},
		"the init":                 {"0::/cloudflash/vms/v1/init\n", "v1", "init", true},
		"a scope that was removed": {"0::/cloudflash/vms/v1/cl-2 (deleted)\n", "v1", "cl-2", true},
		"a hybrid host":            {"4:memory:/cloudflash/vms/v9\n1:name=systemd:/\n0::/cloudflash/vms/v1/cl-2\n", "v1", "cl-2", true},
		"the agent":                {"0::/cloudflash/agent\n", "", "", false},
		"the parent of all VMs":    {"0::/cloudflash/vms\n", "", "", false},
		"a name that begins alike": {"0::/cloudflash/vmsx/v1\n", "", "", false},
		"outside of the namespace": {"0::/../cloudflash/vms/v1\n", "", "", false},
		"only version 1":           {"4:memory:/cloudflash/vms/v9\n", "", "", false},
		"nothing":                  {"", "", "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			vm, scope, ok := ParseCgroup([]byte(tt.text), "/cloudflash/vms")
			if vm != tt.vm || scope != tt.scope || ok != tt.ok {
				t.Errorf("got %q, %q, %v", vm, scope, ok)
			}
		})
	}
}

// TestParseLinkerCache reads this host's cache and compares it with ldconfig.
func TestParseLinkerCache(t *testing.T) {
	b, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Skipf("this host has no cache of the dynamic linker: %v", err)
	}
	libs, err := parseLinkerCache(b)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/sbin/ldconfig", "-p").Output()
	if err != nil {
		t.Skipf("no ldconfig to compare with: %v", err)
	}
	var want, got []string
	for _, line := range strings.Split(string(out), "\n")[1:] {
		name, path, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if ok {
			want = append(want, strings.Fields(name)[0]+" "+path)
		}
	}
	native := 0
	for _, l := range libs {
		got = append(got, l.name+" "+l.path)
		if l.native() {
			native++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if native == 0 {
		t.Error("no library is of this architecture")
	}
}

// linkerCache makes a cache as glibc before 2.32 did: the old table first.
func linkerCache(entries ...cached) []byte {
	text := []byte{}
	table := []byte{}
	base := cacheHeader + cacheEntry*len(entries)
	for _, e := range entries {
		table = binary.NativeEndian.AppendUint32(table, e.flags)
		table = binary.NativeEndian.AppendUint32(table, uint32(base+len(text)))
		text = append(text, e.name+"\x00"...)
		table = binary.NativeEndian.AppendUint32(table, uint32(base+len(text)))
		text = append(text, e.path+"\x00"...)
		table = append(table, make([]byte, cacheEntry-12)...)
	}
	head := binary.NativeEndian.AppendUint32([]byte(cacheMagic), uint32(len(entries)))
	head = append(head, make([]byte, cacheHeader-len(head))...)
	return append(append(append([]byte("ld.so-1.7.0\x00\x00\x00\x00\x00"), head...), table...), text...)
}

func TestDriverFilesOfTheLinkersCache(t *testing.T) {
	files := hopper()
	files["opt/driver/libcuda.so.570.86.15"] = "elf"
	files["opt/driver32/libcuda.so.570.86.15"] = "elf"
	files["etc/ld.so.cache"] = string(linkerCache(
		cached{0x0303, "libcuda.so.1", "/opt/driver/libcuda.so.1"}, cached{0x0a03, "libcuda.so.1", "/opt/driver/libcuda.so.1"},
		cached{0x0003, "libcuda.so.1", "/opt/driver32/libcuda.so.1"}))
	got := strings.Join(discover(t, tree(t, files)).Units()[0].Files, "\n")
	if !strings.Contains(got, "/opt/driver/libcuda.so.570.86.15") || strings.Contains(got, "driver32") {
		t.Errorf("files:\n%s", got)
	}
}

func FuzzParseLinkerCache(f *testing.F) {
	f.Add(linkerCache(cached{0x0303, "libcuda.so.1", "/usr/lib/libcuda.so.1"}))
	f.Add([]byte(cacheMagic + "\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if libs, err := parseLinkerCache(b); err == nil && len(libs)*cacheEntry > len(b) {
			t.Errorf("%d entries of %d bytes", len(libs), len(b))
		}
	})
}

func FuzzNVIDIAFiles(f *testing.F) {
	for _, s := range []string{information(uuid0, "0000:62:00.0", 0, "No"), access(21), majors, openVersion, "226:128\n", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:0a:00.0\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := parseInformation(s)
		if c.minor < -1 || c.minor > math.MaxUint16 || c.uuid != "" && len(c.uuid) != 40 || c.pci != "" && filepath.Base(c.pci) != c.pci {
			t.Errorf("card %+v", c)
		}
		if m, err := parseAccess(s); err == nil && m >= 1<<20 {
			t.Errorf("minor %d", m)
		}
		if v := parseDriverVersion(s); strings.ContainsAny(v, "/\n ") {
			t.Errorf("version %q", v)
		}
		parseMajors(s)
		equations(s)
		_, _, _ = parseNumbers(s)
	})
}

func FuzzParseCgroup(f *testing.F) {
	f.Add("0::/cloudflash/vms/v1/cl-2\n", "/cloudflash/vms")
	f.Add("0::/a", "/")
	f.Fuzz(func(t *testing.T, text, base string) {
		vm, scope, ok := ParseCgroup([]byte(text), base)
		if ok == (vm == "") || strings.Contains(vm+scope, "/") {
			t.Errorf("%q, %q, %v", vm, scope, ok)
		}
	})
}

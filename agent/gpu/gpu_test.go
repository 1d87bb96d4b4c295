package gpu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	uuid0 = "GPU-9221d5d1-b60b-a624-bf14-0a1819cfda3b"
	uuid1 = "GPU-5f3c0b1e-7a2d-4c11-8e55-d2f0c7a9b410"

	openVersion = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U16)  Thu Jan 23 22:50:36 UTC 2025\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
	majors      = "Character devices:\n  1 mem\n 10 misc\n195 nvidia\n195 nvidiactl\n226 drm\n235 nvidia-caps\n510 nvidia-uvm\n\nBlock devices:\n  8 sd\n510 blkext\n"
)

func information(uuid, bus string, minor int, excluded string) string {
	return fmt.Sprintf("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 10\nGPU UUID: \t %s\nVideo BIOS: \t 96.00.99.00.01\nBus Type: \t PCIe\n"+
		"DMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t %s\nDevice Minor: \t %d\nGPU Firmware: \t 570.86.15\nGPU Excluded:\t %s\n", uuid, bus, minor, excluded)
}

func access(minor int) string {
	return fmt.Sprintf("DeviceFileMinor: %d\nDeviceFileMode: 256\nDeviceFileModify: 1\n", minor)
}

// hopper is a host with two H100, the second cut into instances 1/0 and 2/0.
func hopper() map[string]string {
	mig := "proc/driver/nvidia/capabilities/gpu1/mig/"
	lib := "usr/lib/x86_64-linux-gnu/"
	return map[string]string{
		"proc/devices":               majors,
		"proc/driver/nvidia/version": openVersion,
		"proc/driver/nvidia/gpus/0000:62:00.0/information": information(uuid0, "0000:62:00.0", 0, "No"),
		"proc/driver/nvidia/gpus/0000:a1:00.0/information": information(uuid1, "0000:A1:00.0", 1, "No"),
		"proc/driver/nvidia/capabilities/mig/config":       access(1),
		"proc/driver/nvidia/capabilities/gpu0/mig/.keep":   "",
		mig + "gi1/access":                            access(21),
		mig + "gi1/ci0/access":                        access(22),
		mig + "gi2/access":                            access(30),
		mig + "gi2/ci0/access":                        access(31),
		"sys/bus/pci/devices/0000:62:00.0/numa_node":  "0\n",
		"sys/bus/pci/devices/0000:a1:00.0/numa_node":  "1\n",
		"dev/nvidia0":                                 "195:0",
		"dev/nvidia1":                                 "195:1",
		"dev/nvidiactl":                               "195:255",
		"dev/nvidia-modeset":                          "195:254",
		"dev/nvidia-uvm":                              "510:0",
		"dev/nvidia-caps/nvidia-cap1":                 "235:1",
		"dev/nvidia-caps/nvidia-cap21":                "235:21",
		"dev/nvidia-caps/nvidia-cap22":                "235:22",
		"dev/nvidia-caps/nvidia-cap30":                "235:30",
		lib + "libcuda.so.570.86.15":                  "elf",
		lib + "libcuda.so.1":                          "-> libcuda.so.570.86.15",
		lib + "libnvidia-ml.so.535.104.05":            "elf, of a driver before",
		lib + "libnvidia-ml.so.1":                     "-> libnvidia-ml.so.535.104.05",
		lib + "libnvidia-ptxjitcompiler.so.570.86.15": "elf",
		lib + "libnvidia-glcore.so.570.86.15":         "elf, for screens",
		"usr/bin/nvidia-smi":                          "elf",
	}
}

// radeons is a host with an AMD card, an Intel one, and nodes that are no units.
func radeons() map[string]string {
	f := map[string]string{
		"sys/class/kfd/kfd/dev": "240:0\n", "dev/kfd": "240:0",
		"sys/class/drm/card0/dev": "226:0\n",
		"sys/class/drm/version":   "drm 1.1.0 20060810\n",
	}
	for i, d := range []struct{ driver, pci, id string }{
		{"xe", "0000:03:00.0", "8086:E20B"}, {"amdgpu", "0000:0a:00.0", "1002:73BF"}, {"nvidia", "0000:62:00.0", "10DE:2330"}, {"virtio_gpu", "0000:00:02.0", "1AF4:1050"},
	} {
		node := fmt.Sprintf("renderD%d", 128+i)
		f["sys/class/drm/"+node+"/dev"] = fmt.Sprintf("226:%d\n", 128+i)
		f["sys/class/drm/"+node+"/device/uevent"] = fmt.Sprintf("DRIVER=%s\nPCI_CLASS=30000\nPCI_ID=%s\nPCI_SLOT_NAME=%s\n", d.driver, d.id, d.pci)
		f["dev/dri/"+node] = fmt.Sprintf("226:%d", 128+i)
	}
	f["sys/class/drm/renderD129/device/mem_info_vram_total"] = "17163091968\n"
	f["sys/class/drm/renderD129/device/mem_info_vram_used"] = "1073741824\n"
	f["sys/class/drm/renderD129/device/gpu_busy_percent"] = "37\n"
	return f
}

// tree makes files below a root; "-> x" is a link. Device nodes are files that
// hold their numbers.
func tree(t *testing.T, files map[string]string) Config {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(text, "-> "); link {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Config{Root: root, numbers: func(path string) (uint32, uint32, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, 0, err
		}
		return parseNumbers(string(b))
	}}
}

func discover(t *testing.T, cfg Config) Inventory {
	t.Helper()
	inv, err := Discover(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestDiscoverNVIDIA(t *testing.T) {
	inv := discover(t, tree(t, hopper()))
	shared := []Node{{Path: "/dev/nvidiactl", Major: 195, Minor: 255, Access: "rw"}, {Path: "/dev/nvidia-uvm", Major: 510, Access: "rw"},
		{Path: "/dev/nvidia-uvm-tools", Major: 510, Minor: 1, Access: "rw", Missing: true}}
	lib := "/usr/lib/x86_64-linux-gnu/"
	files := []string{lib + "libcuda.so.1", lib + "libcuda.so.570.86.15", lib + "libnvidia-ptxjitcompiler.so.570.86.15", "/usr/bin/nvidia-smi"}
	gpu1 := Node{Path: "/dev/nvidia1", Major: 195, Minor: 1, Access: "rw"}
	caps := func(minor uint32, missing bool) Node {
		return Node{Path: fmt.Sprintf("/dev/nvidia-caps/nvidia-cap%d", minor), Major: 235, Minor: minor, Access: "r", Missing: missing}
	}
	want := []Unit{
		{ID: uuid0, UUID: uuid0, Name: "NVIDIA H100 80GB HBM3", Vendor: NVIDIA, Parent: uuid0, PCI: "0000:62:00.0",
			Nodes: []Node{{Path: "/dev/nvidia0", Major: 195, Access: "rw"}}, Shared: shared, Files: files},
		{ID: "MIG-" + uuid1 + "/1/0", Name: "NVIDIA H100 80GB HBM3 MIG", Vendor: NVIDIA, Parent: uuid1, PCI: "0000:a1:00.0", NUMA: 1,
			Nodes: []Node{gpu1, caps(21, false), caps(22, false)}, Shared: shared, Files: files},
		{ID: "MIG-" + uuid1 + "/2/0", Name: "NVIDIA H100 80GB HBM3 MIG", Vendor: NVIDIA, Parent: uuid1, PCI: "0000:a1:00.0", NUMA: 1,
			Nodes: []Node{gpu1, caps(30, false), caps(31, true)}, Shared: shared, Files: files},
	}
	if diff := cmp.Diff(want, inv.Units()); diff != "" {
		t.Error(diff)
	}
	if len(inv.Notes()) != 0 {
		t.Errorf("notes = %q, want none", inv.Notes())
	}
	if u, ok := inv.Find("0000:62:00.0"); !ok || u.ID != uuid0 {
		t.Errorf("Find by PCI address = %v, %v", u.ID, ok)
	}
	if _, ok := inv.Find("0000:a1:00.0"); ok {
		t.Error("Find took a GPU that is cut into instances for one of them")
	}
}

func TestDiscoverDRM(t *testing.T) {
	inv := discover(t, tree(t, radeons()))
	want := []Unit{
		{ID: "0000:0a:00.0", Name: "amdgpu [1002:73bf]", Vendor: AMD, Parent: "0000:0a:00.0", PCI: "0000:0a:00.0", NUMA: -1, MemoryBytes: 17163091968,
			Nodes: []Node{{Path: "/dev/dri/renderD129", Major: 226, Minor: 129, Access: "rw"}}, Shared: []Node{{Path: "/dev/kfd", Major: 240, Access: "rw"}}},
		{ID: "0000:03:00.0", Name: "xe [8086:e20b]", Vendor: Intel, Parent: "0000:03:00.0", PCI: "0000:03:00.0", NUMA: -1,
			Nodes: []Node{{Path: "/dev/dri/renderD128", Major: 226, Minor: 128, Access: "rw"}}},
	}
	if diff := cmp.Diff(want, inv.Units(), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// change is a host with some files changed; an empty text removes one.
func change(files map[string]string, edits map[string]string) map[string]string {
	for name, text := range edits {
		if text == "" {
			delete(files, name)
		} else {
			files[name] = text
		}
	}
	return files
}

func TestDiscoverSaysWhatIsNotOffered(t *testing.T) {
	gpu0 := "proc/driver/nvidia/gpus/0000:62:00.0/information"
	tests := map[string]struct {
		files map[string]string
		units int
		note  string
	}{
		"a host without a GPU":                {map[string]string{"proc/devices": majors}, 0, "no GPU here: "},
		"a driver without a GPU":              {map[string]string{"proc/devices": majors, "dev/nvidiactl": "195:255"}, 0, "the driver is here and lists none"},
		"a module is missing":                 {change(hopper(), map[string]string{"proc/devices": strings.ReplaceAll(majors, "510 nvidia-uvm\n", "")}), 0, "nvidia-uvm is not loaded"},
		"a control node of an earlier module": {change(hopper(), map[string]string{"dev/nvidia-uvm": "509:0"}), 0, "/dev/nvidia-uvm is stale"},
		"a GPU's node is another device":      {change(hopper(), map[string]string{"dev/nvidia0": "8:0"}), 2, "0000:62:00.0 is not offered: /dev/nvidia0 is stale"},
		"the driver excludes a GPU":           {change(hopper(), map[string]string{gpu0: information(uuid0, "0000:62:00.0", 0, "Yes")}), 2, "the driver excludes it"},
		"a capability cannot be read":         {change(hopper(), map[string]string{"proc/driver/nvidia/capabilities/gpu1/mig/gi1/access": "what\n"}), 1, "no DeviceFileMinor"},
		"a driver without libraries":          {change(hopper(), map[string]string{"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  999.1  x\n"}), 3, "no library of NVIDIA's driver 999.1"},
		"a render node is another device":     {change(radeons(), map[string]string{"dev/dri/renderD129": "1:3"}), 1, "renderD129 is not offered: /dev/dri/renderD129 is stale"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inv := discover(t, tree(t, tt.files))
			if len(inv.Units()) != tt.units || len(inv.Notes()) != 1 || !strings.Contains(inv.Notes()[0], tt.note) {
				t.Errorf("%d units, notes %q; want %d and one with %q", len(inv.Units()), inv.Notes(), tt.units, tt.note)
			}
		})
	}
}

func TestGPUThatNobodyUsedIsNamedByItsAddress(t *testing.T) {
	files := change(hopper(), map[string]string{
		"proc/driver/nvidia/gpus/0000:62:00.0/information": information("GPU-????????-????-????-????-????????????", "0000:62:00.0", 0, "No")})
	if u := discover(t, tree(t, files)).Units()[0]; u.ID != "0000:62:00.0" || u.UUID != "" {
		t.Errorf("unit %q with UUID %q, want its address and none", u.ID, u.UUID)
	}
}

func TestDeviceNumbers(t *testing.T) {
	if major, minor, err := deviceNumbers("/dev/null"); err != nil || major != 1 || minor != 3 {
		t.Errorf("/dev/null = %d:%d, %v; want 1:3", major, minor, err)
	}
	link := filepath.Join(t.TempDir(), "nvidia0")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	if _, _, err := deviceNumbers(link); err == nil {
		t.Error("a link was followed to a device")
	}
	if _, _, err := deviceNumbers(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("err = %v, want not exist", err)
	}
}

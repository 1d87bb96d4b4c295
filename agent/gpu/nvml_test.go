//go:build nvml && cgo

package gpu

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/google/go-cmp/cmp"
)

// dgx is NVIDIA's own imitation of a DGX A100 with 8 GPUs, completed by the calls
// it leaves out, and the files of such a host. The last GPU is cut in two.
func dgx(t *testing.T) (*server.Server, Config) {
	t.Helper()
	machine := dgxa100.New()
	files := map[string]string{"proc/devices": majors, "proc/driver/nvidia/version": openVersion, "dev/nvidiactl": "195:255", "dev/nvidia-uvm": "510:0",
		"usr/lib64/libcuda.so.570.86.15": "elf"}
	for i, d := range machine.Devices {
		dev := d.(*server.Device)
		complete(dev)
		files[fmt.Sprintf("proc/driver/nvidia/gpus/%s/information", dev.PciBusID)] = information(dev.UUID, dev.PciBusID, dev.Minor, "No")
		files[fmt.Sprintf("dev/nvidia%d", i)] = fmt.Sprintf("195:%d", i)
	}
	cut(t, machine.Devices[7].(*server.Device), files)
	cfg := tree(t, files)
	cfg.open = func() (library, error) { return newNVML(machine) }
	return machine, cfg
}

// complete makes a device of 2 GiB in use by processes 100 and 200, of which the
// first is busy.
func complete(d *server.Device) {
	d.MemoryInfo.Used = 2 << 30
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 42}, nvml.SUCCESS }
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: 200, UsedGpuMemory: math.MaxUint64}, {Pid: 100, UsedGpuMemory: 1 << 30}}, nvml.SUCCESS
	}
	d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: 100, UsedGpuMemory: 1 << 30}}, nvml.SUCCESS
	}
	d.GetProcessUtilizationFunc = func(since uint64) ([]nvml.ProcessUtilizationSample, nvml.Return) {
		if since >= 30 {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return []nvml.ProcessUtilizationSample{{Pid: 100, TimeStamp: 20, SmUtil: 30}, {Pid: 100, TimeStamp: 30, SmUtil: 50}}, nvml.SUCCESS
	}
}

// cut makes two instances of a device, with a gap between their numbers: the
// imitation has GPU instances and compute instances, and no MIG devices.
func cut(t *testing.T, d *server.Device, files map[string]string) {
	t.Helper()
	d.SetMigMode(nvml.DEVICE_MIG_ENABLE)
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	d.GetMigDeviceHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
		if i != 0 && i != 2 {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return &mock.Device{
			GetGpuInstanceIdFunc:     func() (int, nvml.Return) { return 3 + i, nvml.SUCCESS },
			GetComputeInstanceIdFunc: func() (int, nvml.Return) { return 0, nvml.SUCCESS },
			GetUUIDFunc:              func() (string, nvml.Return) { return fmt.Sprintf("MIG-uuid-%d", i), nvml.SUCCESS },
			GetNameFunc:              func() (string, nvml.Return) { return "NVIDIA A100-SXM4-40GB MIG 3g.20gb", nvml.SUCCESS },
			GetMemoryInfoFunc: func() (nvml.Memory, nvml.Return) {
				return nvml.Memory{Total: 20 << 30, Used: 1 << 20}, nvml.SUCCESS
			},
			GetComputeRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) {
				return []nvml.ProcessInfo{{Pid: 150, UsedGpuMemory: 1 << 20}}, nvml.SUCCESS
			},
			GetGraphicsRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED },
		}, nvml.SUCCESS
	}
	for i, gi := range []int{3, 5} {
		dir := fmt.Sprintf("proc/driver/nvidia/capabilities/gpu7/mig/gi%d/", gi)
		files[dir+"access"], files[dir+"ci0/access"] = access(40+2*i), access(41+2*i)
	}
}

func TestNVMLDiscovery(t *testing.T) {
	machine, cfg := dgx(t)
	inv := discover(t, cfg)
	units := inv.Units()
	if len(units) != 9 || len(inv.Notes()) != 0 {
		t.Fatalf("%d units, notes %q; want 7 GPUs and 2 instances", len(units), inv.Notes())
	}
	for i, u := range units[:7] {
		if u.ID != machine.Devices[i].(*server.Device).UUID || u.MemoryBytes != 40<<30 || u.Name != "Mock NVIDIA A100-SXM4-40GB" {
			t.Errorf("unit %d: %+v", i, u)
		}
	}
	parent := machine.Devices[7].(*server.Device).UUID
	want := Unit{ID: "MIG-" + parent + "/5/0", UUID: "MIG-uuid-2", Name: "NVIDIA A100-SXM4-40GB MIG 3g.20gb", Vendor: NVIDIA, Parent: parent, PCI: "0000:07:00.0",
		NUMA: -1, MemoryBytes: 20 << 30, Shared: units[8].Shared, Files: units[8].Files,
		Nodes: []Node{{Path: "/dev/nvidia7", Major: 195, Minor: 7, Access: "rw"}, {Path: "/dev/nvidia-caps/nvidia-cap42", Major: 235, Minor: 42, Access: "r", Missing: true},
			{Path: "/dev/nvidia-caps/nvidia-cap43", Major: 235, Minor: 43, Access: "r", Missing: true}}}
	if diff := cmp.Diff(want, units[8]); diff != "" {
		t.Error(diff)
	}
}

// TestBothBuildsNameUnitsAlike is what lets a record outlive a change of build.
func TestBothBuildsNameUnitsAlike(t *testing.T) {
	_, cfg := dgx(t)
	with := ids(discover(t, cfg).Units())
	cfg.open = nil
	if diff := cmp.Diff(with, ids(discover(t, cfg).Units())); diff != "" {
		t.Error(diff)
	}
}

func TestNVMLKnowsMIGModeWithoutInstances(t *testing.T) {
	machine, cfg := dgx(t)
	machine.Devices[0].SetMigMode(nvml.DEVICE_MIG_ENABLE)
	machine.Devices[0].(*server.Device).GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
	if inv := discover(t, cfg); len(inv.Units()) != 8 || len(inv.Notes()) != 1 {
		t.Errorf("%d units, notes %q; want 8 and one", len(inv.Units()), inv.Notes())
	}
}

func TestNVMLSample(t *testing.T) {
	machine, cfg := dgx(t)
	uuid := machine.Devices[0].(*server.Device).UUID
	m := NewMeter(discover(t, cfg))
	defer m.Close()
	for _, busy := range []float64{0.4, 0} { // the mean of two samples, then idle
		s, err := m.Sample(t.Context(), vmOf)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Units) != 9 || len(s.Processes) != 9 {
			t.Fatalf("%d units, %d processes; want 9 of each", len(s.Units), len(s.Processes))
		}
		if diff := cmp.Diff(UnitUse{uuid, ptr(0.42), ptr[int64](2 << 30)}, s.Units[0]); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(ProcessUse{100, "v1", uuid, ptr(busy), ptr[int64](1 << 30)}, s.Processes[0]); diff != "" {
			t.Error(diff)
		}
		mig := s.Units[8]
		if diff := cmp.Diff(UnitUse{mig.Unit, nil, ptr[int64](1 << 20)}, mig); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(ProcessUse{150, "v1", mig.Unit, nil, ptr[int64](1 << 20)}, s.Processes[8]); diff != "" {
			t.Error(diff)
		}
	}
}

func TestNVMLNotAvailableIsUnknown(t *testing.T) {
	machine, cfg := dgx(t)
	m := NewMeter(discover(t, cfg))
	defer m.Close()
	d := machine.Devices[0].(*server.Device)
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED }
	d.GetProcessUtilizationFunc = func(uint64) ([]nvml.ProcessUtilizationSample, nvml.Return) { return nil, nvml.ERROR_NOT_SUPPORTED }
	s, err := m.Sample(t.Context(), func(pid int) (string, bool) { return "v2", pid == 200 })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ProcessUse{200, "v2", d.UUID, nil, nil}, s.Processes[0]); diff != "" {
		t.Error(diff)
	}
	if s.Units[0].BusyRatio != nil {
		t.Errorf("ratio %v, want unknown", *s.Units[0].BusyRatio)
	}
}

func TestNVMLOneLostGPUDoesNotHideTheOthers(t *testing.T) {
	machine, cfg := dgx(t)
	m := NewMeter(discover(t, cfg))
	defer m.Close()
	machine.Devices[3].(*server.Device).GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
	s, err := m.Sample(t.Context(), vmOf)
	if !errors.Is(err, nvml.ERROR_GPU_IS_LOST) || len(s.Units) != 8 {
		t.Errorf("%d units, %v; want 8 and the loss", len(s.Units), err)
	}
}

func TestNVMLTooOldIsNotCalled(t *testing.T) {
	machine, _ := dgx(t)
	machine.LookupSymbolFunc = func(name string) error { return fmt.Errorf("undefined symbol: %s", name) }
	machine.DeviceGetCountFunc = nil // a call would panic, as it would end the process in earnest
	if _, err := newNVML(machine); err == nil {
		t.Error("a library without its functions was taken")
	}
}

// TestNVMLWithoutDriver is the real binding where there is no library.
func TestNVMLWithoutDriver(t *testing.T) {
	lib, err := openLibrary()
	if err == nil {
		t.Skip("this host has NVML: ", lib.close())
	}
	if !errors.Is(err, nvml.ERROR_LIBRARY_NOT_FOUND) {
		t.Errorf("err = %v, want library not found", err)
	}
}

// TestNVMLOldLibrary is the real binding with a real library that has no more
// than start and stop: calling anything else would end this process.
func TestNVMLOldLibrary(t *testing.T) {
	dir := t.TempDir()
	source, lib := filepath.Join(dir, "old.c"), filepath.Join(dir, "libold.so")
	if err := os.WriteFile(source, []byte("int nvmlInit_v2(void) { return 0; }\nint nvmlShutdown(void) { return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", lib, source).CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	_, err := newNVML(nvml.New(nvml.WithLibraryPath(lib)))
	if err == nil || !strings.Contains(err.Error(), "nvmlDeviceGetCount_v2") {
		t.Errorf("err = %v, want the missing function", err)
	}
}

//go:build nvml && cgo

package gpu

import (
	"errors"
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlLibrary is NVML through NVIDIA's binding. Nothing of it is kept between
// calls but the time of the last utilisation seen: instances come and go.
type nvmlLibrary struct {
	api  nvml.Interface
	seen map[string]uint64 // by UUID, in µs of the driver's clock
}

// required are the functions that are called. The binding ends the whole process
// at the call of one that the library lacks, so each is looked up before: all are
// there since driver 450.
func required() []string {
	return []string{
		"nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetName",
		"nvmlDeviceGetMinorNumber", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates",
		"nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetProcessUtilization",
		"nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex",
		"nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId",
	}
}

func openLibrary() (library, error) { return newNVML(nvml.New()) }

// newNVML starts the library. After a start that failed no other call is made:
// it would end the process.
func newNVML(api nvml.Interface) (library, error) {
	if r := api.Init(); r != nvml.SUCCESS {
		return nil, fmt.Errorf("start NVML: %w", r)
	}
	for _, name := range required() {
		if err := api.Extensions().LookupSymbol(name); err != nil {
			return nil, errors.Join(fmt.Errorf("use NVML of this driver: %w", err), failure("stop NVML", api.Shutdown()))
		}
	}
	return &nvmlLibrary{api: api, seen: map[string]uint64{}}, nil
}

func (l *nvmlLibrary) close() error { return failure("stop NVML", l.api.Shutdown()) }

// failure is nil for success.
func failure(what string, r nvml.Return) error {
	if r == nvml.SUCCESS {
		return nil
	}
	return fmt.Errorf("%s: %w", what, r)
}

// each visits the GPUs that answer. One that is lost does not keep the others
// from being visited.
func (l *nvmlLibrary) each(visit func(card, nvml.Device) error) error {
	n, r := l.api.DeviceGetCount()
	if r != nvml.SUCCESS {
		return fmt.Errorf("count GPUs: %w", r)
	}
	var errs []error
	for i := range n {
		dev, r := l.api.DeviceGetHandleByIndex(i)
		if r == nvml.ERROR_NO_PERMISSION { // excluded by the device filter this process runs under
			continue
		}
		if r != nvml.SUCCESS {
			errs = append(errs, fmt.Errorf("find GPU %d: %w", i, r))
			continue
		}
		c, err := describe(dev)
		if err == nil {
			err = visit(c, dev)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read GPU %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// describe reads what does not change. Only UUID and minor are needed.
func describe(dev nvml.Device) (card, error) {
	uuid, r := dev.GetUUID()
	if r != nvml.SUCCESS {
		return card{}, r
	}
	minor, r := dev.GetMinorNumber()
	if r != nvml.SUCCESS {
		return card{}, r
	}
	c := card{uuid: uuid, minor: minor}
	c.name, _ = dev.GetName()
	if p, r := dev.GetPciInfo(); r == nvml.SUCCESS {
		c.pci = fmt.Sprintf("%04x:%02x:%02x.0", p.Domain, p.Bus, p.Device)
	}
	if m, r := dev.GetMemoryInfo(); r == nvml.SUCCESS {
		c.memory = int64(m.Total)
	}
	mode, _, r := dev.GetMigMode() // not supported before Ampere
	c.mig = r == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE
	return c, nil
}

func (l *nvmlLibrary) cards() ([]card, error) {
	var cards []card
	err := l.each(func(c card, dev nvml.Device) error {
		err := eachInstance(c, dev, func(i instance, _ nvml.Device) { c.instances = append(c.instances, i) })
		cards = append(cards, c)
		return err
	})
	if len(cards) > 0 {
		return cards, nil // the GPUs that are lost stay as /proc has them
	}
	return nil, err
}

// eachInstance visits the MIG devices of a GPU. Their numbers have gaps.
func eachInstance(c card, dev nvml.Device, visit func(instance, nvml.Device)) error {
	if !c.mig {
		return nil
	}
	n, r := dev.GetMaxMigDeviceCount()
	if r != nvml.SUCCESS {
		return fmt.Errorf("count MIG devices: %w", r)
	}
	for i := range n {
		mig, r := dev.GetMigDeviceHandleByIndex(i)
		if r != nvml.SUCCESS { // NOT_FOUND in a gap
			continue
		}
		gi, r1 := mig.GetGpuInstanceId()
		ci, r2 := mig.GetComputeInstanceId()
		if r1 != nvml.SUCCESS || r2 != nvml.SUCCESS { // removed meanwhile
			continue
		}
		in := instance{gi: gi, ci: ci}
		if name, r := mig.GetName(); r == nvml.SUCCESS {
			in.name = strings.TrimSpace(name)
		}
		if uuid, r := mig.GetUUID(); r == nvml.SUCCESS {
			in.uuid = uuid
		}
		if m, r := mig.GetMemoryInfo(); r == nvml.SUCCESS {
			in.memory = int64(m.Total)
		}
		visit(in, mig)
	}
	return nil
}

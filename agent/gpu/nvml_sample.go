//go:build nvml && cgo

package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

func (l *nvmlLibrary) sample() (units []UnitUse, processes []ProcessUse, err error) {
	err = l.each(func(c card, dev nvml.Device) error {
		if c.mig { // utilisation is not told of instances, nor of their processes
			return eachInstance(c, dev, func(i instance, mig nvml.Device) {
				units = append(units, UnitUse{Unit: i.id(c.uuid), MemoryUsedBytes: memoryUsed(mig)})
				running, _ := running(i.id(c.uuid), mig)
				processes = append(processes, running...)
			})
		}
		u, ps, err := l.sampleGPU(c, dev)
		units, processes = append(units, u), append(processes, ps...)
		return err
	})
	return units, processes, err
}

func (l *nvmlLibrary) sampleGPU(c card, dev nvml.Device) (UnitUse, []ProcessUse, error) {
	use := UnitUse{Unit: c.uuid, MemoryUsedBytes: memoryUsed(dev)}
	if u, r := dev.GetUtilizationRates(); r == nvml.SUCCESS {
		use.BusyRatio = ratio(float64(u.Gpu))
	}
	processes, err := running(c.uuid, dev)
	if err != nil {
		return use, nil, err
	}
	busy, known, err := l.busy(c.uuid, dev)
	if err != nil || !known {
		return use, processes, err
	}
	for i, p := range processes {
		processes[i].BusyRatio = ratio(busy[p.PID]) // none means idle
	}
	return use, processes, nil
}

func ratio(percent float64) *float64 {
	r := min(percent/100, 1)
	return &r
}

func memoryUsed(dev nvml.Device) *int64 {
	m, r := dev.GetMemoryInfo()
	if r != nvml.SUCCESS {
		return nil
	}
	return amount(m.Used)
}

// amount is nil for numbers that stand for "not available".
func amount(n uint64) *int64 {
	if n > math.MaxInt64 {
		return nil
	}
	b := int64(n)
	return &b
}

// running lists the processes with memory on a device. One that computes and
// draws is in both lists, with the same figure.
func running(unit string, dev nvml.Device) ([]ProcessUse, error) {
	byPID := map[uint32]ProcessUse{}
	var errs []error
	for _, list := range []func() ([]nvml.ProcessInfo, nvml.Return){dev.GetComputeRunningProcesses, dev.GetGraphicsRunningProcesses} {
		infos, r := list()
		if r != nvml.SUCCESS && r != nvml.ERROR_NOT_SUPPORTED {
			errs = append(errs, fmt.Errorf("list processes: %w", r))
		}
		for _, p := range infos {
			if have, twice := byPID[p.Pid]; !twice || have.MemoryBytes == nil {
				byPID[p.Pid] = ProcessUse{PID: int(p.Pid), Unit: unit, MemoryBytes: amount(p.UsedGpuMemory)}
			}
		}
	}
	var all []ProcessUse
	for _, p := range byPID {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b ProcessUse) int { return cmp.Compare(a.PID, b.PID) })
	return all, errors.Join(errs...)
}

// busy is the mean use of the multiprocessors in percent by each process since
// the sample before. The driver lists only processes that were busy, and answers
// NOT_FOUND when none was.
func (l *nvmlLibrary) busy(uuid string, dev nvml.Device) (percent map[int]float64, known bool, err error) {
	since := l.seen[uuid]
	samples, r := dev.GetProcessUtilization(since)
	switch {
	case r == nvml.ERROR_NOT_SUPPORTED:
		return nil, false, nil
	case r == nvml.ERROR_NOT_FOUND, r == nvml.ERROR_INSUFFICIENT_SIZE && len(samples) == 0:
		return nil, true, nil
	case r == nvml.ERROR_INSUFFICIENT_SIZE: // a process came between the two calls
		return nil, false, nil
	case r != nvml.SUCCESS:
		return nil, false, fmt.Errorf("read utilisation of processes: %w", r)
	}
	percent, l.seen[uuid] = meanSince(samples, since)
	return percent, true, nil
}

// meanSince leaves out samples that are not newer: some drivers return them.
func meanSince(samples []nvml.ProcessUtilizationSample, since uint64) (percent map[int]float64, newest uint64) {
	percent, newest = map[int]float64{}, since
	count := map[int]float64{}
	for _, s := range samples {
		if s.TimeStamp <= since || s.SmUtil > 100 {
			continue
		}
		newest = max(newest, s.TimeStamp)
		count[int(s.Pid)]++
		percent[int(s.Pid)] += (float64(s.SmUtil) - percent[int(s.Pid)]) / count[int(s.Pid)]
	}
	return percent, newest
}

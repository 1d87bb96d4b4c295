package agent

import (
	"cloudflash/agent/clock"
	"cloudflash/agent/state"
)

// Host returns this machine as the agent sees it now.
func (a *Agent) Host() Host { return a.viewHost(a.state.View()) }

func (a *Agent) viewHost(s state.View) Host {
	f := a.host.Facts()
	capacity, reserved := a.capacity(), reserved(s)
	return Host{
		Name:             f.Name,
		Kernel:           f.Kernel,
		OS:               f.OS,
		BootID:           f.BootID,
		Version:          a.cfg.Version,
		AgentStartedAt:   a.startedAt.UTC(),
		UptimeSeconds:    clock.SinceBoot().Seconds(),
		CPUs:             f.CPUs,
		MemoryBytes:      f.MemoryBytes,
		StorageBytes:     f.StorageBytes,
		Capacity:         capacity,
		Reserved:         reserved,
		Free:             capacity.minus(reserved),
		Usage:            hostUsageOf(a.meter.Host(), a.meter.Collectors()),
		VMs:              s.VMCount(),
		CloudletsByState: s.CloudletCounts(),
		CgroupParent:     a.parent.Dir(),
		StateDir:         a.cfg.StateDir,
	}
}

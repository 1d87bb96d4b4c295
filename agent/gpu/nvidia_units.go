package gpu

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// nvidiaUnits turns cards into units. A card of which anything is missing is not
// offered, and a note says what.
func (h host) nvidiaUnits(cards []card, inv *Inventory) {
	slices.SortStableFunc(cards, func(a, b card) int { return cmp.Compare(a.pci, b.pci) })
	majors := parseMajors(h.text("/proc/devices"))
	shared, err := h.sharedNodes(majors)
	if err != nil {
		inv.note("no NVIDIA GPU is offered: %v", err)
		return
	}
	version := parseDriverVersion(h.text(nvidiaProc, "version"))
	files := h.driverFiles(version)
	if len(files) == 0 {
		inv.note("no library of NVIDIA's driver %s was found: images without their own cannot use these GPUs", version)
	}
	for _, c := range cards {
		units, err := h.cardUnits(c, majors)
		if err != nil {
			inv.note("NVIDIA GPU %s is not offered: %v", cmp.Or(c.pci, c.uuid), err)
			continue
		}
		for _, u := range units {
			u.Shared, u.Files = shared, files
			inv.units = append(inv.units, u)
		}
	}
}

func (h host) cardUnits(c card, majors map[string]uint32) ([]Unit, error) {
	if c.excluded {
		return nil, fmt.Errorf("the driver excludes it")
	}
	if c.mig && len(c.instances) == 0 {
		return nil, fmt.Errorf("MIG mode is on and it has no instances")
	}
	if c.minor < 0 {
		return nil, fmt.Errorf("the driver tells no device minor")
	}
	node, err := h.node("/dev/nvidia"+strconv.Itoa(c.minor), nvidiaMajor, uint32(c.minor), "rw")
	if err != nil {
		return nil, err
	}
	id := cmp.Or(c.uuid, c.pci)
	whole := Unit{ID: id, UUID: c.uuid, Name: c.name, Vendor: NVIDIA, Parent: id, PCI: c.pci,
		NUMA: h.numaNode(c.pci), MemoryBytes: c.memory, Nodes: []Node{node}}
	if !c.mig {
		return []Unit{whole}, nil
	}
	var units []Unit
	for _, i := range c.instances {
		caps, err := h.capabilityNodes(c.minor, i, majors)
		if err != nil {
			return nil, err
		}
		u := whole
		u.ID, u.UUID, u.MemoryBytes = i.id(id), i.uuid, i.memory
		u.Name = cmp.Or(i.name, c.name+" MIG")
		u.Nodes = append([]Node{node}, caps...)
		units = append(units, u)
	}
	return units, nil
}

// capabilityNodes are what a process must be able to open to use an instance:
// one node for its GPU instance and one for its compute instance. The nodes of
// mig/config and mig/monitor are never among them.
func (h host) capabilityNodes(minor int, i instance, majors map[string]uint32) ([]Node, error) {
	major, ok := majors["nvidia-caps"]
	if !ok {
		return nil, fmt.Errorf("/proc/devices has no nvidia-caps")
	}
	gi := fmt.Sprintf("%s/gi%d", migDir(minor), i.gi)
	var nodes []Node
	for _, access := range []string{gi + "/access", fmt.Sprintf("%s/ci%d/access", gi, i.ci)} {
		m, err := parseAccess(h.text(access))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", access, err)
		}
		n, err := h.node("/dev/nvidia-caps/nvidia-cap"+strconv.FormatUint(uint64(m), 10), major, m, "r")
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// sharedNodes are needed beside the node of a GPU; each process sees through
// them only the GPUs whose nodes it can open. nvidia-modeset is not among them:
// it sets display modes.
func (h host) sharedNodes(majors map[string]uint32) ([]Node, error) {
	uvm, ok := majors["nvidia-uvm"]
	if !ok {
		return nil, fmt.Errorf("the kernel module nvidia-uvm is not loaded: nvidia-modprobe -u -c 0 loads it")
	}
	var nodes []Node
	for _, n := range []Node{
		{Path: "/dev/nvidiactl", Major: nvidiaMajor, Minor: controlNode},
		{Path: "/dev/nvidia-uvm", Major: uvm, Minor: 0},
		{Path: "/dev/nvidia-uvm-tools", Major: uvm, Minor: 1},
	} {
		n, err := h.node(n.Path, n.Major, n.Minor, "rw")
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// numaNode is -1 where the machine has one node only and says so.
func (h host) numaNode(pci string) int {
	n, err := strconv.Atoi(h.text("/sys/bus/pci/devices", pci, "numa_node"))
	if err != nil {
		return -1
	}
	return n
}

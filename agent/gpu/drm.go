package gpu

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const drmClass = "/sys/class/drm"

// drmVendors are the drivers whose render nodes are units. NVIDIA's have one
// too and are found otherwise; nouveau has no compute; virtio and others only
// pass on to the host.
func drmVendor(driver string) (string, bool) {
	switch driver {
	case "amdgpu":
		return AMD, true
	case "i915", "xe":
		return Intel, true
	}
	return "", false
}

// drm finds AMD and Intel GPUs by their render nodes. A card node is never given:
// it sets display modes.
func (h host) drm(inv *Inventory) error {
	names, err := h.names(drmClass)
	if err != nil {
		return err
	}
	var units []Unit
	for _, name := range names {
		if _, ok := numbered(name, "renderD"); !ok {
			continue
		}
		u, ok, err := h.renderUnit(name)
		if err != nil {
			inv.note("GPU %s is not offered: %v", name, err)
		}
		if ok && err == nil {
			units = append(units, u)
		}
	}
	slices.SortStableFunc(units, func(a, b Unit) int {
		return cmp.Or(cmp.Compare(a.Vendor, b.Vendor), cmp.Compare(a.PCI, b.PCI))
	})
	inv.units = append(inv.units, units...)
	return nil
}

func (h host) renderUnit(name string) (Unit, bool, error) {
	event := equations(h.text(drmClass, name, "device/uevent"))
	vendor, ok := drmVendor(event["DRIVER"])
	pci := strings.ToLower(event["PCI_SLOT_NAME"])
	if !ok || !validPCI(pci) {
		return Unit{}, false, nil
	}
	major, minor, err := parseNumbers(h.text(drmClass, name, "dev"))
	if err != nil {
		return Unit{}, true, err
	}
	node, err := h.node(filepath.Join("/dev/dri", name), major, minor, "rw")
	if err != nil {
		return Unit{}, true, err
	}
	u := Unit{ID: pci, Vendor: vendor, Parent: pci, PCI: pci,
		Name: h.drmName(name, event), NUMA: h.numaNode(pci), Nodes: []Node{node}}
	u.MemoryBytes = parseBytes(h.text(drmClass, name, "device/mem_info_vram_total"))
	if vendor == AMD {
		u.Shared = h.computeNode()
	}
	return u, true, nil
}

// drmName is the model where amdgpu knows it, else vendor and device number as
// lspci -nn has them.
func (h host) drmName(name string, event map[string]string) string {
	if n := h.text(drmClass, name, "device/product_name"); n != "" {
		return n
	}
	return fmt.Sprintf("%s [%s]", event["DRIVER"], strings.ToLower(event["PCI_ID"]))
}

// computeNode is /dev/kfd, which ROCm needs. One node serves all of AMD's GPUs;
// the driver asks the device filter for the render node of each.
func (h host) computeNode() []Node {
	major, minor, err := parseNumbers(h.text("/sys/class/kfd/kfd/dev"))
	if err != nil {
		return nil
	}
	node, err := h.node("/dev/kfd", major, minor, "rw")
	if err != nil {
		return nil
	}
	return []Node{node}
}

// equations splits the KEY=value lines of a uevent file.
func equations(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[key] = value
		}
	}
	return m
}

// parseBytes is 0 for what is no number of bytes.
func parseBytes(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

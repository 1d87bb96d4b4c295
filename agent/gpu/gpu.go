package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The vendors of units.
const (
	NVIDIA = "nvidia"
	AMD    = "amd"
	Intel  = "intel"
)

// A Unit is what one VM can have alone: a GPU or a MIG instance.
type Unit struct {
	ID          string // GPU-UUID, MIG-GPU-UUID/gi/ci, or the PCI address of AMD and Intel
	UUID        string // NVML's name of it, for CUDA_VISIBLE_DEVICES; empty if unknown
	Name        string // model
	Vendor      string
	Parent      string // ID of the GPU an instance is on; the unit's own for a whole GPU
	PCI         string // 0000:62:00.0
	NUMA        int    // -1: unknown
	MemoryBytes int64  // 0: unknown, or none of its own
	Nodes       []Node
	Shared      []Node   // control nodes that every unit of the vendor needs
	Files       []string // driver libraries and programs on the host, to show read-only
}

// A Node is a character device. The numbers are the driver's: a node in /dev
// that has others is stale and is not used.
type Node struct {
	Path         string
	Major, Minor uint32
	Access       string // of the device filter: r or rw
	Missing      bool   // the driver has the device, /dev has no node of it yet
}

// Config says where to look.
type Config struct {
	Root string // in front of /proc, /sys, /dev, /etc and /usr; empty is the host

	numbers func(path string) (major, minor uint32, err error)
	open    func() (library, error)
}

// An Inventory is what was found. It does not change; look again for changes.
type Inventory struct {
	units  []Unit
	notes  []string
	config Config
	stuck  bool // NVML never came back
}

// Units are the units that can be given away, NVIDIA's first, by PCI address.
func (inv Inventory) Units() []Unit { return slices.Clone(inv.units) }

// Notes are what an operator should know, a line each: why there is no GPU, or
// why one is not offered.
func (inv Inventory) Notes() []string { return slices.Clone(inv.notes) }

// Find returns the unit with the ID, UUID or PCI address.
func (inv Inventory) Find(name string) (Unit, bool) {
	for _, u := range inv.units {
		if name != "" && (u.ID == name || u.UUID == name || u.PCI == name && u.Parent == u.ID) {
			return u, true
		}
	}
	return Unit{}, false
}

// Discover looks for GPUs. No GPU is no error: the inventory is empty and its
// notes say why. The context bounds calls into NVIDIA's library, which may hang
// when a GPU has fallen off its bus; what the kernel tells is used then.
func Discover(ctx context.Context, cfg Config) (Inventory, error) {
	h := newHost(cfg)
	inv := Inventory{config: cfg}
	if err := h.nvidia(ctx, &inv); err != nil {
		return Inventory{}, fmt.Errorf("look for NVIDIA GPUs: %w", err)
	}
	if err := h.drm(&inv); err != nil {
		return Inventory{}, fmt.Errorf("look for AMD and Intel GPUs: %w", err)
	}
	if len(inv.units) == 0 && len(inv.notes) == 0 {
		inv.note("no GPU here: neither NVIDIA's driver nor a render node of amdgpu, i915 or xe")
	}
	return inv, nil
}

func (inv *Inventory) note(format string, args ...any) {
	inv.notes = append(inv.notes, fmt.Sprintf(format, args...))
}

// host reads files below a root.
type host struct {
	root    string
	numbers func(path string) (major, minor uint32, err error)
	open    func() (library, error)
}

func newHost(cfg Config) host {
	h := host{root: cfg.Root, numbers: cfg.numbers, open: cfg.open}
	if h.numbers == nil {
		h.numbers = deviceNumbers
	}
	if h.open == nil {
		h.open = openLibrary
		if cfg.Root != "" && cfg.Root != "/" { // the library knows only this host
			h.open = func() (library, error) { return nil, errNotBuilt }
		}
	}
	return h
}

func (h host) path(elem ...string) string {
	return filepath.Join(h.root, filepath.Join(elem...))
}

// text is the content of a small file, trimmed; empty if there is none.
func (h host) text(elem ...string) string {
	b, err := os.ReadFile(h.path(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (h host) exists(elem ...string) bool {
	_, err := os.Stat(h.path(elem...))
	return err == nil
}

// names lists a directory; one that is not there is empty.
func (h host) names(elem ...string) ([]string, error) {
	entries, err := os.ReadDir(h.path(elem...))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// node checks the node in /dev against the driver's numbers. A dynamic major may
// belong to another driver after modules were loaded again, and a VM with an old
// node would reach that one.
func (h host) node(path string, major, minor uint32, access string) (Node, error) {
	n := Node{Path: path, Major: major, Minor: minor, Access: access}
	gotMajor, gotMinor, err := h.numbers(h.path(path))
	if errors.Is(err, os.ErrNotExist) {
		n.Missing = true
		return n, nil
	}
	if err != nil {
		return n, err
	}
	if gotMajor != major || gotMinor != minor {
		return n, fmt.Errorf("%s is stale: it has the numbers %d:%d, the driver %d:%d", path, gotMajor, gotMinor, major, minor)
	}
	return n, nil
}

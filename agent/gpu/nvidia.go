package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	nvidiaProc  = "/proc/driver/nvidia"
	nvidiaMajor = 195 // fixed by the kernel's list of devices
	controlNode = 255 // minor of /dev/nvidiactl
)

// A card is an NVIDIA GPU, as /proc or NVML tells of it.
type card struct {
	uuid, name, pci string
	minor           int
	memory          int64
	excluded        bool // by the driver's option NVreg_ExcludedGpus
	mig             bool // cut into instances, of which there may be none
	instances       []instance
}

// An instance is a compute instance: what CUDA calls a MIG device.
type instance struct {
	gi, ci int
	uuid   string
	name   string
	memory int64
}

// id is also CUDA's older name of the instance, and does not change when the
// same instance is made again.
func (i instance) id(gpu string) string { return fmt.Sprintf("MIG-%s/%d/%d", gpu, i.gi, i.ci) }

func (h host) nvidia(ctx context.Context, inv *Inventory) error {
	if !h.exists(nvidiaProc) && !h.exists("/dev/nvidiactl") {
		return nil
	}
	cards, err := h.procCards(ctx)
	if err != nil {
		return err
	}
	more, err := h.libraryCards(ctx)
	switch {
	case errors.Is(err, errNotBuilt):
	case err != nil:
		inv.stuck = ctx.Err() != nil
		inv.note("NVML tells nothing, use and memory of NVIDIA GPUs are unknown: %v", err)
	default:
		cards = merge(cards, more)
	}
	if len(cards) == 0 {
		inv.note("no NVIDIA GPU is offered: the driver is here and lists none")
		return nil
	}
	h.nvidiaUnits(cards, inv)
	return nil
}

// libraryCards asks NVML. When it does not come back in time its goroutine is
// left behind: a thread in the driver cannot be stopped.
func (h host) libraryCards(ctx context.Context) ([]card, error) {
	type answer struct {
		cards []card
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		lib, err := h.open()
		if err != nil {
			done <- answer{nil, err}
			return
		}
		cards, err := lib.cards()
		done <- answer{cards, errors.Join(err, lib.close())}
	}()
	select {
	case a := <-done:
		return a.cards, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for NVML: %w", ctx.Err())
	}
}

// procCards reads /proc/driver/nvidia/gpus and the instances.
func (h host) procCards(ctx context.Context) ([]card, error) {
	buses, err := h.names(nvidiaProc, "gpus")
	if err != nil {
		return nil, err
	}
	var cards []card
	for _, bus := range buses {
		c := parseInformation(h.text(nvidiaProc, "gpus", bus, "information"))
		if c.pci == "" {
			c.pci = bus
		}
		if c.uuid == "" && c.minor >= 0 && !c.excluded {
			c.uuid = h.wake(ctx, c.minor, bus)
		}
		if c.instances, err = h.procInstances(c.minor); err != nil {
			return nil, err
		}
		c.mig = len(c.instances) > 0
		cards = append(cards, c)
	}
	return cards, nil
}

// wake reads the UUID of a GPU that nobody has used since boot: the driver
// prints question marks until its device is opened.
func (h host) wake(ctx context.Context, minor int, bus string) string {
	path := h.path("/dev/nvidia" + strconv.Itoa(minor))
	if _, _, err := h.numbers(path); err != nil {
		return ""
	}
	done := make(chan string, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			done <- ""
			return
		}
		defer f.Close()
		done <- parseInformation(h.text(nvidiaProc, "gpus", bus, "information")).uuid
	}()
	wait, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	select {
	case uuid := <-done:
		return uuid
	case <-wait.Done():
		return ""
	}
}

// procInstances finds gpuN/mig/giX/ciY below capabilities.
func (h host) procInstances(minor int) ([]instance, error) {
	dir := migDir(minor)
	gis, err := h.names(dir)
	if err != nil {
		return nil, err
	}
	var found []instance
	for _, gi := range gis {
		g, ok := numbered(gi, "gi")
		if !ok {
			continue
		}
		cis, err := h.names(dir, gi)
		if err != nil {
			return nil, err
		}
		for _, ci := range cis {
			if c, ok := numbered(ci, "ci"); ok {
				found = append(found, instance{gi: g, ci: c})
			}
		}
	}
	return found, nil
}

func migDir(minor int) string {
	return fmt.Sprintf("%s/capabilities/gpu%d/mig", nvidiaProc, minor)
}

func numbered(name, prefix string) (int, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	n, err := strconv.ParseUint(digits, 10, 16)
	return int(n), ok && err == nil
}

// merge adds what NVML knows to what /proc knows. NVML alone counts where /proc
// has no GPU.
func merge(proc, lib []card) []card {
	if len(proc) == 0 {
		return lib
	}
	byMinor := map[int]card{}
	for _, c := range lib {
		byMinor[c.minor] = c
	}
	for i, c := range proc {
		known, ok := byMinor[c.minor]
		if !ok {
			continue
		}
		known.excluded, known.pci = c.excluded, c.pci
		if len(known.instances) == 0 {
			known.instances = c.instances
		}
		proc[i] = known
	}
	return proc
}

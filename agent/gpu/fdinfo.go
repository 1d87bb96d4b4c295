package gpu

import (
	"math"
	"strconv"
	"strings"
)

// A client is one open file of a DRM driver, as its fdinfo tells. Several
// descriptors, also of several processes, may be the same client.
//
// https://docs.kernel.org/gpu/drm-usage-stats.html
type client struct {
	pci     string
	id      uint64
	engines map[string]engine
	memory  map[string]int64 // bytes that are resident, by region
}

// An engine's counters. amdgpu and i915 count time, xe cycles of its clock.
type engine struct {
	busy     uint64 // ns
	cycles   uint64
	total    uint64 // cycles that passed
	capacity uint64 // engines of the class; 0 means 1
}

// parseFDInfo reports false for what is no DRM file or has no client id.
func parseFDInfo(text string) (client, bool) {
	c := client{engines: map[string]engine{}, memory: map[string]int64{}}
	f := fields(text)
	id, err := strconv.ParseUint(f["drm-client-id"], 10, 64)
	if err != nil || f["drm-driver"] == "" {
		return client{}, false
	}
	c.id, c.pci = id, strings.ToLower(f["drm-pdev"])
	for key, value := range f {
		c.engine(key, value)
	}
	for _, kind := range []string{"drm-total-", "drm-memory-", "drm-resident-"} { // the last wins
		for key, value := range f {
			region, ok := strings.CutPrefix(key, kind)
			if n, size := parseSize(value); ok && size && !strings.HasPrefix(region, "cycles-") {
				c.memory[region] = n
			}
		}
	}
	return c, true
}

// engine takes over one line. The longer prefixes come first.
func (c *client) engine(key, value string) {
	number, unit, _ := strings.Cut(value, " ")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return
	}
	if name, ok := strings.CutPrefix(key, "drm-engine-capacity-"); ok {
		e := c.engines[name]
		e.capacity = n
		c.engines[name] = e
	} else if name, ok := strings.CutPrefix(key, "drm-engine-"); ok && unit == "ns" {
		e := c.engines[name]
		e.busy = n
		c.engines[name] = e
	} else if name, ok := strings.CutPrefix(key, "drm-total-cycles-"); ok {
		e := c.engines[name]
		e.total = n
		c.engines[name] = e
	} else if name, ok := strings.CutPrefix(key, "drm-cycles-"); ok {
		e := c.engines[name]
		e.cycles = n
		c.engines[name] = e
	}
}

// parseSize reads "1024 KiB"; without a unit it is bytes.
func parseSize(value string) (int64, bool) {
	number, unit, _ := strings.Cut(value, " ")
	n, err := strconv.ParseUint(number, 10, 63)
	shift := map[string]uint{"": 0, "KiB": 10, "MiB": 20}
	bits, known := shift[unit]
	if err != nil || !known {
		return 0, false
	}
	if n > math.MaxInt64>>bits {
		return math.MaxInt64, true
	}
	return int64(n) << bits, true
}

// device is the memory on the GPU: regions vram, vram0, local0. Integrated
// graphics have none of their own and use the system's.
func (c client) device() int64 {
	var own, system int64
	local := false
	for region, n := range c.memory {
		switch {
		case strings.HasPrefix(region, "vram"), strings.HasPrefix(region, "local"):
			own, local = add(own, n), true
		case strings.HasPrefix(region, "system"), strings.HasPrefix(region, "gtt"):
			system = add(system, n)
		}
	}
	if local {
		return own
	}
	return system
}

// add does not overflow: the numbers come from files.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// ratio is the share of its engines that was busy between two readings, 0-1.
// Counters that went back are those of another client.
func (e engine) ratio(before engine, elapsedNS float64) float64 {
	part, whole := float64(0), elapsedNS
	switch {
	case e.busy >= before.busy && e.busy > 0:
		part = float64(e.busy - before.busy)
	case e.cycles >= before.cycles && e.total > before.total:
		part, whole = float64(e.cycles-before.cycles), float64(e.total-before.total)
	}
	if whole <= 0 {
		return 0
	}
	return min(part/whole/float64(max(e.capacity, 1)), 1)
}

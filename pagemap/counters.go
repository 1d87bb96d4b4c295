package pagemap

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Counters reads the kernel's own sums through kept files. It is not for use by
// several goroutines at once.
type Counters struct {
	fs       FS
	pageSize int
	order    int
	buddy    text
	zones    text
	meminfo  text
	ram      []Range
	buf      []byte
}

// OpenCounters opens the files and learns where memory is.
func (fs FS) OpenCounters(pageSize int) (*Counters, error) {
	c := &Counters{fs: fs, pageSize: pageSize, order: fs.HugeOrder(pageSize), buf: make([]byte, 16<<10)}
	c.buddy.fd, c.zones.fd, c.meminfo.fd = -1, -1, -1
	var err error
	if c.buddy, err = fs.openText("proc/buddyinfo"); err == nil {
		if c.zones, err = fs.openText("proc/zoneinfo"); err == nil {
			c.meminfo, err = fs.openText("proc/meminfo")
		}
	}
	if err == nil {
		c.ram, err = fs.RAM(pageSize)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close closes the kept files.
func (c *Counters) Close() error {
	var errs []error
	for _, t := range []*text{&c.buddy, &c.zones, &c.meminfo} {
		if t.fd >= 0 {
			errs = append(errs, unix.Close(t.fd))
		}
		t.fd = -1
	}
	return errors.Join(errs...)
}

// Refresh learns anew where memory is: it may have been plugged in or taken
// offline.
func (c *Counters) Refresh() error {
	ram, err := c.fs.RAM(c.pageSize)
	if err == nil {
		c.ram = ram
	}
	return err
}

// RAM returns the frames with online memory: System RAM of /proc/iomem without
// the memory blocks that are offline.
func (fs FS) RAM(pageSize int) ([]Range, error) {
	t, err := fs.openText("proc/iomem")
	if err != nil {
		return nil, err
	}
	defer unix.Close(t.fd)
	b, err := t.read(make([]byte, 32<<10))
	if err != nil {
		return nil, err
	}
	all, err := parseIomem(b, pageSize)
	if err != nil {
		return nil, err
	}
	for _, hole := range fs.offline(pageSize) {
		all = subtract(all, hole)
	}
	return all, nil
}

// offline lists the memory blocks that are offline. A kernel without memory
// hotplug has none.
func (fs FS) offline(pageSize int) []Range {
	const dir = "sys/devices/system/memory"
	b, err := os.ReadFile(fs.path(dir + "/block_size_bytes"))
	if err != nil {
		return nil
	}
	size, _, ok := hex(trim(b))
	if !ok || size < uint64(pageSize) || size > 1<<46 {
		return nil
	}
	entries, _ := os.ReadDir(fs.path(dir))
	var all []Range
	for _, e := range entries {
		name := e.Name()
		if len(name) < 7 || name[:6] != "memory" {
			continue
		}
		n, err := strconv.ParseUint(name[6:], 10, 32)
		if err != nil {
			continue
		}
		state, err := os.ReadFile(fs.path(dir + "/" + name + "/state"))
		if err == nil && string(trim(state)) == "offline" {
			first := n * size / uint64(pageSize)
			all = append(all, Range{first, first + size/uint64(pageSize)})
		}
	}
	return all
}

package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// listEvery is how often devices that have come or gone are looked for.
const listEvery = 30 * time.Second

// devices sums counters over devices whose files stay open.
type devices struct {
	list   func() ([]string, error) // their directories, sorted
	read   func(*device) (Flow, error)
	listed time.Time
	all    []device
	total  Flow
}

// device is one of them, and what it said last.
type device struct {
	dir   string
	files [2]file
	flow  Flow
}

// sum reads all devices and returns what they have counted since the host booted.
// It never goes back: a device that goes leaves what it has counted.
func (d *devices) sum(now time.Time) (Flow, error) {
	if d.listed.IsZero() || now.Sub(d.listed) >= listEvery {
		if err := d.refresh(); err != nil {
			return d.total, err
		}
		d.listed = now
	}
	var failed error
	for i := range d.all {
		dev := &d.all[i]
		flow, err := d.read(dev)
		if err != nil {
			d.listed = time.Time{} // look again: it has probably gone
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
				failed = err
			}
			continue
		}
		d.total.In += since(dev.flow.In, flow.In)
		d.total.Out += since(dev.flow.Out, flow.Out)
		dev.flow = flow
	}
	return d.total, failed
}

// since is what a counter has grown by; one that is lower began again at 0.
func since(before, now uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

func (d *devices) refresh() error {
	dirs, err := d.list()
	if err != nil {
		return err
	}
	kept := d.all[:0]
	for i := range d.all {
		if _, ok := slices.BinarySearch(dirs, d.all[i].dir); ok {
			kept = append(kept, d.all[i])
			continue
		}
		d.all[i].close()
	}
	d.all = kept
	for _, dir := range dirs {
		if !slices.ContainsFunc(d.all, func(dev device) bool { return dev.dir == dir }) {
			d.all = append(d.all, device{dir: dir})
		}
	}
	return nil
}

func (d *devices) close() {
	for i := range d.all {
		d.all[i].close()
	}
	d.all = nil
}

func (d *device) close() {
	d.files[0].close()
	d.files[1].close()
}

// ownLinks are the host's links to the outside: those with hardware, or, where
// there is none, all that are neither loopback nor part of a bridge.
func (h *hostProbe) ownLinks() ([]string, error) {
	base := h.root + "/sys/class/net"
	names, err := os.ReadDir(base)
	if err != nil {
		return nil, err
	}
	var real, other []string
	for _, n := range names {
		dir := filepath.Join(base, n.Name())
		switch {
		case exists(dir + "/device"):
			real = append(real, dir)
		case n.Name() != "lo" && exists(dir+"/statistics") && !exists(dir+"/bridge") && !exists(dir+"/brport"):
			other = append(other, dir)
		}
	}
	if real != nil {
		return real, nil
	}
	return other, nil
}

// wholeDisks are the block devices with hardware below: what goes through
// partitions, loop devices and device mapper counts there.
func (h *hostProbe) wholeDisks() ([]string, error) {
	base := h.root + "/sys/block"
	names, err := os.ReadDir(base)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, n := range names {
		if dir := filepath.Join(base, n.Name()); exists(dir + "/device") {
			all = append(all, dir)
		}
	}
	return all, nil
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

func readLink(d *device) (Flow, error) {
	var n [2]uint64
	for i, name := range [...]string{"/statistics/rx_bytes", "/statistics/tx_bytes"} {
		if d.files[i].path == "" {
			d.files[i].path = d.dir + name
		}
		b, err := d.files[i].read()
		if err != nil {
			return Flow{}, err
		}
		if numbers(b, n[i:i+1]) != 1 {
			return Flow{}, fmt.Errorf("parse %s: %q", d.files[i].path, b)
		}
	}
	return Flow{In: n[0], Out: n[1]}, nil
}

// readDisk reads /sys/block/DISK/stat: fields 3 and 7 are sectors of 512 bytes
// read and written, whatever the disk's own are.
// https://docs.kernel.org/block/stat.html
func readDisk(d *device) (Flow, error) {
	if d.files[0].path == "" {
		d.files[0].path = d.dir + "/stat"
	}
	b, err := d.files[0].read()
	if err != nil {
		return Flow{}, err
	}
	var n [7]uint64
	if numbers(b, n[:]) < len(n) {
		return Flow{}, fmt.Errorf("parse %s: %q", d.files[0].path, b)
	}
	return Flow{In: n[2] * 512, Out: n[6] * 512}, nil
}

package autoscale

import (
	"fmt"
	"strconv"
)

// A Resource is something a VM has a limit of.
type Resource int

// The resources, in the units of a VM's spec.
const (
	CPU       Resource = iota // cores
	Memory                    // bytes
	Storage                   // bytes
	Bandwidth                 // bits per second, the busier direction
	ReadBPS                   // bytes per second
	WriteBPS
	ReadIOPS // operations per second
	WriteIOPS
	Resources // how many there are
)

// names are the fields of a VM's spec.
var names = [Resources]string{"cpus", "memory_bytes", "storage_bytes", "bandwidth_bps", "rbps", "wbps", "riops", "wiops"}

func (r Resource) String() string {
	if r < 0 || r >= Resources {
		return "resource " + strconv.Itoa(int(r))
	}
	return names[r]
}

// ParseResource knows the names that String gives.
func ParseResource(name string) (Resource, error) {
	for r, n := range names {
		if n == name {
			return Resource(r), nil
		}
	}
	return 0, fmt.Errorf("resource %q: not one of %v", name, names)
}

// MarshalText implements encoding.TextMarshaler.
func (r Resource) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Resource) UnmarshalText(b []byte) error {
	parsed, err := ParseResource(string(b))
	if err == nil {
		*r = parsed
	}
	return err
}

// Limits are one number for each resource; 0 is no limit.
type Limits [Resources]float64

const mib = 1 << 20

// Amount writes a quantity of a resource for people: "1.5 cores", "300 MiB".
func (r Resource) Amount(v float64) string {
	switch r {
	case CPU:
		return number(v) + " cores"
	case Memory, Storage:
		return scaled(v, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"})
	case Bandwidth:
		return scaled(v, 1000, []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s"})
	case ReadBPS, WriteBPS:
		return scaled(v, 1024, []string{"B/s", "KiB/s", "MiB/s", "GiB/s"})
	}
	return number(v) + " operations/s"
}

func scaled(v, base float64, units []string) string {
	for _, u := range units[:len(units)-1] {
		if v < base {
			return number(v) + " " + u
		}
		v /= base
	}
	return number(v) + " " + units[len(units)-1]
}

// number has three digits that count, and no exponent.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

func percent(v float64) string { return number(100*v) + " %" }

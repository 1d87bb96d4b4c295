package pagemap

import (
	"bytes"
	"fmt"
)

// Meminfo is the part of /proc/meminfo that is reconciled with pages, in bytes.
type Meminfo struct {
	Total, Free, Available uint64
	Unaccepted             uint64 // not yet accepted from the hypervisor; free as well (Linux 6.5)
}

// parseMeminfo parses /proc/meminfo.
func parseMeminfo(b []byte) (Meminfo, error) {
	var m Meminfo
	seen := 0
	for n := 1; len(b) > 0; n++ {
		var l []byte
		l, b = line(b)
		key, rest, ok := bytes.Cut(l, []byte(":"))
		if !ok {
			continue
		}
		field := map[string]*uint64{"MemTotal": &m.Total, "MemFree": &m.Free, "MemAvailable": &m.Available, "Unaccepted": &m.Unaccepted}[string(key)]
		if field == nil {
			continue
		}
		v, unit, ok := number(trim(rest))
		if !ok || string(unit) != " kB" || v > 1<<52 {
			return m, fmt.Errorf("parse meminfo line %d: no amount in %.60q", n, l)
		}
		*field = v << 10
		if string(key) == "MemTotal" || string(key) == "MemFree" {
			seen++
		}
	}
	if seen < 2 {
		return m, fmt.Errorf("parse meminfo: no MemTotal or MemFree")
	}
	return m, nil
}

package pagemap

import (
	"bytes"
	"fmt"
)

// Zone is a section of /proc/zoneinfo. Amounts are pages.
type Zone struct {
	Node    int
	Name    string
	Start   uint64 // first page frame
	Spanned uint64 // from there to the last, holes included
	Present uint64 // frames with memory
	Managed uint64 // of those, what the allocator was given
	Free    uint64 // nr_free_pages
}

// parseZoneinfo parses /proc/zoneinfo. What it does not know it passes over: each
// kernel adds counters.
func parseZoneinfo(b []byte) ([]Zone, error) {
	var all []Zone
	for n := 1; len(b) > 0; n++ {
		var l []byte
		l, b = line(b)
		if bytes.HasPrefix(l, []byte("Node ")) {
			node, name, _, ok := zoneHeader(l)
			if !ok {
				return nil, fmt.Errorf("parse zoneinfo line %d: no zone in %.60q", n, l)
			}
			all = append(all, Zone{Node: node, Name: name})
			continue
		}
		if len(all) == 0 {
			continue
		}
		if err := all[len(all)-1].take(l); err != nil {
			return nil, fmt.Errorf("parse zoneinfo line %d: %w", n, err)
		}
	}
	if all == nil {
		return nil, fmt.Errorf("parse zoneinfo: no zone")
	}
	return all, nil
}

// take takes what it knows from one line of the zone's section.
func (z *Zone) take(l []byte) error {
	key, rest := word(l)
	if string(key) == "pages" { // "pages free     3840"
		key, rest = word(rest)
	}
	field := map[string]*uint64{"spanned": &z.Spanned, "present": &z.Present, "managed": &z.Managed,
		"free": &z.Free, "start_pfn:": &z.Start}[string(key)]
	if field == nil {
		return nil
	}
	v, rest, ok := number(rest)
	if !ok || len(trim(rest)) > 0 || v > maxFrames {
		return fmt.Errorf("no number of pages in %.60q", l)
	}
	*field = v
	return nil
}

// maxFrames is more page frames than any machine has: 2^52 bytes of address in
// pages of 4 KiB.
const maxFrames = 1 << 40

// contains reports whether the frame is in what the zone spans.
func (z Zone) contains(frame uint64) bool { return frame >= z.Start && frame-z.Start < z.Spanned }

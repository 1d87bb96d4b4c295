package pagemap

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Mapping is a line of /proc/PID/maps and what its pages are. Amounts are pages.
type Mapping struct {
	Start, End  uint64 // addresses
	Permissions string
	Name        string // of a file, [heap] and so on: text that the process may choose, cut after 256 bytes with …
	Pages       uint64
	Present     uint64
	Swapped     uint64
	Exclusive   uint64 // of Present, mapped nowhere else
	Runs        uint64 // of adjacent page frames
	LargestRun  uint64
	InHugeRuns  uint64 // of Present, in runs at least as long as a huge page
}

// What is looked at of a process that wants to be a burden. 65,530 mappings, the
// kernel's default limit, of files with ordinary names are some 6 MiB. But the
// path of a file is as long as its directory is deep, PATH_MAX or not: a few
// thousand mappings can make gigabytes.
const (
	maxMapsBytes = 16 << 20
	maxNameBytes = 256
)

// readMaps reads the text of /proc/PID/maps mapping by mapping, has look find out
// about the pages of each, and returns the `most` of them (at least one) with the most
// in memory, in address order. truncated says that there are others. It never holds
// more than twice as many.
func readMaps(ctx context.Context, r io.Reader, pageSize, most int, look func(*Mapping) error) (all []Mapping, truncated bool, err error) {
	in := newLines(r)
	top := largest{most: most}
	var m Mapping // look makes it escape: once, not for every line
	for n := 1; in.next(); n++ {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		if len(in.line) == 0 {
			continue
		}
		found, permissions, name, ok := parseMapping(in.line, pageSize)
		if m = found; !ok {
			return nil, false, fmt.Errorf("parse maps line %d: no address range in %.60q", n, in.line)
		}
		if !bytes.HasPrefix(permissions, []byte("---")) { // else reserved addresses: nothing can be there
			if err := look(&m); err != nil {
				return nil, false, err
			}
		}
		top.add(m, permissions, name)
	}
	if in.err != nil {
		return nil, false, in.err
	}
	top.cut()
	slices.SortFunc(top.all, func(x, y Mapping) int { return cmp.Compare(x.Start, y.Start) })
	return top.all, top.dropped || in.more, nil
}

// parseMapping parses a line, of which the end may be missing.
func parseMapping(l []byte, pageSize int) (m Mapping, permissions, name []byte, ok bool) {
	addresses, rest := word(l)
	first, end, ok := addressRange(addresses)
	if !ok || end < first || end>>62 != 0 && !bytes.HasSuffix(l, []byte("[vsyscall]")) {
		return Mapping{}, nil, nil, false
	}
	permissions, rest = word(rest)
	for range 3 { // offset, device, inode
		_, rest = word(rest)
	}
	m = Mapping{Start: first, End: end, Pages: (end - first) / uint64(pageSize)}
	return m, permissions, bytes.TrimRight(rest, " "), true
}

// largest keeps the mappings with the most pages in memory, of equal ones the
// first.
type largest struct {
	most    int
	all     []Mapping
	dropped bool   // some were
	least   uint64 // Present of the last that was kept, once some were dropped
}

// add makes text of permissions and name only when the mapping is kept.
func (t *largest) add(m Mapping, permissions, name []byte) {
	if t.dropped && m.Present <= t.least {
		return
	}
	m.Permissions, m.Name = string(permissions), shorten(name)
	if t.all = append(t.all, m); len(t.all) >= 2*t.most {
		t.cut()
	}
}

func (t *largest) cut() {
	if len(t.all) <= t.most {
		return
	}
	slices.SortFunc(t.all, func(x, y Mapping) int {
		return cmp.Or(cmp.Compare(y.Present, x.Present), cmp.Compare(x.Start, y.Start))
	})
	clear(t.all[t.most:]) // the names go
	t.all = t.all[:t.most]
	t.dropped, t.least = true, t.all[t.most-1].Present
}

// shorten copies a name, cut between two characters when it is long.
func shorten(name []byte) string {
	if len(name) <= maxNameBytes {
		return string(name)
	}
	end := maxNameBytes
	for end > maxNameBytes-utf8.UTFMax && !utf8.RuneStart(name[end]) {
		end--
	}
	var b strings.Builder
	b.Grow(end + len("…"))
	b.Write(name[:end])
	b.WriteString("…")
	return b.String()
}

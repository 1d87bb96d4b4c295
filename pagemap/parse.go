package pagemap

import "bytes"

// number reads decimal digits off the front of b. More than fit into 63 bits are
// no number: sums of what the kernel counts stay in range.
func number(b []byte) (v uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if v > (1<<63-1-9)/10 {
			return 0, b, false
		}
		v = v*10 + uint64(b[i]-'0')
	}
	return v, b[i:], i > 0
}

// hex reads hexadecimal digits off the front of b.
func hex(b []byte) (v uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b); i++ {
		d := uint64(0)
		switch c := b[i]; {
		case c >= '0' && c <= '9':
			d = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			d = uint64(c-'a') + 10
		case c >= 'A' && c <= 'F':
			d = uint64(c-'A') + 10
		default:
			return v, b[i:], i > 0
		}
		if v>>60 != 0 {
			return 0, b, false
		}
		v = v<<4 | d
	}
	return v, nil, i > 0
}

func trim(b []byte) []byte { return bytes.Trim(b, " \t\n") }

// line cuts the first line off b.
func line(b []byte) (first, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// word cuts the first word off a line.
func word(b []byte) (first, rest []byte) {
	b = bytes.TrimLeft(b, " \t")
	if i := bytes.IndexAny(b, " \t"); i >= 0 {
		return b[:i], bytes.TrimLeft(b[i:], " \t")
	}
	return b, nil
}

// zoneHeader reads "Node 0, zone   Normal", which begins a line of buddyinfo and
// a section of zoneinfo.
func zoneHeader(b []byte) (node int, zone string, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte("Node "))
	if !ok {
		return 0, "", nil, false
	}
	n, b, ok := number(bytes.TrimLeft(b, " "))
	if !ok || n > 1<<16 {
		return 0, "", nil, false
	}
	b, ok = bytes.CutPrefix(b, []byte(", zone"))
	if !ok {
		return 0, "", nil, false
	}
	name, rest := word(b)
	return int(n), string(name), rest, len(name) > 0
}

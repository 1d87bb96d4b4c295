package cgroup

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

// Parsers take a file's text and allocate nothing: keys are compared in place.

// parseUint reads a decimal number that fits 64 bits.
func parseUint(b []byte) (uint64, error) {
	if len(b) == 0 {
		return 0, fmt.Errorf("no number")
	}
	var n uint64
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || n > math.MaxUint64/10 || n*10 > math.MaxUint64-d {
			return 0, fmt.Errorf("number %q", b)
		}
		n = n*10 + d
	}
	return n, nil
}

// parseNumber reads the one number of a file; "max" is Max, and so is what does
// not fit an int64.
func parseNumber(b []byte) (int64, error) {
	b = bytes.TrimSpace(b)
	if string(b) == "max" {
		return Max, nil
	}
	n, err := parseUint(b)
	return clamp(n), err
}

func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// eachField calls f for every "key number" line of a flat keyed file. Lines
// whose value is no number are an error.
func eachField(b []byte, f func(key []byte, v uint64)) error {
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		if len(line) == 0 {
			continue
		}
		key, value, ok := bytes.Cut(line, []byte(" "))
		if !ok {
			return fmt.Errorf("line %q", line)
		}
		n, err := parseUint(value)
		if err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		f(key, n)
	}
	return nil
}

func parsePIDs(b []byte) ([]int, error) {
	var pids []int
	for _, line := range bytes.Fields(b) {
		n, err := parseUint(line)
		if err != nil || n > math.MaxInt32 {
			return nil, fmt.Errorf("parse cgroup.procs: line %q", line)
		}
		pids = append(pids, int(n))
	}
	return pids, nil
}

// parseCPUMax reads "max 100000" or "50000 100000", microseconds. The quota of
// "max" is -1.
func parseCPUMax(b []byte) (*CPU, error) {
	quota, period, ok := bytes.Cut(bytes.TrimSpace(b), []byte(" "))
	if !ok {
		return nil, fmt.Errorf("cpu.max %q", b)
	}
	p, err := parseUint(period)
	if err != nil || p > math.MaxInt64/1000 {
		return nil, fmt.Errorf("cpu.max %q", b)
	}
	c := &CPU{Quota: -1, Period: time.Duration(p) * time.Microsecond}
	if string(quota) == "max" {
		return c, nil
	}
	q, err := parseUint(quota)
	if err != nil || q > math.MaxInt64/1000 {
		return nil, fmt.Errorf("cpu.max %q", b)
	}
	c.Quota = time.Duration(q) * time.Microsecond
	return c, nil
}

// parseIOMax reads lines such as "8:0 rbps=max wbps=5242880 riops=max wiops=max".
func parseIOMax(b []byte) ([]IODevice, error) {
	var all []IODevice
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		if len(line) == 0 {
			continue
		}
		dev, rest, _ := bytes.Cut(line, []byte(" "))
		d := IODevice{}.normal()
		var err error
		if d.Major, d.Minor, err = parseDevice(dev); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		for _, pair := range bytes.Fields(rest) {
			key, value, _ := bytes.Cut(pair, []byte("="))
			n, err := parseNumber(value)
			if err != nil {
				return nil, fmt.Errorf("line %q: %w", line, err)
			}
			switch string(key) {
			case "rbps":
				d.ReadBPS = n
			case "wbps":
				d.WriteBPS = n
			case "riops":
				d.ReadIOPS = n
			case "wiops":
				d.WriteIOPS = n
			}
		}
		all = append(all, d)
	}
	return all, nil
}

func parseDevice(b []byte) (major, minor uint32, err error) {
	x, y, _ := bytes.Cut(b, []byte(":"))
	a, err1 := parseUint(x)
	c, err2 := parseUint(y)
	if err1 != nil || err2 != nil || a > math.MaxUint32 || c > math.MaxUint32 {
		return 0, 0, fmt.Errorf("device %q", b)
	}
	return uint32(a), uint32(c), nil
}

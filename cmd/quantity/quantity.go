// Package quantity reads and writes amounts the way people do: 8GiB, 8GB,
// 100Mbit, 1.5, 500m. It is shared by the commands; the API speaks exact numbers
// only.
package quantity

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Binary units are powers of 1024, decimal ones of 1000; a lone letter is binary,
// as in every tool that takes memory sizes.
var byteUnits = []struct {
	suffix string
	factor float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}, {"b", 1},
}

var bitUnits = []struct {
	suffix string
	factor float64
}{
	{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9},
	{"kbps", 1e3}, {"mbps", 1e6}, {"gbps", 1e9},
	{"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"bit", 1}, {"bps", 1},
}

// Bytes reads an amount of memory or storage: 512MiB, 8GB, 1g, 4096. A rate may
// end in /s.
func Bytes(s string) (int64, error) {
	t := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "/s")
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(t, u.suffix); ok {
			return scaled(s, n, u.factor, "an amount such as 512MiB, 8GB or 4096")
		}
	}
	return scaled(s, t, 1, "an amount such as 512MiB, 8GB or 4096")
}

// Bits reads a bandwidth in bits per second: 100Mbit, 1Gbit, 64000.
func Bits(s string) (int64, error) {
	t := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "/s")
	for _, u := range bitUnits {
		if n, ok := strings.CutSuffix(t, u.suffix); ok {
			return scaled(s, n, u.factor, "a bandwidth such as 100Mbit or 1Gbit")
		}
	}
	return scaled(s, t, 1, "a bandwidth such as 100Mbit or 1Gbit")
}

// CPUs reads a number of cores: 1.5, or 500m for half a core.
func CPUs(s string) (float64, error) {
	t, milli := strings.CutSuffix(strings.TrimSpace(s), "m")
	n, err := number(t)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of cores such as 0.5, 2 or 500m", s)
	}
	if milli {
		n /= 1000
	}
	return n, nil
}

func scaled(s, n string, factor float64, want string) (int64, error) {
	v, err := number(strings.TrimSpace(n))
	if err != nil || v*factor >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is not %s", s, want)
	}
	return int64(math.Round(v * factor)), nil
}

// number reads plain decimals only: no signs, exponents, hex, Inf or NaN.
func number(s string) (float64, error) {
	if s == "" || strings.Trim(s, "0123456789.") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}

// FormatBytes writes an amount with three digits and a binary unit: 512 MiB.
func FormatBytes(n int64) string {
	if n < 0 {
		return "-" + FormatBytes(-max(n, -math.MaxInt64))
	}
	return format(float64(n), 1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
}

// FormatBits writes a bandwidth with a decimal unit: 100 Mbit/s.
func FormatBits(n int64) string {
	return format(float64(max(n, 0)), 1000, "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
}

func format(v, step float64, units ...string) string {
	i := 0
	for v >= step-0.5 && i < len(units)-1 {
		v /= step
		i++
	}
	digits := 0
	if v < 10 && v != math.Trunc(v) {
		digits = 2
	} else if v < 100 && v != math.Trunc(v) {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + units[i]
}

package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloudflash/cmd/quantity"
)

// scaledNames are the limits that are scaled: as the API calls them, and shorter.
var scaledNames = [][2]string{{"cpus", "cpus"}, {"memory_bytes", "memory"}, {"storage_bytes", "storage"}, {"bandwidth_bps", "bandwidth"},
	{"rbps", "rbps"}, {"wbps", "wbps"}, {"riops", "riops"}, {"wiops", "wiops"}}

func shortName(resource string) string {
	for _, n := range scaledNames {
		if n[0] == resource {
			return n[1]
		}
	}
	return resource
}

// longName finds what people mean by a resource.
func longName(name string) (string, bool) {
	i := slices.IndexFunc(scaledNames, func(n [2]string) bool { return n[0] == name || n[1] == name })
	if i < 0 {
		return "", false
	}
	return scaledNames[i][0], true
}

// amount writes so much of a resource.
func amount(resource string, v float64) string {
	switch resource {
	case "cpus":
		return cpus(&v)
	case "memory_bytes", "storage_bytes":
		return quantity.FormatBytes(int64(v))
	case "bandwidth_bps":
		return quantity.FormatBits(int64(v))
	case "rbps", "wbps":
		return quantity.FormatBytes(int64(v)) + "/s"
	case "riops", "wiops":
		return strconv.FormatInt(int64(math.Round(v)), 10) + " op/s"
	}
	return figures(v)
}

// limit writes so much of a resource that may be had; 0 is no limit.
func limit(resource string, v float64) string {
	if v == 0 {
		return "none"
	}
	return amount(resource, v)
}

// readAmount reads so much of a resource.
func readAmount(resource, text string) (float64, error) {
	switch resource {
	case "cpus":
		return quantity.CPUs(text)
	case "bandwidth_bps":
		n, err := quantity.Bits(text)
		return float64(n), err
	case "riops", "wiops":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a number of operations per second", text)
		}
		return float64(n), nil
	case "all":
		return 0, fmt.Errorf("it is of one resource, such as cpus: name it in front")
	}
	n, err := quantity.Bytes(text)
	return float64(n), err
}

// share writes a ratio: 80 %.
func share(v float64) string { return strconv.FormatFloat(math.Round(v*1000)/10, 'f', -1, 64) + " %" }

func readShare(_, text string) (float64, error) {
	digits, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is not a share such as 0.7 or 70%%", text)
	}
	if percent {
		v /= 100
	}
	return v, nil
}

// seconds writes a time without zeros behind it: 5m, 1h30m.
func seconds(v float64) string {
	d := time.Duration(v * float64(time.Second))
	text := d.String()
	if d < time.Minute {
		return text
	}
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
	}
	if short, ok := strings.CutSuffix(text, "h0m"); ok {
		text = short + "h"
	}
	return text
}

func readSeconds(_, text string) (float64, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time such as 30s or 5m", text)
	}
	return d.Seconds(), nil
}

// figures writes a number with three digits that count.
func figures(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }

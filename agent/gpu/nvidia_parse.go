package gpu

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// fields splits "Key:   value" lines, as the files of /proc/driver/nvidia have
// them.
func fields(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			m[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return m
}

// parseInformation reads /proc/driver/nvidia/gpus/BUS/information. The UUID is
// empty while the driver prints question marks, the minor -1 without one.
func parseInformation(text string) card {
	f := fields(text)
	c := card{name: f["Model"], pci: strings.ToLower(f["Bus Location"]), uuid: f["GPU UUID"], minor: -1, excluded: f["GPU Excluded"] == "Yes"}
	if !validUUID(c.uuid) {
		c.uuid = ""
	}
	if !validPCI(c.pci) {
		c.pci = ""
	}
	if n, err := strconv.ParseUint(f["Device Minor"], 10, 16); err == nil {
		c.minor = int(n)
	}
	return c
}

func validUUID(s string) bool {
	hex, ok := strings.CutPrefix(s, "GPU-")
	return ok && len(hex) == 36 && strings.Trim(hex, "0123456789abcdef-") == ""
}

// validPCI also keeps the address from being a path.
func validPCI(s string) bool {
	return len(s) >= 12 && strings.Trim(s, "0123456789abcdef:.") == "" && !strings.Contains(s, "..")
}

// parseAccess reads the minor of a capability's device out of an access file.
func parseAccess(text string) (uint32, error) {
	value, ok := fields(text)["DeviceFileMinor"]
	if !ok {
		return 0, errors.New("no DeviceFileMinor")
	}
	n, err := strconv.ParseUint(value, 10, 20) // minors have 20 bits
	if err != nil {
		return 0, fmt.Errorf("parse DeviceFileMinor %q", value)
	}
	return uint32(n), nil
}

// driverVersion is the first number with dots after the module's name; the
// compiler's version comes on the next line.
var driverVersion = regexp.MustCompile(`(?m)^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s`)

// parseDriverVersion reads /proc/driver/nvidia/version.
func parseDriverVersion(text string) string {
	m := driverVersion.FindStringSubmatch(text + "\n")
	if m == nil {
		return ""
	}
	return m[1]
}

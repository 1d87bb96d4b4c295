package gpu

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceNumbers reads the numbers of a character device. It follows no link.
func deviceNumbers(path string) (major, minor uint32, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return 0, 0, fmt.Errorf("%s is no character device", path)
	}
	return unix.Major(st.Rdev), unix.Minor(st.Rdev), nil
}

// parseMajors reads the character devices of /proc/devices: driver → major. A
// driver with several majors keeps the first.
func parseMajors(text string) map[string]uint32 {
	majors := map[string]uint32{}
	inCharacter := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, ":") {
			inCharacter = line == "Character devices:"
			continue
		}
		number, name, ok := strings.Cut(line, " ")
		n, err := strconv.ParseUint(number, 10, 32)
		if !inCharacter || !ok || err != nil {
			continue
		}
		if _, twice := majors[name]; !twice {
			majors[name] = uint32(n)
		}
	}
	return majors
}

// parseNumbers reads a dev file of sysfs, "226:128".
func parseNumbers(text string) (major, minor uint32, err error) {
	a, b, ok := strings.Cut(strings.TrimSpace(text), ":")
	x, err1 := strconv.ParseUint(a, 10, 32)
	y, err2 := strconv.ParseUint(b, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("parse device numbers %q", text)
	}
	return uint32(x), uint32(y), nil
}

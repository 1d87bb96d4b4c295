package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ownerXattr is where a parent says whose it is. It goes with the cgroup, so at the
// latest when the machine reboots.
const ownerXattr = "trusted.cloudflash.owner"

// maxOwner is how long the name of an owner may be, in bytes; the kernel gives all
// extended attributes of a cgroup 128 KiB.
const maxOwner = 4096 + 64

// Owner is who the parent was given to with SetOwner; empty when it was nobody.
func (p *Parent) Owner() (string, error) {
	b := make([]byte, maxOwner)
	n, err := unix.Getxattr(p.dir, ownerXattr, b)
	switch {
	case errors.Is(err, unix.ENODATA):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read whose %s is: %w", p.dir, err)
	}
	return string(b[:n]), nil
}

// SetOwner gives the parent to somebody, by a name of at most 4,160 bytes.
func (p *Parent) SetOwner(name string) error {
	if len(name) > maxOwner {
		return fmt.Errorf("the name of an owner has %d bytes, at most %d are kept", len(name), maxOwner)
	}
	if err := unix.Setxattr(p.dir, ownerXattr, []byte(name), 0); err != nil {
		return fmt.Errorf("note whose %s is: %w", p.dir, err)
	}
	return nil
}

// Entered are the processes that have called Enter, and their children.
func Entered(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "agent", "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

package cgroup

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var (
	// ErrGone says that the cgroup has been removed, perhaps in mid-read.
	ErrGone = errors.New("cgroup is gone")
	// ErrUnsupported is what every UnsupportedError wraps.
	ErrUnsupported = errors.New("not supported here")
	// ErrReclaim says that less could be reclaimed than was asked for.
	ErrReclaim = errors.New("not all of the memory could be reclaimed")
)

// UnsupportedError names what this host lacks and what would have it.
type UnsupportedError struct {
	Feature string // such as "memory.peak"
	Needs   string // such as "Linux 5.19"
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s is not supported here: needs %s", e.Feature, e.Needs)
}

// Unwrap makes errors.Is find ErrUnsupported.
func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// files and the first kernel that has them (Documentation/admin-guide/cgroup-v2.rst and git history).
const (
	needsBurst    = "Linux 5.14 with CONFIG_CFS_BANDWIDTH"
	needsKill     = "Linux 5.14"
	needsPeak     = "Linux 5.19"
	needsReclaim  = "Linux 5.19"
	needsDevices  = "Linux 5.6 with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"
	needsPressure = "Linux 4.20 with CONFIG_PSI, and psi=1 where it is off by default"
)

// goneOr turns the errors of a removed cgroup into ErrGone: ENOENT opening its
// files, ENODEV using one that was open.
func goneOr(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return err
}

// IgnoreGone is nil where the cgroup is gone: what was to be done to it has come to pass.
func IgnoreGone(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

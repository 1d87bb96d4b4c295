package storage

import (
	"errors"
	"fmt"
)

var (
	// ErrUnsupported is what every UnsupportedError wraps.
	ErrUnsupported = errors.New("not supported here")
	// ErrNoRoom is what every RoomError wraps.
	ErrNoRoom = errors.New("not enough disk space")
	// ErrBelowUse is what every BelowUseError wraps.
	ErrBelowUse = errors.New("limit is below use")
	// ErrInUse is what every InUseError wraps.
	ErrInUse = errors.New("project is in use")
)

// UnsupportedError names what this host lacks and what would have it.
type UnsupportedError struct {
	Feature string // such as "a storage pool"
	Needs   string // such as "mkfs.xfs: install the package xfsprogs"
	Err     error  // what the kernel said, may be nil
}

func (e *UnsupportedError) Error() string {
	s := fmt.Sprintf("%s is not supported here: needs %s", e.Feature, e.Needs)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap makes errors.Is find ErrUnsupported and the cause.
func (e *UnsupportedError) Unwrap() []error { return with(ErrUnsupported, e.Err) }

// RoomError says that the disk below cannot hold what is asked for.
type RoomError struct {
	What       string // such as "grow the pool"
	Need, Have int64  // bytes
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("%s: needs %d bytes of disk, there are %d: free disk space, or shrink or delete VMs", e.What, e.Need, e.Have)
}

// Unwrap makes errors.Is find ErrNoRoom.
func (e *RoomError) Unwrap() error { return ErrNoRoom }

// BelowUseError refuses a limit below what is in use.
type BelowUseError struct {
	Project    uint32
	Limit      int64 // bytes asked for
	Inodes     int64 // inodes that go with it
	UsedBytes  int64
	UsedInodes int64
}

func (e *BelowUseError) Error() string {
	return fmt.Sprintf("limit project %d to %d bytes and %d inodes: %d bytes and %d inodes are in use",
		e.Project, e.Limit, e.Inodes, e.UsedBytes, e.UsedInodes)
}

// Unwrap makes errors.Is find ErrBelowUse.
func (e *BelowUseError) Unwrap() error { return ErrBelowUse }

// InUseError says that files are left that count towards a project: deleted but
// open, or outside the VM's directory.
type InUseError struct {
	Project       uint32
	Bytes, Inodes int64
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("project %d still has %d bytes in %d inodes", e.Project, e.Bytes, e.Inodes)
}

// Unwrap makes errors.Is find ErrInUse.
func (e *InUseError) Unwrap() error { return ErrInUse }

func with(kind, cause error) []error {
	if cause == nil {
		return []error{kind}
	}
	return []error{kind, cause}
}

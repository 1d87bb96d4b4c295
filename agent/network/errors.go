package network

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	// ErrUnsupported is what every UnsupportedError wraps.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrForeign says that something of that name exists and is not ours.
	ErrForeign = errors.New("exists and is not CloudFlash's")
	// ErrExhausted is what every PoolError wraps.
	ErrExhausted = errors.New("no address left")
	// ErrPoolInUse says that the host has a route into the pool already.
	ErrPoolInUse = errors.New("addresses are in use on this host")
	// ErrPortTaken is what every PortError wraps.
	ErrPortTaken = errors.New("port is taken")
	// ErrSlotTaken says that another VM has the addresses of the slot.
	ErrSlotTaken = errors.New("slot is taken")
	// ErrNotAttached says that a VM has no link.
	ErrNotAttached = errors.New("not attached")
	// ErrHostNamespace says that a process is in the network namespace of the host.
	ErrHostNamespace = errors.New("network namespace is the host's own")
	// ErrNoResolver says that no resolver of the host's can be reached from a VM.
	ErrNoResolver = errors.New("no resolver that a VM can reach")
)

// errNotOpen says that a caller forgot Open.
var errNotOpen = errors.New("network is not open")

// UnsupportedError names what the kernel lacks.
type UnsupportedError struct {
	Feature string // module or option, such as "ifb"
	Err     error
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the kernel lacks %s: %v", e.Feature, e.Err)
}

// Unwrap makes errors.Is find ErrUnsupported and the kernel's answer.
func (e *UnsupportedError) Unwrap() []error { return []error{ErrUnsupported, e.Err} }

// PoolError says that a slot lies beyond the end of the pool.
type PoolError struct {
	Pool netip.Prefix
	Slot int
	Size int // slots the pool has
}

func (e *PoolError) Error() string {
	return fmt.Sprintf("no address for slot %d: %s has %d", e.Slot, e.Pool, e.Size)
}

// Unwrap makes errors.Is find ErrExhausted.
func (e *PoolError) Unwrap() error { return ErrExhausted }

// PortError names a port of the host that cannot be published.
type PortError struct {
	Publish
	VM  string // who has published it; empty when a process of the host has it
	Err error  // the kernel's answer where a process has it
}

func (e *PortError) Error() string {
	if e.VM != "" {
		return fmt.Sprintf("port %d/%s is published by VM %s", e.HostPort, e.Protocol, e.VM)
	}
	return fmt.Sprintf("port %d/%s is in use on the host: %v", e.HostPort, e.Protocol, e.Err)
}

// Unwrap makes errors.Is find ErrPortTaken.
func (e *PortError) Unwrap() error { return ErrPortTaken }

package pagemap

import (
	"math"
	"sync"
	"time"
)

// Owners of page frames that are no VM.
const (
	Host    = "host"    // charged to a cgroup that is no VM's, or to none
	Deleted = "deleted" // left by VMs that are gone
)

// resolveEvery bounds how often an unknown cgroup makes the table be asked for.
const resolveEvery = time.Second

// registry gives owners small numbers. The number 0 is the host.
type registry struct {
	resolve func() map[uint64]string

	mu       sync.Mutex
	names    []string // by number; "" where the number is free
	index    map[string]uint16
	inodes   map[uint64]uint16
	resolved time.Time
}

func newRegistry(resolve func() map[uint64]string) *registry {
	return &registry{resolve: resolve, names: []string{Host}, index: map[string]uint16{Host: host}, inodes: map[uint64]uint16{}}
}

// refresh takes a new table of cgroup inodes and their owners. Owners that are
// gone keep their number for as long as pages are theirs.
func (r *registry) refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take()
}

func (r *registry) take() {
	clear(r.inodes)
	for inode, name := range r.resolve() {
		r.inodes[inode] = r.number(name)
	}
	r.resolved = time.Now()
}

func (r *registry) number(name string) uint16 {
	if i, ok := r.index[name]; ok {
		return i
	}
	for i, n := range r.names {
		if n == "" {
			r.names[i], r.index[name] = name, uint16(i)
			return uint16(i)
		}
	}
	if len(r.names) > math.MaxUint16 {
		return host // more VMs than a host can have
	}
	r.names = append(r.names, name)
	r.index[name] = uint16(len(r.names) - 1)
	return r.index[name]
}

// of returns the owner of what is charged to a cgroup. One that is new is asked
// for; one that is still in no table is the host's.
func (r *registry) of(inode uint64) uint16 {
	if inode == 0 {
		return host
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.inodes[inode]
	if ok || time.Since(r.resolved) < resolveEvery {
		return i
	}
	r.take()
	i = r.inodes[inode]
	r.inodes[inode] = i // known to be nobody's
	return i
}

func (r *registry) name(i uint16) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if int(i) < len(r.names) && r.names[i] != "" {
		return r.names[i]
	}
	return Host
}

// find returns the number of an owner that has one.
func (r *registry) find(name string) (uint16, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.index[name]
	return i, ok
}

// forget frees the numbers of owners that have no pages and are in no table.
func (r *registry) forget(pages map[uint16]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := map[uint16]bool{host: true}
	for _, i := range r.inodes {
		used[i] = true
	}
	for i, name := range r.names {
		if n := uint16(i); name != "" && !used[n] && pages[n] == 0 {
			delete(r.index, name)
			r.names[i] = ""
		}
	}
}

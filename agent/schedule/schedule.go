// Package schedule decides which queued cloudlet goes to which VM. It is pure:
// state in, placements out; no clock, no I/O, no logger.
package schedule

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// An Item is one queued cloudlet.
type Item struct {
	ID          string
	VM          string        // id of the VM it is pinned to, empty for any
	SLA         int           // 3 is the highest
	Deadline    time.Duration // since the machine booted; NoDeadline when there is none
	Submitted   time.Duration
	CPUs        float64
	MemoryBytes int64
	GPUs        int
}

// NoDeadline comes after every other.
const NoDeadline = time.Duration(math.MaxInt64)

// A Node is one running VM and what it has not promised yet.
type Node struct {
	ID          string
	Name        string
	CPUs        float64
	MemoryBytes int64
	GPUs        int
}

// A Plan says who starts where, and why the others wait.
type Plan struct {
	Placements []Placement
	Waiting    map[string]string // item id → reason
}

// A Placement starts one item in one VM.
type Placement struct {
	Item string
	VM   string
}

// A Policy turns a queue and the VMs into a plan.
type Policy interface {
	Plan(queue []Item, nodes []Node) Plan
}

// FirstFit takes the queue by SLA, then deadline, then age, and gives each item
// the first VM with room. An item that does not fit is passed by smaller ones.
type FirstFit struct{}

// Plan implements Policy.
func (FirstFit) Plan(queue []Item, nodes []Node) Plan {
	queue, nodes = slices.Clone(queue), slices.Clone(nodes)
	slices.SortStableFunc(queue, order)
	plan := Plan{Waiting: map[string]string{}}
	for _, it := range queue {
		i := slices.IndexFunc(nodes, func(n Node) bool { return fits(it, n) })
		if i < 0 {
			plan.Waiting[it.ID] = reason(it, nodes)
			continue
		}
		nodes[i].CPUs -= it.CPUs
		nodes[i].MemoryBytes -= it.MemoryBytes
		nodes[i].GPUs -= it.GPUs
		plan.Placements = append(plan.Placements, Placement{it.ID, nodes[i].ID})
	}
	return plan
}

func order(a, b Item) int {
	return cmp.Or(
		cmp.Compare(b.SLA, a.SLA),
		cmp.Compare(a.Deadline, b.Deadline),
		cmp.Compare(a.Submitted, b.Submitted),
		cmp.Compare(a.ID, b.ID),
	)
}

// slack forgives the rounding of sums of decimal fractions of a core.
const slack = 1e-9

func fits(it Item, n Node) bool {
	return (it.VM == "" || it.VM == n.ID) && it.CPUs <= n.CPUs+slack && it.MemoryBytes <= n.MemoryBytes && it.GPUs <= n.GPUs
}

func reason(it Item, nodes []Node) string {
	var cpus float64
	var memory int64
	gpus, candidates := 0, 0
	for _, n := range nodes {
		if it.VM == "" || it.VM == n.ID {
			candidates++
			cpus, memory, gpus = max(cpus, n.CPUs), max(memory, n.MemoryBytes), max(gpus, n.GPUs)
		}
	}
	if candidates == 0 && it.VM != "" {
		return "its VM is not running"
	}
	if candidates == 0 {
		return "no VM is running"
	}
	if it.GPUs > gpus {
		return fmt.Sprintf("no room: needs %d GPUs, the most free in one VM is %d", it.GPUs, gpus)
	}
	return fmt.Sprintf("no room: needs %.3g cpus and %d MiB, the most free in one VM is %.3g cpus and %d MiB",
		it.CPUs, it.MemoryBytes>>20, max(cpus, 0), max(memory, 0)>>20)
}

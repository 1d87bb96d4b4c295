package autoscale

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Kind is what a finding is about.
type Kind string

// The kinds.
const (
	OverProvisioned Kind = "over-provisioned"
	Throttled       Kind = "throttled"
	Swapping        Kind = "swapping"
	NearOOM         Kind = "near-oom"
	Idle            Kind = "idle"
	NoisyNeighbour  Kind = "noisy-neighbour"
	Fragmented      Kind = "fragmented-host"
	FitsTogether    Kind = "fits-together"
)

// A Finding is something worth knowing about a VM, in words, with its numbers.
type Finding struct {
	Kind     Kind               `json:"kind"`
	VM       string             `json:"vm,omitempty"`
	Other    string             `json:"other,omitempty"` // VM
	Text     string             `json:"text"`
	Evidence map[string]float64 `json:"evidence"`
}

// A State is what a VM did in a span of time, a minute or more: what findings rest on.
type State struct {
	VM     string
	Name   string
	Span   time.Duration
	Limits Limits
	Advice []Recommendation

	CPUs           float64 // mean
	Throttled      float64 // share of periods
	CPUWaiting     float64 // share of the time, PSI some
	CPUStalled     float64 // PSI full
	MemoryBytes    float64 // working set
	SwapBytes      float64
	SwapGrowth     float64 // bytes per second
	RefaultsPerSec float64 // pages
	MemoryWaiting  float64
	OOMKills       int64
	IOWaiting      float64
	IdleFor        time.Duration // 0 is not
	PressureKnown  bool
}

// Machine is the host in the same span.
type Machine struct {
	Cores         float64
	Busy          float64 // share of all cores
	FreeBytes     float64
	LargestFree   float64 // share of free memory in blocks of 2 MiB and more
	Fragmentation float64 // 0 to 1; below 0 is not known
}

// Findings looks at all VMs of a host.
func Findings(all []State, host Machine) []Finding {
	var out []Finding
	for i := range all {
		out = append(out, all[i].own()...)
	}
	out = append(out, neighbours(all, host)...)
	out = append(out, together(all)...)
	if host.Fragmentation > 0.7 && host.FreeBytes > 0 {
		out = append(out, Finding{Kind: Fragmented, Text: fmt.Sprintf("%s are free, but only %s of that in blocks of 2 MiB: huge pages are hard to come by",
			Memory.Amount(host.FreeBytes), percent(host.LargestFree)), Evidence: map[string]float64{"fragmentation": host.Fragmentation, "free_bytes": host.FreeBytes}})
	}
	return out
}

// own are the findings of a VM by itself.
func (s *State) own() (out []Finding) {
	say := func(k Kind, evidence map[string]float64, format string, args ...any) {
		out = append(out, Finding{Kind: k, VM: s.VM, Text: s.Name + " " + fmt.Sprintf(format, args...), Evidence: evidence})
	}
	if s.IdleFor > 0 {
		say(Idle, map[string]float64{"seconds": s.IdleFor.Seconds()}, "has done nothing for %v", s.IdleFor.Round(time.Second))
	}
	for i := range s.Advice {
		// Half of it unused, with half a day to go by.
		if a := &s.Advice[i]; a.Saves >= a.Spec/2 && a.Sure() {
			say(OverProvisioned, map[string]float64{"spec": a.Spec, "target": a.Target}, "has %s and would do with %s: %s",
				a.Resource.Amount(a.Spec), a.Resource.Amount(a.Target), a.Reason)
		}
	}
	if s.Throttled > intolerable(2) {
		say(Throttled, map[string]float64{"throttled": s.Throttled, "limit_cpus": s.Limits[CPU], "cpus": s.CPUs},
			"used up its own limit of %s in %s of the periods", CPU.Amount(s.Limits[CPU]), percent(s.Throttled))
	}
	if s.SwapBytes > 0 && (s.SwapGrowth > 0 || s.RefaultsPerSec > 0) && s.MemoryWaiting >= calmShare {
		say(Swapping, map[string]float64{"swap_bytes": s.SwapBytes, "memory_waiting": s.MemoryWaiting},
			"has %s in swap and waits for memory %s of the time", Memory.Amount(s.SwapBytes), percent(s.MemoryWaiting))
	}
	if limit := s.Limits[Memory]; s.OOMKills > 0 || (limit > 0 && s.MemoryBytes >= 0.95*limit) {
		say(NearOOM, map[string]float64{"working_set_bytes": s.MemoryBytes, "limit_bytes": limit, "oom_kills": float64(s.OOMKills)},
			"needs %s of the %s it may have; %d kills", Memory.Amount(s.MemoryBytes), Memory.Amount(limit), s.OOMKills)
	}
	return out
}

// neighbours finds VMs that wait for cores that others have. A stall that comes with
// throttled periods is of the VM's own limit, and no neighbour is blamed for it;
// nor is one where the host has cores left.
func neighbours(all []State, host Machine) (out []Finding) {
	const hostBusy = 0.9
	if host.Busy < hostBusy || host.Cores <= 0 {
		return nil
	}
	if len(all) < 2 {
		return nil
	}
	// Who uses most cannot wait for somebody that uses more: one culprit for all.
	first := slices.MaxFunc(all, func(a, b State) int { return cmp.Compare(a.CPUs, b.CPUs) })
	for i := range all {
		s, worst := &all[i], &first
		waits := s.CPUWaiting - s.Throttled
		if !s.PressureKnown || s.Throttled > tolerated(3) || waits < pressed {
			continue
		}
		if worst.CPUs < 0.25*host.Cores || worst.CPUs <= s.CPUs {
			continue // nobody stands out
		}
		out = append(out, Finding{Kind: NoisyNeighbour, VM: s.VM, Other: worst.VM,
			Text: fmt.Sprintf("%s waited for a core %s of the time, not throttled by its own limit, while the host was %s busy and %s used %s of its %s",
				s.Name, percent(waits), percent(host.Busy), worst.Name, CPU.Amount(worst.CPUs), CPU.Amount(host.Cores)),
			Evidence: map[string]float64{"waiting": waits, "throttled": s.Throttled, "host_busy": host.Busy, "other_cpus": worst.CPUs}})
	}
	return out
}

// together finds pairs of VMs whose needs fit what the bigger was asked for with,
// whatever its limits are now: each VM is in one pair at most.
func together(all []State) (out []Finding) {
	used := make([]bool, len(all))
	for i := range all {
		for j := i + 1; j < len(all) && !used[i]; j++ {
			if used[j] {
				continue
			}
			big, small := &all[i], &all[j]
			if small.spec(CPU) > big.spec(CPU) {
				big, small = small, big
			}
			need, ok := sum(big, small)
			if !ok {
				continue
			}
			used[i], used[j] = true, true
			out = append(out, Finding{Kind: FitsTogether, VM: big.VM, Other: small.VM,
				Text: fmt.Sprintf("%s and %s fit into one: together they need %s and %s, and %s was asked for with %s and %s", big.Name, small.Name,
					CPU.Amount(need[CPU]), Memory.Amount(need[Memory]), big.Name, CPU.Amount(big.spec(CPU)), Memory.Amount(big.spec(Memory))),
				Evidence: map[string]float64{"cpus": need[CPU], "memory_bytes": need[Memory]}})
		}
	}
	return out
}

// sum is what two VMs need together; ok is whether the bigger has that, and enough
// is known.
func sum(big, small *State) (need Limits, ok bool) {
	for _, r := range [...]Resource{CPU, Memory} {
		a, b := big.advice(r), small.advice(r)
		if a == nil || b == nil || !a.Sure() || !b.Sure() {
			return need, false
		}
		need[r] = a.Target + b.Target
		if need[r] > a.Spec {
			return need, false
		}
	}
	return need, true
}

// spec is what was asked for, 0 where nothing is known of the use.
func (s *State) spec(r Resource) float64 {
	if a := s.advice(r); a != nil {
		return a.Spec
	}
	return 0
}

func (s *State) advice(r Resource) *Recommendation {
	i := slices.IndexFunc(s.Advice, func(a Recommendation) bool { return a.Resource == r })
	if i < 0 {
		return nil
	}
	return &s.Advice[i]
}

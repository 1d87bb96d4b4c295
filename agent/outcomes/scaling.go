package outcomes

import "cloudflash/agent/state"

// ScaledOutcome is what was decided of which limit, and what became of it.
type ScaledOutcome struct {
	Resource, Action string
	Result           state.DecisionResult
}

// scaledResources are the limits that are scaled, in API order.
var scaledResources = [...]string{"cpus", "memory_bytes", "storage_bytes", "bandwidth_bps", "rbps", "wbps", "riops", "wiops"}

// Scalings are all outcomes there are.
func Scalings() []ScaledOutcome {
	results := []state.DecisionResult{
		state.DecisionApplied,
		state.DecisionRecommended,
		state.DecisionDeferred,
		state.DecisionFailed,
	}
	var all []ScaledOutcome
	for _, resource := range scaledResources {
		for _, action := range []string{"grow", "shrink", "rollback"} {
			for _, result := range results {
				all = append(all, ScaledOutcome{resource, action, result})
			}
			if action != "shrink" { // there is always room to shrink
				all = append(all, ScaledOutcome{resource, action, state.DecisionInfeasible})
			}
		}
		all = append(all, ScaledOutcome{resource, "drift", state.DecisionNoticed})
	}
	return all
}

// KernelBounds are the upper bounds of KernelTime's buckets, in seconds. A last
// one has no bound.
var KernelBounds = [...]float64{.001, .005, .01, .05, .1, .25, .5, 1, 1.5, 3, 10}

// KernelTime is a histogram of the seconds from the look that showed a need to
// the kernel having the new limit.
type KernelTime struct {
	Buckets [len(KernelBounds) + 1]int64
	Seconds float64
}

// DecisionEnded counts a decision. Only what was written has a time to the kernel.
func (o *Counts) DecisionEnded(d state.Decision) {
	o.Scaling[ScaledOutcome{d.Resource, d.Action, d.Result}]++
	if d.Result != state.DecisionApplied {
		return
	}
	took := max(d.KernelSeconds, 0) // the clock may have been set back
	i := 0
	for i < len(KernelBounds) && took > KernelBounds[i] {
		i++
	}
	o.Kernel.Buckets[i]++
	o.Kernel.Seconds += took
}

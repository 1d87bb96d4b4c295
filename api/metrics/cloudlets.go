package metrics

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/outcomes"
)

// work is what the cloudlets of a snapshot come to.
type work struct {
	*outcomes.Counts
	byState map[agent.CloudletState]int
	queued  [agent.SLAHigh + 1]int
	overdue [agent.SLAHigh + 1]int
	oldest  time.Duration // in the queue
}

func workOf(s *agent.Snapshot) *work {
	w := &work{Counts: s.Outcomes, byState: s.Host.CloudletsByState}
	if w.Counts == nil {
		w.Counts = &outcomes.Counts{}
	}
	for i := range s.Cloudlets {
		c := &s.Cloudlets[i]
		if c.SLA < agent.SLALow || c.SLA > agent.SLAHigh || c.State.Final() {
			continue
		}
		if c.State == agent.CloudletQueued {
			w.queued[c.SLA]++
			w.oldest = max(w.oldest, s.At.Sub(c.CreatedAt))
		}
		if c.Overdue(s.At) {
			w.overdue[c.SLA]++
		}
	}
	return w
}

var cloudletStates = []agent.CloudletState{agent.CloudletQueued, agent.CloudletStarting, agent.CloudletRunning, agent.CloudletFrozen, agent.CloudletSucceeded,
	agent.CloudletFailed, agent.CloudletCancelled, agent.CloudletDeadlineExceeded, agent.CloudletLost}

// slas are the values of the label sla.
var slas = [...]string{agent.SLALow: "low", agent.SLAMedium: "medium", agent.SLAHigh: "high"}

func eachSLA(row func(labels string, sla int)) {
	for sla := agent.SLALow; sla <= agent.SLAHigh; sla++ {
		row(label("sla", slas[sla]), sla)
	}
}

var workFamilies = []family[work]{
	rows(gaugeKind, "cloudlets", "Cloudlets that are remembered, by state.", func(w *work, row func(string, float64)) {
		for _, s := range cloudletStates {
			row(label("state", string(s)), float64(w.byState[s]))
		}
	}),
	rows(gaugeKind, "cloudlets_queued", "Cloudlets that wait for a VM, by SLA.", func(w *work, row func(string, float64)) {
		eachSLA(func(l string, sla int) { row(l, float64(w.queued[sla])) })
	}),
	gauge("cloudlet_queue_oldest_seconds", "How long the oldest cloudlet of the queue has waited, 0 when none does.", func(w *work) float64 { return w.oldest.Seconds() }),
	rows(gaugeKind, "cloudlets_overdue", "Cloudlets whose deadline has passed and that have not ended, by SLA.", func(w *work, row func(string, float64)) {
		eachSLA(func(l string, sla int) { row(l, float64(w.overdue[sla])) })
	}),
	rows(counterKind, "cloudlets_ended_total", "Cloudlets that ended since the agent began, by their last state and why.", func(w *work, row func(string, float64)) {
		for _, e := range outcomes.Endings {
			row(label("state", string(e.State))+","+label("reason", e.Reason), float64(w.Ended[e]))
		}
	}),
	rows(counterKind, "cloudlet_deadlines_total", "Cloudlets with a deadline that ended since the agent began, by SLA: met when they succeeded by then, missed when they ended later or at it. Others (failed, cancelled or lost before it) are in neither.", func(w *work, row func(string, float64)) {
		eachSLA(func(l string, sla int) {
			row(l+`,outcome="met"`, float64(w.Deadlines[sla].Met))
			row(l+`,outcome="missed"`, float64(w.Deadlines[sla].Missed))
		})
	}),
	counter("idle_vms_deleted_total", "VMs deleted since the agent began because they were idle.", func(w *work) float64 { return float64(w.Events["vm.idle_deleted"]) }),
	counter("store_failures_total", "Changes that could not be stored since the agent began; /health says why.",
		func(w *work) float64 { return float64(w.Unstored) }),
	rows(counterKind, "events_total", "Events of the system log since the agent began, by kind.", func(w *work, row func(string, float64)) {
		for _, kind := range slices.Sorted(maps.Keys(w.Events)) {
			row(label("kind", kind), float64(w.Events[kind]))
		}
	}),
}

var waitingHead = head{"cloudflash_cloudlet_waiting_seconds", "Time from submission to start of cloudlets that started since the agent began, by SLA.", histogramKind}

// waiting appends the histogram of all SLAs.
func (p *page) waiting(w *work) {
	p.head(waitingHead)
	eachSLA(func(l string, sla int) {
		h := &w.Waiting[sla]
		p.histogram(waitingHead.name, l, outcomes.WaitingBounds[:], h.Buckets[:], h.Seconds)
	})
}

// histogram appends one, which has three names.
func (p *page) histogram(name, labels string, bounds []float64, buckets []int64, sum float64) {
	var count int64
	for i, n := range buckets {
		count += n
		le := "+Inf"
		if i < len(bounds) {
			le = canonical(bounds[i])
		}
		p.series(name+"_bucket", labels, label("le", le), float64(count))
	}
	p.series(name+"_sum", labels, "", sum)
	p.series(name+"_count", labels, "", float64(count))
}

// canonical is a bound as OpenMetrics wants it: 1.0, not 1.
func canonical(bound float64) string {
	s := strconv.FormatFloat(bound, 'g', -1, 64)
	if bound == float64(int64(bound)) {
		return s + ".0"
	}
	return s
}

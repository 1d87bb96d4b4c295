package metrics

import (
	"cloudflash/agent/outcomes"
)

var scalings = outcomes.Scalings()

var scalingFamilies = []family[work]{
	rows(counterKind, "autoscale_decisions_total", "Decisions of autoscaling since the agent began, by limit, what was decided, and what became of it.", func(w *work, row func(string, float64)) {
		for _, s := range scalings {
			row(label("resource", s.Resource)+","+label("action", s.Action)+","+label("result", string(s.Result)), float64(w.Scaling[s]))
		}
	}),
}

var kernelHead = head{"cloudflash_autoscale_kernel_seconds", "Time from the look that showed a need to the kernel having the new limit, of all decisions applied since the agent began.", histogramKind}

// scaling appends what autoscaling has decided, and how fast it was.
func (p *page) scaling(w *work) {
	one(p, scalingFamilies, w)
	p.head(kernelHead)
	p.histogram(kernelHead.name, "", outcomes.KernelBounds[:], w.Kernel.Buckets[:], w.Kernel.Seconds)
}

package meter

const (
	// smallStep is by how many seconds a clock may be set back and be believed at
	// once: no more than that is lost by it.
	smallStep = 60
	// doubted is how many samples of a clock that was set back further are
	// ignored, about one a second, before what they are dated before is forgotten.
	doubted = 120
	// noClock is a time before this program was written, 2025: who says that has
	// no battery behind its clock and has not heard from a time server yet.
	noClock = 1_735_689_600
)

// believe tells whether a sample of a second before the newest one means that
// the clock is right now and was not before. The caller holds h.mu.
func (h *history) believe(sec int64) bool {
	if h.ignored == 0 {
		h.back = sec
	}
	if h.ignored == 0 && h.last-sec <= smallStep {
		return true
	}
	if sec < noClock {
		return false
	}
	h.back = min(h.back, sec)
	h.ignored++
	return h.ignored > doubted
}

// rewind forgets what lies at or after a second. The caller holds h.mu.
func (h *history) rewind(sec int64) {
	sec = max(sec, 0)
	for i := range h.rings {
		r := &h.rings[i]
		slot := sec / r.step
		number := slot / chunkPoints
		for j := range r.packed {
			if r.packed[j].number > number {
				r.packed[j].bytes = r.packed[j].bytes[:0]
			}
		}
		if r.open != number {
			r.unseal(number)
		}
		for c := range r.codes {
			for j := int(slot % chunkPoints); j < chunkPoints; j++ {
				r.codes[c][j] = gap
			}
		}
		r.slot = -1
	}
	h.last = sec
}

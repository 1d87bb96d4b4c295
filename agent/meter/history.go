package meter

import (
	"math"
	"sync"
	"time"
)

// A tier is one resolution of a history.
type tier struct {
	step   int64 // seconds
	points int   // a multiple of chunkPoints
	width  int   // columns of a series: 1 mean, or 3 mean, least and most
}

// tiers from fine to coarse.
var tiers = [...]tier{
	{1, 300, 1},  // five minutes
	{10, 360, 3}, // an hour
	{120, 720, 3},
}

// A history is the past of a fixed set of series, at most as long as the
// coarsest tier. It is safe for concurrent use.
type history struct {
	mu     sync.Mutex
	series int
	last   int64 // unix second of the newest sample, 0 when there is none
	rings  [len(tiers)]ring
	size   int // bytes of all packed chunks

	ignored int   // samples in a row that a clock set back has dated before last
	back    int64 // the earliest of their seconds
}

// ring holds the newest points of one tier. Slot n stands for the step that
// begins at unix second n*step; chunk n holds the slots from n*chunkPoints on.
type ring struct {
	tier
	packed []chunk // chunk n is at n % len(packed)
	open   int64   // number of the chunk that is being filled, -1 before the first
	codes  []column
	slot   int64 // that buckets is for
	now    []bucket
}

// chunk is a filled one; no bytes, no chunk.
type chunk struct {
	number int64
	bytes  []byte
}

// bucket gathers the samples of one slot.
type bucket struct {
	sum, least, most float32
	n                uint32
}

func newHistory(series int) *history {
	h := &history{series: series}
	for i, t := range tiers {
		h.rings[i] = ring{tier: t, packed: make([]chunk, t.points/chunkPoints), open: -1, slot: -1,
			codes: make([]column, series*t.width), now: make([]bucket, series)}
	}
	return h
}

// add records values for the unix seconds from..to; NaN is unknown. A clock that
// was set back takes what was recorded after the new time with it once it is
// believed; until then nothing is recorded.
func (h *history) add(from, to int64, values []float64, scratch *[]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if to < h.last {
		if !h.believe(to) {
			return
		}
		h.rewind(min(to, h.back))
	}
	h.ignored = 0
	for sec := from; sec <= to; sec++ {
		for i := range h.rings {
			h.size += h.rings[i].add(sec, values, scratch)
		}
	}
	h.last = to
}

// add returns by how many bytes what is packed has grown.
func (r *ring) add(sec int64, values []float64, scratch *[]byte) (grown int) {
	if slot := sec / r.step; slot != r.slot {
		grown = r.flush(scratch)
		clear(r.now)
		r.slot = slot
	}
	for i := range values {
		r.now[i].add(float32(values[i]))
	}
	return grown
}

func (b *bucket) add(v float32) {
	switch {
	case v != v: // NaN
		return
	case b.n == 0:
		b.least, b.most = v, v
	case v < b.least:
		b.least = v
	case v > b.most:
		b.most = v
	}
	b.sum += v
	b.n++
}

// point is mean, least and most of a bucket.
func (b bucket) point() (p [3]code) {
	if b.n == 0 {
		return [3]code{gap, gap, gap}
	}
	return [3]code{encode(float64(b.sum / float32(b.n))), encode(float64(b.least)), encode(float64(b.most))}
}

// flush puts the finished slot into its chunk.
func (r *ring) flush(scratch *[]byte) (grown int) {
	if r.slot < 0 {
		return 0
	}
	if number := r.slot / chunkPoints; number != r.open {
		grown = r.seal(scratch)
		r.unseal(number)
	}
	at := int(r.slot % chunkPoints)
	for s, b := range r.now {
		p := b.point()
		for w := range r.width {
			r.codes[s*r.width+w][at] = p[w]
		}
	}
	return grown
}

// seal packs the open chunk over the oldest one, in its place when it fits.
func (r *ring) seal(scratch *[]byte) (grown int) {
	if r.open < 0 {
		return 0
	}
	b := pack((*scratch)[:0], r.codes, r.width)
	*scratch = b
	c := &r.packed[r.open%int64(len(r.packed))]
	grown = -cap(c.bytes)
	if cap(c.bytes) < len(b) || cap(c.bytes) > 2*len(b)+64 {
		c.bytes = make([]byte, 0, len(b)+len(b)/8)
	}
	c.number, c.bytes = r.open, append(c.bytes[:0], b...)
	return grown + cap(c.bytes)
}

// unseal opens a chunk: what is left of it, or gaps.
func (r *ring) unseal(number int64) {
	r.open = number
	if c := r.find(number); c != nil && unpack(c.bytes, r.codes, r.width) == nil {
		return
	}
	fillGaps(r.codes)
}

// find returns the packed chunk of a number, or nil.
func (r *ring) find(number int64) *chunk {
	if number < 0 {
		return nil
	}
	if c := &r.packed[number%int64(len(r.packed))]; c.number == number && len(c.bytes) > 0 {
		return c
	}
	return nil
}

// dropOldest frees the oldest chunk of the coarsest tier that has one. The
// caller does not hold h.mu.
func (h *history) dropOldest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.rings) - 1; i >= 0; i-- {
		var oldest *chunk
		for j := range h.rings[i].packed {
			if c := &h.rings[i].packed[j]; c.bytes != nil && (oldest == nil || c.number < oldest.number) {
				oldest = c
			}
		}
		if oldest != nil {
			h.size -= cap(oldest.bytes)
			*oldest = chunk{}
			return
		}
	}
}

// bytes is what the packed chunks take.
func (h *history) bytes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.size
}

// fixed is what a history takes beside its packed chunks, in bytes.
func (h *history) fixed() (n int) {
	for _, r := range h.rings {
		n += 32*len(r.packed) + 2*chunkPoints*len(r.codes) + 16*len(r.now)
	}
	return n
}

// tierFor is the finest tier that reaches back so far.
func tierFor(span time.Duration) int {
	for i, t := range tiers {
		if span <= time.Duration(t.step)*time.Duration(t.points)*time.Second {
			return i
		}
	}
	return len(tiers) - 1
}

// read calls take for every slot of a window, oldest first, with the columns of
// the wanted series. now is the unix second the window ends with.
func (h *history) read(tierIndex int, now int64, points int, take func(slot int64, at func(series, column int) code)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &h.rings[tierIndex]
	columns, loaded := make([]column, len(r.codes)), int64(math.MinInt64)
	if now > h.last && now-h.last <= 2 { // the second that is being sampled is no gap
		now = h.last
	}
	end := now / r.step
	for slot := end - int64(points) + 1; slot <= end; slot++ {
		number, in := slot/chunkPoints, int(slot%chunkPoints)
		switch {
		case slot < 0:
			take(slot, func(int, int) code { return gap })
		case slot == r.slot:
			take(slot, func(s, w int) code { return r.now[s].point()[w] })
		case number == r.open:
			take(slot, func(s, w int) code { return r.codes[s*r.width+w][in] })
		default:
			if number != loaded {
				loaded = number
				if c := r.find(number); c == nil || unpack(c.bytes, columns, r.width) != nil {
					fillGaps(columns)
				}
			}
			take(slot, func(s, w int) code { return columns[s*r.width+w][in] })
		}
	}
}

func fillGaps(columns []column) {
	for i := range columns {
		for j := range columns[i] {
			columns[i][j] = gap
		}
	}
}

package meter

import (
	"errors"
	"math"
	"slices"
	"time"
)

// Longest is how far back the history goes.
const Longest = 24 * time.Hour

// ErrUnknown says that nothing is remembered under that id.
var ErrUnknown = errors.New("no history")

// Window is a piece of history, oldest point first. NaN is a gap.
type Window struct {
	Step   time.Duration // between two points
	Times  []int64       // unix seconds at which each point begins
	Series []Series
}

// Series is one quantity in a Window. Of a tier that keeps single samples, all
// three are the same.
type Series struct {
	Name             string
	Avg, Least, Most []float64
}

// VMFields are the names of the series of VMs.
func VMFields() []string { return names(vmSeriesList()) }

// HostFields are those of the host.
func HostFields() []string { return names(hostSeriesList()) }

func names(all []series) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = s.name
	}
	return out
}

// VMWindow returns the last span of a VM's history, at most 900 points of the
// wanted fields, all when there are none. Fields that do not exist are left out.
func (m *Meter) VMWindow(id string, now time.Time, span time.Duration, fields []string) (Window, error) {
	m.mu.Lock()
	h := m.past[id]
	m.mu.Unlock()
	if h == nil {
		return Window{}, ErrUnknown
	}
	return h.window(now, span, vmSeriesList(), fields), nil
}

// HostWindow is VMWindow for the host.
func (m *Meter) HostWindow(now time.Time, span time.Duration, fields []string) Window {
	return m.hostPast.window(now, span, hostSeriesList(), fields)
}

func (h *history) window(now time.Time, span time.Duration, all []series, fields []string) Window {
	span = min(max(span, time.Second), Longest)
	index := tierFor(span)
	t := tiers[index]
	step := time.Duration(t.step) * time.Second
	points := int((span + step - 1) / step)
	w := Window{Step: step, Times: make([]int64, 0, points)}
	var wanted []int
	for i, s := range all {
		if len(fields) == 0 || slices.Contains(fields, s.name) {
			wanted = append(wanted, i)
			one := Series{Name: s.name, Avg: make([]float64, 0, points)}
			if t.width == 3 {
				one.Least, one.Most = make([]float64, 0, points), make([]float64, 0, points)
			}
			w.Series = append(w.Series, one)
		}
	}
	h.read(index, now.Unix(), points, func(slot int64, at func(series, column int) code) {
		w.Times = append(w.Times, slot*t.step)
		for k, i := range wanted {
			s := &w.Series[k]
			s.Avg = append(s.Avg, all[i].value(at(i, 0)))
			if t.width == 3 {
				s.Least, s.Most = append(s.Least, all[i].value(at(i, 1))), append(s.Most, all[i].value(at(i, 2)))
			}
		}
	})
	for k := range w.Series {
		if s := &w.Series[k]; t.width == 1 {
			s.Least, s.Most = s.Avg, s.Avg
		}
	}
	return w
}

func (s series) value(c code) float64 {
	if c == gap {
		return math.NaN()
	}
	if s.bytes {
		return c.binary()
	}
	return c.decimal()
}

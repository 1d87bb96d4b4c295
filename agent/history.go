package agent

import (
	"slices"
	"strings"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/meter"
)

// HistoryLongest is how far back the history of usage goes.
const HistoryLongest = meter.Longest

// History is what was used over some time, oldest point first. NaN is a gap:
// nobody looked, or the kernel does not tell.
type History struct {
	Step   time.Duration // that one point stands for
	Times  []int64       // unix seconds at which each begins
	Series []HistorySeries
}

// HistorySeries is one quantity in a History. Over five minutes and less, single
// samples are kept and all three are the same.
type HistorySeries struct {
	Name          string
	Avg, Min, Max []float64
}

// VMHistory returns the last span of what a VM has used, in at most 900 points.
// No fields are all fields.
func (a *Agent) VMHistory(ref string, span time.Duration, fields []string) (History, error) {
	if err := checkHistory(span, fields, meter.VMFields()); err != nil {
		return History{}, err
	}
	v, err := a.VM(ref)
	if err != nil {
		return History{}, err
	}
	w, err := a.meter.VMWindow(v.ID, time.Now(), span, fields)
	if err != nil {
		return History{}, fault.Refuse(fault.ErrConflict, "no_history", "try again in a few seconds",
			"VM %s has not been metered yet: it is %s", fault.Quote(v.Name), v.State)
	}
	return historyOf(w), nil
}

// HostHistory is VMHistory for the host.
func (a *Agent) HostHistory(span time.Duration, fields []string) (History, error) {
	if err := checkHistory(span, fields, meter.HostFields()); err != nil {
		return History{}, err
	}
	return historyOf(a.meter.HostWindow(time.Now(), span, fields)), nil
}

// VMHistoryFields names what there is a history of for each VM.
func VMHistoryFields() []string { return meter.VMFields() }

// HostHistoryFields names what there is a history of for the host.
func HostHistoryFields() []string { return meter.HostFields() }

// mostUnknown is how many unknown fields are named: the known ones go with each.
const mostUnknown = 3

func checkHistory(span time.Duration, fields, known []string) error {
	var f fault.List
	fault.Within(&f, "?range", span.Seconds(), 1, HistoryLongest.Seconds())
	if len(fields) > len(known) {
		f.Add("?fields", 1, len(known), "has %d names, and there are %d series", len(fields), len(known))
		return f.Err("invalid_history")
	}
	unknown := slices.DeleteFunc(slices.Clone(fields), func(name string) bool { return slices.Contains(known, name) })
	for _, name := range unknown[:min(len(unknown), mostUnknown)] {
		f.Add("?fields", nil, nil, "%s is not one of %s", fault.Quote(name), strings.Join(known, ", "))
	}
	return f.Err("invalid_history")
}

func historyOf(w meter.Window) History {
	h := History{Step: w.Step, Times: w.Times, Series: make([]HistorySeries, len(w.Series))}
	for i, s := range w.Series {
		h.Series[i] = HistorySeries{Name: s.Name, Avg: s.Avg, Min: s.Least, Max: s.Most}
	}
	return h
}

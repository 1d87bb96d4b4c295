package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// reserved are prefixes of names that files may not take.
var reserved = []string{"cloudflash_", "go_", "process_", "promhttp_"}

// parseProm reads a whole file in the text format, or nothing.
func parseProm(r io.Reader) ([]*dto.MetricFamily, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFileBytes { // it grew meanwhile
		return nil, fmt.Errorf("has more than %d bytes", maxFileBytes)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	byName, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, errors.New("is not in the Prometheus text format: " + clean(err.Error()))
	}
	var families []*dto.MetricFamily
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		f := byName[name]
		if err := checkFamily(f); err != nil {
			return nil, fmt.Errorf("metric %s: %w", name, err)
		}
		families = append(families, f)
	}
	return families, nil
}

// clean makes a parser's error, which quotes the file, fit for a log.
func clean(s string) string {
	const most = 200
	s = strings.ToValidUTF8(s, noInvalidString)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func checkFamily(f *dto.MetricFamily) error {
	for _, prefix := range reserved {
		if strings.HasPrefix(f.GetName(), prefix) {
			return errors.New("names that begin with " + prefix + " are the agent's")
		}
	}
	for _, m := range f.Metric {
		if m.TimestampMs != nil {
			return errors.New("has a timestamp: when it was read is Prometheus's to say")
		}
		names := map[string]bool{}
		for _, l := range m.Label {
			if names[l.GetName()] {
				return fmt.Errorf("label %s is there twice", l.GetName())
			}
			names[l.GetName()] = true
			if strings.HasPrefix(l.GetName(), "__") {
				return errors.New("labels that begin with __ are Prometheus's own")
			}
			if !utf8.ValidString(l.GetValue()) {
				return fmt.Errorf("label %s is not in UTF-8", l.GetName())
			}
		}
	}
	return nil
}

// merge is the metrics of several files, each name once and each series once.
type merge struct {
	byName map[string]*merged
	taken  map[string]string // series → file
}

type merged struct {
	family *dto.MetricFamily
	file   string // that said help and type
}

func newMerge() *merge { return &merge{map[string]*merged{}, map[string]string{}} }

// errLeftOut marks errors for which nothing of a file was taken.
var errLeftOut = errors.New("left out")

// add merges a file, or nothing of it when a metric has another type or a
// series is there already. A help text that differs is reported, and the first
// stays.
func (m *merge) add(file string, families []*dto.MetricFamily) error {
	fresh := map[string]bool{}
	for _, f := range families {
		if have := m.byName[f.GetName()]; have != nil && have.family.GetType() != f.GetType() {
			return fmt.Errorf("%w: %s is a %s in %s", errLeftOut, f.GetName(), strings.ToLower(have.family.GetType().String()), have.file)
		}
		for _, s := range f.Metric {
			key := seriesKey(f.GetName(), s)
			if by, ok := m.taken[key]; ok {
				return fmt.Errorf("%w: a series of %s is in %s already", errLeftOut, f.GetName(), by)
			}
			if fresh[key] {
				return fmt.Errorf("%w: a series of %s is there twice", errLeftOut, f.GetName())
			}
			fresh[key] = true
		}
	}
	if len(m.taken)+len(fresh) > maxSeries {
		return fmt.Errorf("%w: with it there were more than %d series", errLeftOut, maxSeries)
	}
	for key := range fresh {
		m.taken[key] = file
	}
	var differs error
	for _, f := range families {
		if err := m.family(file, f); err != nil {
			differs = err
		}
	}
	return differs
}

func (m *merge) family(file string, f *dto.MetricFamily) error {
	have := m.byName[f.GetName()]
	if have == nil {
		help := f.Help
		if help == nil {
			help = new("Metric read from " + file)
		}
		// The metrics are shared with what is kept of the file, the list is not.
		m.byName[f.GetName()] = &merged{&dto.MetricFamily{Name: f.Name, Help: help, Type: f.Type, Metric: slices.Clone(f.Metric)}, file}
		return nil
	}
	have.family.Metric = append(have.family.Metric, f.Metric...)
	if f.Help != nil && f.GetHelp() != have.family.GetHelp() {
		return fmt.Errorf("help of %s differs from that in %s", f.GetName(), have.file)
	}
	return nil
}

func (m *merge) families() []*dto.MetricFamily {
	var all []*dto.MetricFamily
	for _, name := range slices.Sorted(maps.Keys(m.byName)) {
		all = append(all, m.byName[name].family)
	}
	return all
}

// seriesKey is the same for two series that Prometheus takes for one.
func seriesKey(name string, m *dto.Metric) string {
	labels := make([]string, 0, len(m.Label))
	for _, l := range m.Label {
		if l.GetValue() != "" { // as good as no label
			labels = append(labels, l.GetName()+"\xff"+l.GetValue())
		}
	}
	slices.Sort(labels)
	return name + "\xff" + strings.Join(labels, "\xff")
}

// report is the metrics that tell how reading the files went.
type report struct {
	failed bool
	mtimes []*dto.Metric
	errors []*dto.Metric
}

func newReport() *report { return &report{} }

func (r *report) mtime(file string, at interface{ UnixMilli() int64 }) {
	r.mtimes = append(r.mtimes, fileGauge(file, float64(at.UnixMilli())/1000))
}

func (r *report) file(file string, err error) {
	v := 0.0
	if err != nil {
		v = 1
	}
	r.errors = append(r.errors, fileGauge(file, v))
}

func fileGauge(file string, v float64) *dto.Metric {
	return &dto.Metric{Label: []*dto.LabelPair{{Name: new("file"), Value: new(strings.ToValidUTF8(file, noInvalidString))}},
		Gauge: &dto.Gauge{Value: &v}}
}

func (r *report) families() []*dto.MetricFamily {
	failed := 0.0
	if r.failed {
		failed = 1
	}
	gaugeFamily := func(name, help string, metrics []*dto.Metric) *dto.MetricFamily {
		return &dto.MetricFamily{Name: &name, Help: &help, Type: dto.MetricType_GAUGE.Enum(), Metric: metrics}
	}
	all := []*dto.MetricFamily{gaugeFamily("cloudflash_textfile_scrape_error", "1 when something was wrong with the directory or one of its files.",
		[]*dto.Metric{{Gauge: &dto.Gauge{Value: &failed}}})}
	if len(r.errors) > 0 {
		all = append(all, gaugeFamily("cloudflash_textfile_error", "1 when something is wrong with a file; the agent's log tells what.", r.errors))
	}
	if len(r.mtimes) > 0 {
		all = append(all, gaugeFamily("cloudflash_textfile_mtime_seconds", "When a file that was taken was last changed, in Unix time.", r.mtimes))
	}
	return all
}

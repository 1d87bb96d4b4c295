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
		if slices.ContainsFunc(claims(f), func(name string) bool { return strings.HasPrefix(name, prefix) }) {
			return errors.New("names that begin with " + prefix + " are the agent's")
		}
	}
	for _, m := range f.Metric {
		if err := checkSteps(m); err != nil {
			return err
		}
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
	byName  map[string]*merged
	claimed map[string]*merged // by all names that a family takes
	taken   map[string]string  // series → file
	lines   int
}

type merged struct {
	family *dto.MetricFamily
	file   string // that said help and type
}

func newMerge() *merge {
	return &merge{byName: map[string]*merged{}, claimed: map[string]*merged{}, taken: map[string]string{}}
}

// errLeftOut marks errors for which nothing of a file was taken.
var errLeftOut = errors.New("left out")

// add merges a file, or nothing of it when a metric has another type, a name
// that another takes, or a series that is there already. A help text that differs
// is reported, and the first stays.
func (m *merge) add(file string, families []*dto.MetricFamily) error {
	if err := m.clash(file, families); err != nil {
		return err
	}
	fresh, count := map[string]bool{}, m.lines
	for _, f := range families {
		for _, s := range f.Metric {
			key := seriesKey(f.GetName(), s)
			if by, ok := m.taken[key]; ok {
				return fmt.Errorf("%w: a series of %s is in %s already", errLeftOut, f.GetName(), by)
			}
			if fresh[key] {
				return fmt.Errorf("%w: a series of %s is there twice", errLeftOut, f.GetName())
			}
			fresh[key] = true
			count += lines(s)
		}
	}
	if count > maxSeries {
		return fmt.Errorf("%w: with it there were more than %d series", errLeftOut, maxSeries)
	}
	m.lines = count
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

// clash tells of a metric of another type, or of another name that takes the same.
func (m *merge) clash(file string, families []*dto.MetricFamily) error {
	fresh := map[string]*merged{}
	for _, f := range families {
		now := &merged{f, file}
		for _, name := range claims(f) {
			for _, have := range []*merged{m.claimed[name], fresh[name]} {
				if have == nil {
					continue
				}
				if have.family.GetName() != f.GetName() {
					return fmt.Errorf("%w: %s: the name %s is of the %s %s in %s", errLeftOut, f.GetName(), name, typeOf(have.family), have.family.GetName(), have.file)
				}
				if have.family.GetType() != f.GetType() {
					return fmt.Errorf("%w: %s is a %s in %s", errLeftOut, f.GetName(), typeOf(have.family), have.file)
				}
			}
			fresh[name] = now
		}
	}
	return nil
}

func typeOf(f *dto.MetricFamily) string { return strings.ToLower(f.GetType().String()) }

func (m *merge) family(file string, f *dto.MetricFamily) error {
	have := m.byName[f.GetName()]
	if have == nil {
		help := f.Help
		if help == nil {
			help = new("Metric read from " + file)
		}
		// The metrics are shared with what is kept of the file, the list is not.
		first := &merged{&dto.MetricFamily{Name: f.Name, Help: help, Type: f.Type, Metric: slices.Clone(f.Metric)}, file}
		m.byName[f.GetName()] = first
		for _, name := range claims(f) {
			m.claimed[name] = first
		}
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

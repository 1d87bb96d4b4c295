package metrics

import (
	"fmt"
	"math"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// claims are the names that a family takes on a page, in one text format or the
// other: OpenMetrics writes a counter x or x_total as x and x_total.
func claims(f *dto.MetricFamily) []string {
	name := f.GetName()
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		base := strings.TrimSuffix(name, "_total")
		return []string{base, base + "_total"}
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		return []string{name, name + "_bucket", name + "_sum", name + "_count"}
	case dto.MetricType_SUMMARY:
		return []string{name, name + "_sum", name + "_count"}
	}
	return []string{name}
}

// lines is how many series a metric is on a page.
func lines(m *dto.Metric) int {
	switch {
	case m.Histogram != nil:
		n := len(m.Histogram.Bucket) + 2
		if !slices.ContainsFunc(m.Histogram.Bucket, func(b *dto.Bucket) bool { return math.IsInf(b.GetUpperBound(), 1) }) {
			n++ // the bucket of +Inf is added
		}
		return n
	case m.Summary != nil:
		return len(m.Summary.Quantile) + 2
	}
	return 1
}

// checkSteps refuses a histogram that has a bucket twice, and a summary that has
// a quantile twice. The parser leaves out those of NaN.
func checkSteps(m *dto.Metric) error {
	seen := map[float64]bool{}
	step := func(label string, v float64) error {
		if seen[v] {
			return fmt.Errorf("%s=\"%v\" is there twice", label, v)
		}
		seen[v] = true
		return nil
	}
	for _, b := range m.GetHistogram().GetBucket() {
		if err := step("le", b.GetUpperBound()); err != nil {
			return err
		}
	}
	for _, q := range m.GetSummary().GetQuantile() {
		if err := step("quantile", q.GetQuantile()); err != nil {
			return err
		}
	}
	return nil
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

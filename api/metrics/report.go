package metrics

import dto "github.com/prometheus/client_model/go"

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
	return &dto.Metric{Label: []*dto.LabelPair{{Name: new("file"), Value: &file}},
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

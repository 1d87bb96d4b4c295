// Package metrics is the Prometheus view of the agent's snapshot: the same
// numbers, at the same moment, that the API and the dashboard show. Series of a
// VM that is gone are gone with it, because nothing is kept between scrapes but
// the counters of the API itself.
//
// A metric of the snapshot is one line in the tables of vms.go, host.go,
// cloudlets.go, autoscale.go and memory.go. What is not in the snapshot comes from a
// prometheus.Collector that is given to Register, or, without code, from *.prom
// files (Textfile).
package metrics

import (
	"compress/gzip"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"time"

	"cloudflash/agent"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Source is what is measured.
type Source interface {
	Snapshot() *agent.Snapshot
}

// Metrics serves /metrics.
type Metrics struct {
	source  Source
	build   build
	log     *slog.Logger
	own     *prometheus.Registry // of the API and of this process
	sources []*source

	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	refused  prometheus.Counter
	rendered prometheus.Gauge

	fresh    time.Duration // for how long an answer is given again
	patience time.Duration // with a scraper that does not read
	inFlight chan struct{}

	mu      sync.Mutex // held while an answer is put together
	answers [2]answer  // text, OpenMetrics
	zip     *gzip.Writer
	logged  map[string]string
}

// New makes a registry of the agent's own; nothing registers with the default.
func New(from Source, version string, log *slog.Logger) *Metrics {
	m := &Metrics{
		source: from, build: build{version}, log: log, own: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cloudflash_http_requests_total",
			Help: "Requests to the API since the agent began, by method, route pattern and status."}, []string{"method", "route", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "cloudflash_http_request_duration_seconds",
			Help: "Time to answer a request, by route pattern.", Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10}}, []string{"route"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "cloudflash_metrics_refused_total",
			Help: "Scrapes refused with 503 because too many were under way."}),
		rendered: prometheus.NewGauge(prometheus.GaugeOpts{Name: "cloudflash_metrics_render_seconds",
			Help: "Time it took to put together the page before this one."}),
		fresh: freshFor, patience: writeWait, inFlight: make(chan struct{}, maxInFlight), logged: map[string]string{},
	}
	m.own.MustRegister(m.requests, m.took, m.refused, m.rendered,
		// MemStats stops the world; process_resident_memory_bytes tells what counts.
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

var goodName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Register adds metrics that are not of the snapshot. Call it where New is
// called, before the first scrape. A collector that takes longer than
// sourceWait, fails, or has a metric that somebody else has costs only its own
// metrics; cloudflash_collector_success tells, by the name given here.
func (m *Metrics) Register(name string, c prometheus.Collector) error {
	if !goodName.MatchString(name) {
		return fmt.Errorf("name %q is not in lower case letters, digits and _", name)
	}
	for _, s := range m.sources {
		if s.name == name {
			return fmt.Errorf("there is a collector %s already", name)
		}
	}
	r := prometheus.NewRegistry()
	if err := r.Register(c); err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	m.sources = append(m.sources, &source{name: name, gather: r.Gather})
	return nil
}

var errDirectoryTwice = errors.New("there is a directory of *.prom files already")

// Textfile adds the metrics in the *.prom files of a directory. See textfile.
func (m *Metrics) Textfile(dir string) error {
	for _, s := range m.sources {
		if s.name == textfileName {
			return errDirectoryTwice
		}
	}
	t := &textfile{dir: dir, log: m.log, files: map[string]*promFile{}}
	m.sources = append(m.sources, &source{name: textfileName, gather: t.gather})
	return nil
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler { return http.HandlerFunc(m.serve) }

// Observe counts a request. Route must be a pattern: paths are without number.
func (m *Metrics) Observe(method, route string, status int, took time.Duration) {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		method = "other" // anybody can make up methods
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	m.took.WithLabelValues(route).Observe(took.Seconds())
}

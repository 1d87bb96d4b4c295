// Package metrics is the Prometheus view of the agent's snapshot: the same
// numbers, at the same moment, that the API and the dashboard show. Series of a
// VM that is gone are gone with it, because nothing is kept between scrapes but
// the counters of the API itself.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"cloudflash/agent"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Source is what is measured.
type Source interface {
	Snapshot() *agent.Snapshot
}

// Metrics serves /metrics.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

// New makes a registry of the agent's own; nothing registers with the default.
func New(source Source, version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cloudflash_http_requests_total",
			Help: "Requests to the API, by method, route pattern and status."}, []string{"method", "route", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "cloudflash_http_request_duration_seconds",
			Help: "Time to answer a request, by route pattern.", Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10}}, []string{"route"}),
	}
	m.registry.MustRegister(m.requests, m.took, &collector{source: source, version: version},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

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

package metrics

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
)

const (
	// freshFor is how long one answer serves everybody: more scrapes than four a
	// second cost no more than four.
	freshFor = 250 * time.Millisecond
	// maxInFlight is how many scrapes may be under way; more get 503.
	maxInFlight = 16
	// writeWait is how long a scraper may take to read its answer.
	writeWait = 10 * time.Second
)

// answer is a page as it is sent. It is replaced, never changed.
type answer struct {
	at     time.Time
	plain  []byte
	zipped []byte // nil until somebody wants it
}

// serve answers a scrape.
func (m *Metrics) serve(w http.ResponseWriter, r *http.Request) {
	select {
	case m.inFlight <- struct{}{}:
		defer func() { <-m.inFlight }()
	default:
		m.refused.Inc()
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many scrapes at one time", http.StatusServiceUnavailable)
		return
	}
	format := expfmt.NegotiateAccept(r.Header, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1, expfmt.FmtText)
	zip := acceptsGzip(r.Header.Get("Accept-Encoding"))
	body := m.body(format.FormatType() == expfmt.TypeOpenMetrics, zip)
	h := w.Header()
	h.Set("Content-Type", string(format))
	h.Set("Vary", "Accept, Accept-Encoding")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if zip {
		h.Set("Content-Encoding", "gzip")
	}
	// One that stalls must hold neither its place nor its connection.
	out := http.NewResponseController(w)
	_ = out.SetWriteDeadline(time.Now().Add(m.patience)) // not all writers can
	if _, err := w.Write(body); err == nil && out.Flush() == nil {
		_ = out.SetWriteDeadline(time.Time{})
	}
}

// acceptsGzip reads Accept-Encoding as scrapers send it.
func acceptsGzip(header string) bool {
	for _, part := range strings.Split(header, ",") {
		name, q, _ := strings.Cut(strings.ReplaceAll(part, " ", ""), ";")
		if strings.EqualFold(name, "gzip") && q != "q=0" && q != "q=0.0" {
			return true
		}
	}
	return false
}

// body returns an answer that is at most freshFor old.
func (m *Metrics) body(openMetrics, zip bool) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := &m.answers[0]
	if openMetrics {
		a = &m.answers[1]
	}
	if now := time.Now(); a.plain == nil || now.Sub(a.at) >= m.fresh {
		*a = answer{at: now, plain: m.render(openMetrics, len(a.plain))}
		m.rendered.Set(time.Since(now).Seconds())
	}
	if !zip {
		return a.plain
	}
	if a.zipped == nil {
		a.zipped = m.compress(a.plain)
	}
	return a.zipped
}

// compress zips with a kept writer: a new one costs a megabyte. The caller holds
// m.mu.
func (m *Metrics) compress(plain []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(plain)/8 + 1024)
	if m.zip == nil {
		m.zip, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is right
	}
	m.zip.Reset(&b)
	_, _ = m.zip.Write(plain) // a Buffer takes everything
	_ = m.zip.Close()
	return b.Bytes()
}

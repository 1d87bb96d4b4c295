package metrics

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cloudflash/agent"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sys/unix"
)

type counted struct {
	taken
	n atomic.Int64
}

func (c *counted) Snapshot() *agent.Snapshot {
	c.n.Add(1)
	return c.taken.Snapshot()
}

func TestFiftyScrapesASecondCostFour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := open(nil)
		from := &counted{taken: taken{withVMs(1)}}
		m.source, m.fresh = from, freshFor
		for range 50 {
			scrape(m, "")
			time.Sleep(20 * time.Millisecond)
		}
		if n := from.n.Load(); n > 5 {
			t.Errorf("the snapshot was asked for %d times in a second", n)
		}
	})
}

func TestGzip(t *testing.T) {
	m, _ := open(withVMs(3))
	for header, want := range map[string]bool{"gzip": true, "deflate, gzip;q=1.0": true, "": false, "br": false, "gzip;q=0": false} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
		r.Header.Set("Accept-Encoding", header)
		m.Handler().ServeHTTP(w, r)
		body := io.Reader(w.Body)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("Accept-Encoding %q: zipped is %v", header, got)
		} else if got {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			body = z
		}
		if text, err := io.ReadAll(body); err != nil || !strings.Contains(string(text), "cloudflash_vms ") {
			t.Errorf("Accept-Encoding %q: %v", header, err)
		}
	}
}

// stalled is a scraper that does not read.
type stalled struct {
	http.ResponseWriter
	deadline time.Time
	release  chan struct{}
}

func (s *stalled) Write(b []byte) (int, error) {
	<-s.release
	return 0, errors.New("deadline passed")
}

func (s *stalled) SetWriteDeadline(t time.Time) error {
	s.deadline = t
	return nil
}

func TestStalledScrapersKeepNobodyElseWaiting(t *testing.T) {
	m, _ := open(withVMs(1))
	release := make(chan struct{})
	var wg sync.WaitGroup
	for range maxInFlight {
		wg.Go(func() {
			s := &stalled{ResponseWriter: httptest.NewRecorder(), release: release}
			m.Handler().ServeHTTP(s, httptest.NewRequest("GET", "/metrics", nil))
			if s.deadline.IsZero() {
				t.Error("no deadline was set")
			}
		})
	}
	for len(m.inFlight) < maxInFlight {
		time.Sleep(time.Millisecond)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many is answered %d", w.Code)
	}
	close(release)
	wg.Wait()
	wantLines(t, scrape(m, ""), "cloudflash_metrics_refused_total 1")
}

func TestAConnectionThatStallsIsBrokenOff(t *testing.T) {
	m, _ := open(withVMs(3000)) // more than the buffers of a socket hold
	m.patience = 300 * time.Millisecond
	engine := gin.New() // as the API has it
	engine.GET("/metrics", gin.WrapH(m.Handler()))
	srv := httptest.NewServer(engine)
	defer srv.Close()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}}
	conn, err := dialer.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for len(m.inFlight) == 0 {
		time.Sleep(time.Millisecond)
	}
	for len(m.inFlight) > 0 { // or the test never ends
		time.Sleep(10 * time.Millisecond)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("all %d bytes came after the deadline", n)
	}
}

func TestTheDeadlineOfAnAnswerIsNotThatOfTheNext(t *testing.T) {
	m, _ := open(withVMs(100))
	m.patience = 2 * time.Second
	srv := httptest.NewServer(m.Handler())
	defer srv.Close()
	for range 3 { // on one connection, for longer than that
		res, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if err != nil || n < 100000 {
			t.Fatalf("%d bytes, %v", n, err)
		}
		time.Sleep(m.patience * 3 / 5)
	}
}

// hung is a collector that never answers.
type hung struct{ ch chan struct{} }

func (h hung) Describe(ch chan<- *prometheus.Desc) {
	ch <- prometheus.NewDesc("hung", "Never told.", nil, nil)
}
func (h hung) Collect(chan<- prometheus.Metric) { <-h.ch }

func TestARegisteredCollectorCannotSpoilThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := open(withVMs(1))
		release := make(chan struct{})
		good := prometheus.NewGauge(prometheus.GaugeOpts{Name: "site_temperature_celsius", Help: "Of the room."})
		taken := prometheus.NewGauge(prometheus.GaugeOpts{Name: "cloudflash_vms", Help: "Not ours to take."})
		for name, c := range map[string]prometheus.Collector{"good": good, "taken": taken, "hung": hung{release}} {
			if err := m.Register(name, c); err != nil {
				t.Fatal(err)
			}
		}
		if m.Register("good", good) == nil || m.Register("Bad Name", good) == nil {
			t.Error("a name may be used twice, or be anything")
		}
		for range 2 {
			text := scrape(m, "")
			wantLines(t, text, "site_temperature_celsius 0", `cloudflash_collector_success{collector="good"} 1`,
				`cloudflash_collector_success{collector="taken"} 0`, `cloudflash_collector_success{collector="hung"} 0`, "cloudflash_vms 12345678")
			if strings.Count(text, "# TYPE cloudflash_vms ") != 1 {
				t.Error("a name was taken over")
			}
		}
		close(release)
		synctest.Wait()
	})
}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{100, 1000} {
		for _, encoding := range []string{"identity", "gzip"} {
			b.Run(fmt.Sprintf("%dVMs/%s", n, encoding), func(b *testing.B) {
				m, _ := open(withVMs(n))
				if err := m.Textfile(b.TempDir()); err != nil {
					b.Fatal(err)
				}
				var took, cpu []time.Duration
				size, lines := 0, 0
				for b.Loop() {
					w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
					r.Header.Set("Accept-Encoding", encoding)
					r.Header.Set("Accept", openMetricsAccept)
					began, busy := time.Now(), cpuTime()
					m.Handler().ServeHTTP(w, r)
					took, cpu = append(took, time.Since(began)), append(cpu, cpuTime()-busy)
					size = w.Body.Len()
				}
				lines = strings.Count(scrape(m, ""), "\n")
				b.ReportMetric(percentile(took), "p99-ms")
				b.ReportMetric(percentile(cpu), "p99-cpu-ms") // what it is where nothing else runs
				b.ReportMetric(float64(size)/1024, "KiB")
				b.ReportMetric(float64(lines), "lines")
			})
		}
	}
}

// percentile is the 99th, in milliseconds.
func percentile(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)*99/100].Microseconds()) / 1000
}

// cpuTime is that of this process, collection of garbage included.
func cpuTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

// TestASourceIsFreeWhenItHasAnswered: the next scrape must not find it busy.
func TestASourceIsFreeWhenItHasAnswered(t *testing.T) {
	s := &source{name: "quick", gather: func() ([]*dto.MetricFamily, error) { return nil, nil }}
	for range 10000 {
		if _, _, err := s.ask(); err != nil {
			t.Fatal(err)
		}
	}
}

package metrics

import (
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

type source struct{ snap *agent.Snapshot }

func (s *source) Snapshot() *agent.Snapshot { return s.snap }

func withVMs(n int) *agent.Snapshot {
	limit, mem := 0.5, int64(1<<30)
	s := &agent.Snapshot{At: time.Now(), Host: agent.Host{CPUs: 2, MemoryBytes: 8 << 30, Usage: agent.HostUsage{CPURatio: 0.25}}}
	for i := range n {
		s.VMs = append(s.VMs, agent.VM{ID: fmt.Sprintf("id%d", i), Name: fmt.Sprintf("vm%d", i), Image: "host", State: agent.VMRunning,
			Limits: agent.Limits{CPUs: &limit, MemoryBytes: &mem}, Usage: agent.Usage{CPUSeconds: 1.5, MemoryBytes: 1000}})
	}
	return s
}

func scrape(m *Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	b, _ := io.ReadAll(w.Body)
	return string(b)
}

func TestValuesOfTheSnapshot(t *testing.T) {
	m := New(&source{withVMs(1)}, "v1")
	m.Observe("GET", "/api/v1/vms", 200, time.Millisecond)
	m.Observe("BREW", "other", 405, time.Millisecond)
	text := scrape(m)
	for _, line := range []string{
		`cloudflash_build_info{version="v1"} 1`,
		`cloudflash_vm_info{image="host",name="vm0",state="running",vm="id0"} 1`,
		`cloudflash_vm_cpu_seconds_total{vm="id0"} 1.5`,
		`cloudflash_vm_cpu_limit_cores{vm="id0"} 0.5`,
		`cloudflash_vm_oom_kills_total{vm="id0"} 0`,
		`cloudflash_cpu_usage_percent 25`,
		`cloudflash_memory_total_bytes 8.589934592e+09`,
		`cloudflash_cloudlets{state="running"} 0`,
		`cloudflash_http_requests_total{method="GET",route="/api/v1/vms",status="200"} 1`,
		`cloudflash_http_requests_total{method="other",route="other",status="405"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(text, "cloudflash_vm_pids_limit{") {
		t.Error("a limit that is not set has a series")
	}
}

func TestSeriesOfADeletedVMVanish(t *testing.T) {
	s := &source{withVMs(2)}
	m := New(s, "v1")
	if !strings.Contains(scrape(m), `vm="id1"`) {
		t.Fatal("id1 is missing")
	}
	s.snap = withVMs(1)
	if strings.Contains(scrape(m), `vm="id1"`) {
		t.Error("id1 is still there")
	}
}

func TestNoSnapshotYet(t *testing.T) {
	if text := scrape(New(&source{}, "v1")); !strings.Contains(text, "cloudflash_build_info") || strings.Contains(text, "cloudflash_vms ") {
		t.Error("before the first snapshot only the build is known")
	}
}

func TestNamesFollowThePrometheusRules(t *testing.T) {
	problems, err := testutil.GatherAndLint(New(&source{withVMs(1)}, "v1").registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("%dVMs", n), func(b *testing.B) {
			m := New(&source{withVMs(n)}, "v1")
			for b.Loop() {
				scrape(m)
			}
		})
	}
}

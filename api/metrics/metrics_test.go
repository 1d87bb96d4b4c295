package metrics

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/outcomes"
	"cloudflash/agent/pages"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

type taken struct{ snap *agent.Snapshot }

func (s *taken) Snapshot() *agent.Snapshot { return s.snap }

// fill sets everything that v points to or holds, so that no series is missing.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		if at, ok := v.Addr().Interface().(*time.Time); ok {
			*at = time.Unix(1e9, 0)
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(12345678)
	case reflect.Uint64:
		v.SetUint(12345678)
	case reflect.Float64:
		v.SetFloat(1.25)
	case reflect.String:
		v.SetString("x")
	}
}

func withVMs(n int) *agent.Snapshot {
	s := &agent.Snapshot{}
	fill(reflect.ValueOf(s).Elem())
	s.At = time.Now()
	s.Host.Usage.CPURatio, s.Host.MemoryBytes = 0.25, 8<<30
	s.Host.Usage.Collectors = map[string]agent.Collector{"vms": {OK: true, Seconds: .001}, "gpu": {Error: "no driver"}}
	half := 0.5
	s.Outcomes.Events = map[string]int64{"vm.created": 0}
	s.Memory.HugeOrder, s.Memory.Map.Owners = 2, map[string]int64{pages.OwnerHost: 9, pages.OwnerDeleted: 8, "id00000000": 7}
	s.Memory.Map.Classes, s.Memory.FragmentationRatio = map[string]int64{"slab": 6}, &half
	s.Memory.Zones = []pages.MemoryZone{{Node: 1, Zone: "Normal", FreeBlocks: []int64{5, 0, 4}, UnusableFreeRatio: []float64{0, .25, .25}}}
	for i := range n {
		v := agent.VM{}
		fill(reflect.ValueOf(&v).Elem())
		v.ID, v.Name, v.Image, v.State = fmt.Sprintf("id%08d", i), fmt.Sprintf("vm%d", i), "host", agent.VMRunning
		*v.Limits.CPUs, *v.Limits.BandwidthBPS, v.Usage.UserSeconds, v.Autoscale.Mode = 0.5, 8e6, 1.5, "auto"
		s.VMs = append(s.VMs, v)
	}
	return s
}

func open(snap *agent.Snapshot) (*Metrics, *taken) {
	from := &taken{snap}
	m := New(from, "v1", slog.New(slog.DiscardHandler))
	m.fresh = 0
	return m, from
}

const openMetricsAccept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

func scrape(m *Metrics, accept string) string {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	m.Handler().ServeHTTP(w, r)
	b, _ := io.ReadAll(w.Body)
	return string(b)
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

func TestValuesOfTheSnapshot(t *testing.T) {
	snap := withVMs(1)
	snap.VMs[0].Limits.PIDs = nil
	snap.VMs[0].Name = "a\\\"b\n\xff"
	m, _ := open(snap)
	m.Observe("GET", "/api/v1/vms", 200, time.Millisecond)
	m.Observe("BREW", "other", 405, time.Millisecond)
	text := scrape(m, "")
	wantLines(t, text,
		`cloudflash_build_info{version="v1"} 1`,
		`cloudflash_vm_info{vm="id00000000",name="a\\\"b\n`+"\uFFFD"+`",image="host"} 1`,
		`cloudflash_vm_state{vm="id00000000",state="running"} 1`,
		`cloudflash_vm_state{vm="id00000000",state="failed"} 0`,
		`cloudflash_vm_autoscale_mode{vm="id00000000",mode="auto"} 1`,
		`cloudflash_vm_cpu_seconds_total{vm="id00000000",mode="user"} 1.5`,
		`cloudflash_vm_cpu_limit_cores{vm="id00000000"} 0.5`,
		`cloudflash_vm_idle_since_timestamp_seconds{vm="id00000000"} 1000000000`,
		`cloudflash_vm_idle_delete_timestamp_seconds{vm="id00000000"} 1000000000`,
		`cloudflash_vm_network_limit_bytes_per_second{vm="id00000000"} 1000000`,
		`cloudflash_vm_oom_kills_total{vm="id00000000"} 12345678`,
		`cloudflash_cpu_usage_percent 25`,
		`cloudflash_vm_pages{vm="id00000000"} 7`,
		`cloudflash_leftover_pages 8`,
		`cloudflash_host_own_pages 9`,
		`cloudflash_host_class_pages{class="slab"} 6`,
		`cloudflash_host_fragmentation_ratio 0.5`,
		`cloudflash_host_free_blocks{numa_node="1",mem_zone="Normal",order="0"} 5`,
		`cloudflash_host_unusable_free_ratio{numa_node="1",mem_zone="Normal",order="2"} 0.25`,
		`cloudflash_memory_total_bytes 8589934592`,
		`cloudflash_cloudlets{state="running"} 0`,
		`cloudflash_collector_success{collector="gpu"} 0`,
		`cloudflash_collector_success{collector="vms"} 1`,
		`cloudflash_http_requests_total{method="GET",route="/api/v1/vms",status="200"} 1`,
		`cloudflash_http_requests_total{method="other",route="other",status="405"} 1`)
	if strings.Contains(text, "cloudflash_vm_pids_limit{") {
		t.Error("a limit that is not set has a series")
	}
}

// Whatever is called a timestamp is in seconds since 1970.
func TestTimestampsAreSeconds(t *testing.T) {
	m, _ := open(withVMs(1))
	seen := 0
	for line := range strings.Lines(scrape(m, "")) {
		name, _, _ := strings.Cut(line, " ")
		name, _, _ = strings.Cut(name, "{")
		if !strings.HasPrefix(line, "cloudflash_") || !strings.HasSuffix(name, "_timestamp_seconds") {
			continue
		}
		fields := strings.Fields(line)
		at, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if math.Abs(at-1e9) > 1e6 && time.Since(time.Unix(int64(at), 0)).Abs() > time.Hour { // what withVMs has set, or now
			t.Errorf("%s", line)
		}
		seen++
	}
	if seen < 5 {
		t.Errorf("only %d timestamps", seen)
	}
}

func TestWorkOfCloudlets(t *testing.T) {
	snap := withVMs(0)
	o := outcomes.Counts{Ended: map[outcomes.Ending]int64{{State: agent.CloudletFailed, Reason: "oom"}: 2},
		Events: map[string]int64{"vm.created": 3, "vm.idle_deleted": 2}}
	o.Unstored = 4
	o.Scaling = map[outcomes.ScaledOutcome]int64{{Resource: "cpus", Action: "grow", Result: agent.DecisionApplied}: 3}
	o.Kernel.Buckets[3], o.Kernel.Buckets[len(outcomes.KernelBounds)], o.Kernel.Seconds = 2, 1, 20.25
	o.Deadlines[agent.SLAHigh] = outcomes.Deadlines{Met: 4, Missed: 5}
	o.Waiting[agent.SLALow].Buckets[0], o.Waiting[agent.SLALow].Buckets[4], o.Waiting[agent.SLALow].Seconds = 6, 1, 7.5
	past := snap.At.Add(-time.Minute)
	snap.Outcomes = &o
	snap.Cloudlets = []agent.Cloudlet{
		{State: agent.CloudletQueued, SLA: agent.SLALow, CreatedAt: snap.At.Add(-30 * time.Second)},
		{State: agent.CloudletRunning, SLA: agent.SLAMedium, DeadlineAt: &past},
		{State: agent.CloudletSucceeded, SLA: agent.SLAMedium, DeadlineAt: &past},
	}
	m, _ := open(snap)
	wantLines(t, scrape(m, ""),
		`cloudflash_cloudlets_queued{sla="low"} 1`,
		`cloudflash_cloudlets_queued{sla="high"} 0`,
		`cloudflash_cloudlet_queue_oldest_seconds 30`,
		`cloudflash_cloudlets_overdue{sla="medium"} 1`,
		`cloudflash_cloudlets_ended_total{state="failed",reason="oom"} 2`,
		`cloudflash_cloudlets_ended_total{state="lost",reason="vm_lost"} 0`,
		`cloudflash_cloudlet_deadlines_total{sla="high",outcome="missed"} 5`,
		`cloudflash_events_total{kind="vm.created"} 3`,
		`cloudflash_idle_vms_deleted_total 2`,
		`cloudflash_store_failures_total 4`,
		`cloudflash_cloudlet_waiting_seconds_bucket{sla="low",le="0.01"} 6`,
		`cloudflash_cloudlet_waiting_seconds_bucket{sla="low",le="1.0"} 7`,
		`cloudflash_cloudlet_waiting_seconds_bucket{sla="low",le="+Inf"} 7`,
		`cloudflash_cloudlet_waiting_seconds_sum{sla="low"} 7.5`,
		`cloudflash_cloudlet_waiting_seconds_count{sla="low"} 7`,
		`cloudflash_autoscale_decisions_total{resource="cpus",action="grow",result="applied"} 3`,
		`cloudflash_autoscale_decisions_total{resource="wiops",action="drift",result="noticed"} 0`,
		`cloudflash_autoscale_kernel_seconds_bucket{le="0.01"} 0`,
		`cloudflash_autoscale_kernel_seconds_bucket{le="0.05"} 2`,
		`cloudflash_autoscale_kernel_seconds_bucket{le="10.0"} 2`,
		`cloudflash_autoscale_kernel_seconds_bucket{le="+Inf"} 3`,
		`cloudflash_autoscale_kernel_seconds_sum 20.25`,
		`cloudflash_autoscale_kernel_seconds_count 3`)
}

func TestSeriesOfADeletedVMVanish(t *testing.T) {
	m, from := open(withVMs(2))
	if !strings.Contains(scrape(m, ""), `vm="id00000001"`) {
		t.Fatal("the second VM is missing")
	}
	from.snap = withVMs(1)
	if strings.Contains(scrape(m, ""), `vm="id00000001"`) {
		t.Error("the second VM is still there")
	}
}

func TestWithoutPages(t *testing.T) {
	snap := withVMs(1)
	snap.Memory.Map, snap.Memory.FragmentationRatio, snap.Memory.Zones = nil, nil, nil
	m, from := open(snap)
	text := scrape(m, "")
	if strings.Contains(text, "cloudflash_leftover_pages") || strings.Contains(text, "cloudflash_vm_pages") || strings.Contains(text, "fragmentation_ratio") {
		t.Error("what is not known has series")
	}
	from.snap.Memory.Scan.State = "unavailable"
	wantLines(t, scrape(m, ""), `cloudflash_collector_success{collector="pagemap"} 0`)
	from.snap.Memory = nil
	if text := scrape(m, ""); strings.Contains(text, "cloudflash_host_pages") || !strings.Contains(text, "cloudflash_vms ") {
		t.Error("without numbers of pages only these are missing")
	}
}

// TestRulesAndDashboardAskForWhatThereIs keeps the monitoring stack's names ours.
func TestRulesAndDashboardAskForWhatThereIs(t *testing.T) {
	m, _ := open(withVMs(1))
	if err := m.Textfile(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	m.Observe("GET", "/metrics", 200, time.Millisecond)
	page := scrape(m, "") + scrape(m, "") // what is counted of the first is in the second
	files, err := filepath.Glob("../../scripts/monitoring/*/*.*")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	known, names := map[string]bool{}, regexp.MustCompile(`cloudflash_[a-z0-9_]+`)
	for _, name := range names.FindAllString(page, -1) {
		known[name] = true
	}
	known["cloudflash_textfile_error"] = true // of files, and there are none
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names.FindAllString(string(text), -1) {
			if !known[name] {
				t.Errorf("%s: there is no %s", file, name)
			}
		}
	}
}

func TestNoSnapshotYet(t *testing.T) {
	m, _ := open(nil)
	if text := scrape(m, ""); !strings.Contains(text, "cloudflash_build_info") || strings.Contains(text, "cloudflash_vms ") {
		t.Error("before the first snapshot only the build is known")
	}
}

func TestAVMKeepsToItsBudgetOfSeries(t *testing.T) {
	m, _ := open(withVMs(1))
	n := strings.Count(scrape(m, ""), `vm="id00000000"`)
	if n > vmBudget || n < vmBudget*3/4 {
		t.Errorf("a VM has %d series, the budget is %d", n, vmBudget)
	}
	t.Logf("%d series", n)
}

func TestNamesFollowThePrometheusRules(t *testing.T) {
	m, _ := open(withVMs(1))
	if err := m.Textfile(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(strings.NewReader(scrape(m, ""))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestHelpNamesASourceAndNoNameIsTwice(t *testing.T) {
	seen := map[string]bool{}
	for _, h := range heads() {
		family := strings.TrimSuffix(h.name, "_total") // what OpenMetrics calls it
		if seen[family] {
			t.Errorf("%s is there twice", family)
		}
		seen[family] = true
		if len(h.help) < 15 || !strings.HasSuffix(h.help, ".") {
			t.Errorf("%s: help %q", h.name, h.help)
		}
		if (h.kind == counterKind) != strings.HasSuffix(h.name, "_total") {
			t.Errorf("%s is a %s", h.name, h.kind)
		}
	}
}

func TestOpenMetricsSaysUnitsAndEnds(t *testing.T) {
	m, _ := open(withVMs(2))
	m.Observe("GET", "/metrics", 200, time.Millisecond)
	text := scrape(m, openMetricsAccept)
	wantLines(t, text,
		"# TYPE cloudflash_vm_cpu_seconds counter",
		"# UNIT cloudflash_vm_cpu_seconds seconds",
		"# UNIT cloudflash_vm_network_limit_bytes_per_second bytes_per_second",
		"# UNIT cloudflash_http_request_duration_seconds seconds",
		"# TYPE cloudflash_cloudlet_waiting_seconds histogram")
	if !strings.HasSuffix(text, "\n# EOF\n") || strings.Count(text, "# EOF") != 1 {
		t.Error("the page does not end as it should")
	}
	for _, accept := range []string{"", "*/*", "text/plain", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,text/plain;q=0.5"} {
		if strings.Contains(scrape(m, accept), "# EOF") {
			t.Errorf("Accept: %s is answered in OpenMetrics", accept)
		}
	}
}

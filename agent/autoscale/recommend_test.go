package autoscale_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestHistogramPercentiles(t *testing.T) {
	at := time.Unix(1e9, 0)
	h := autoscale.NewHistogram(autoscale.CPU, 24*time.Hour)
	if h.Percentile(0.9) != 0 || h.Mean() != 0 {
		t.Error("an empty one knows something")
	}
	for i := range 100 {
		h.Add(at, float64(i+1)/100, 1)
	}
	for _, p := range []float64{0.5, 0.9, 0.95, 1} {
		if got := h.Percentile(p); got < p || got > p*1.051+0.01 {
			t.Errorf("p%v = %v", 100*p, got)
		}
	}
	h.Add(at, math.NaN(), 1)
	h.Add(at, -1, 1)
	h.Add(at, 1, math.Inf(1))
	if got := h.Mean(); !near(got, 0.505, 1e-6) {
		t.Errorf("mean = %v", got)
	}
}

func TestHistogramForgetsByHalf(t *testing.T) {
	at := time.Unix(1e9, 0)
	h := autoscale.NewHistogram(autoscale.CPU, time.Hour)
	for range 100 {
		h.Add(at, 4, 1)
	}
	for range 100 {
		h.Add(at.Add(3*time.Hour), 1, 1)
	}
	if got := h.Above(2); !near(got, 1.0/9, 1e-6) {
		t.Errorf("share of what is three half-lives old = %v, want a ninth", got)
	}
	h.Add(at.Add(1000*time.Hour), 1, 1)
	if got := h.Above(2); got > 1e-9 || math.IsNaN(h.Percentile(0.5)) {
		t.Errorf("a thousand half-lives later: %v, p50 %v", got, h.Percentile(0.5))
	}
}

func TestHistogramIsSavedAndMerged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := autoscale.NewHistogram(autoscale.Memory, time.Hour), autoscale.NewHistogram(autoscale.Memory, 2*time.Hour)
		for i, v := range rapid.SliceOf(rapid.Float64Range(0, 1e12)).Draw(t, "values") {
			at := time.Unix(1e9, 0).UTC().Add(time.Duration(i) * time.Minute)
			a.Add(at, v, 1)
			b.Add(at, v, 1)
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back autoscale.Histogram
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		for _, p := range []float64{0.5, 0.9, 1} {
			if got, want := back.Percentile(p), a.Percentile(p); got != want {
				t.Fatalf("p%v = %v after saving, %v before", p, got, want)
			}
		}
		a.Merge(b)
		if got, most := a.Percentile(1), max(b.Percentile(1), back.Percentile(1)); got != most {
			t.Fatalf("merged p100 = %v, want %v", got, most)
		}
	})
	var h autoscale.Histogram
	for _, text := range []string{`{}`, `{"resource":"cpus","half_life":1000000000,"weights":[-1]}`, `{"resource":"cores"}`, `[]`} {
		if json.Unmarshal([]byte(text), &h) == nil {
			t.Errorf("%s is a histogram", text)
		}
	}
}

func TestRecommendation(t *testing.T) {
	spec := autoscale.Limits{autoscale.CPU: 8, autoscale.Memory: 8 << 30}
	known := [autoscale.Resources]bool{autoscale.CPU: true, autoscale.Memory: true}
	born := time.Unix(1e9, 0)
	p := autoscale.NewProfile(born)
	at := born
	use := func(d time.Duration) {
		for range int(d / time.Minute) {
			at = at.Add(time.Minute)
			p.Add(at, time.Minute, autoscale.Limits{autoscale.CPU: 1, autoscale.Memory: 1 << 30}, known)
		}
	}
	use(10 * time.Minute)
	early := p.Recommend(spec, policy(spec))
	use(24 * time.Hour)
	late := p.Recommend(spec, policy(spec))
	if len(late) != 2 || late[0].Resource != autoscale.CPU || late[1].Resource != autoscale.Memory {
		t.Fatalf("got %+v", late)
	}
	if c := late[0]; c.Confidence < 0.99 || c.Target != 2 || !near(c.Uncapped, 1.15, 0.06) || c.Saves != 6 || !c.Changes() || !strings.Contains(c.Reason, "bounds") {
		t.Errorf("late: %+v", c)
	}
	if c := early[0]; c.Confidence > 0.01 || c.Changes() || !strings.Contains(c.Reason, "little is known") {
		t.Errorf("early: %+v", c)
	}
	for _, r := range late {
		if r.Lower > r.Target || r.Target > r.Upper {
			t.Errorf("out of order: %+v", r)
		}
	}
	p.OOM(at, 7<<30)
	if got := p.Recommend(spec, policy(spec))[1]; got.Target < late[1].Target {
		t.Errorf("after a kill: %+v", got)
	}
}

func TestFindings(t *testing.T) {
	sure := func(r autoscale.Resource, spec, target float64) autoscale.Recommendation {
		return autoscale.Recommendation{Resource: r, Spec: spec, Target: target, Saves: spec - target, Confidence: 1, Reason: "seen"}
	}
	limits := autoscale.Limits{autoscale.CPU: 4, autoscale.Memory: 4 << 30}
	busy := autoscale.Machine{Cores: 4, Busy: 0.99, Fragmentation: -1}
	for name, c := range map[string]struct {
		all  []autoscale.State
		host autoscale.Machine
		want []autoscale.Kind
	}{
		"nothing to say": {[]autoscale.State{{VM: "a", Limits: limits, CPUs: 2}}, busy, nil},
		"throttled by its own limit, nobody else is blamed": {[]autoscale.State{{VM: "a", Limits: limits, CPUs: 1, Throttled: 0.8, CPUWaiting: 0.9, PressureKnown: true}, {VM: "b", CPUs: 3}}, busy,
			[]autoscale.Kind{autoscale.Throttled}},
		"waits for cores that another has": {[]autoscale.State{{VM: "a", Limits: limits, CPUs: 0.5, CPUWaiting: 0.4, PressureKnown: true}, {VM: "b", CPUs: 3}}, busy,
			[]autoscale.Kind{autoscale.NoisyNeighbour}},
		"waits, but the host has cores":  {[]autoscale.State{{VM: "a", Limits: limits, CPUs: 0.5, CPUWaiting: 0.4, PressureKnown: true}, {VM: "b", CPUs: 1}}, autoscale.Machine{Cores: 4, Busy: 0.5}, nil},
		"waits, and pressure is unknown": {[]autoscale.State{{VM: "a", CPUs: 0.5, CPUWaiting: 0.4}, {VM: "b", CPUs: 3}}, busy, nil},
		"twice what it needs":            {[]autoscale.State{{VM: "a", Limits: limits, Advice: []autoscale.Recommendation{sure(autoscale.CPU, 4, 1)}}}, busy, []autoscale.Kind{autoscale.OverProvisioned}},
		"swaps":                          {[]autoscale.State{{VM: "a", SwapBytes: 1e9, SwapGrowth: 1e6, MemoryWaiting: 0.2}}, busy, []autoscale.Kind{autoscale.Swapping}},
		"has old pages in swap":          {[]autoscale.State{{VM: "a", SwapBytes: 1e9}}, busy, nil},
		"near its limit":                 {[]autoscale.State{{VM: "a", Limits: limits, MemoryBytes: 4 << 30}}, busy, []autoscale.Kind{autoscale.NearOOM}},
		"idle":                           {[]autoscale.State{{VM: "a", IdleFor: time.Minute}}, busy, []autoscale.Kind{autoscale.Idle}},
		"fragmented":                     {nil, autoscale.Machine{FreeBytes: 1e9, Fragmentation: 0.9}, []autoscale.Kind{autoscale.Fragmented}},
		"two that fit one, each once": {[]autoscale.State{
			{VM: "a", Limits: limits, Advice: []autoscale.Recommendation{sure(autoscale.CPU, 4, 2.5), sure(autoscale.Memory, 4<<30, 2.5*(1<<30))}},
			{VM: "b", Limits: limits, Advice: []autoscale.Recommendation{sure(autoscale.CPU, 2, 1.2), sure(autoscale.Memory, 2<<30, 1.2*(1<<30))}},
			{VM: "c", Limits: limits, Advice: []autoscale.Recommendation{sure(autoscale.CPU, 2, 1.2), sure(autoscale.Memory, 2<<30, 1.2*(1<<30))}},
		}, busy, []autoscale.Kind{autoscale.FitsTogether}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []autoscale.Kind
			for _, f := range autoscale.Findings(c.all, c.host) {
				got = append(got, f.Kind)
				if f.Text == "" || len(f.Evidence) == 0 {
					t.Errorf("says too little: %+v", f)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

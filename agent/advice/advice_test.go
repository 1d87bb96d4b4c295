package advice

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
	"cloudflash/agent/state/statetest"
	"cloudflash/agent/store"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var everything = func() (known [autoscale.Resources]bool) {
	for r := range known {
		known[r] = true
	}
	return known
}()

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// rig is an advisor without an agent.
type rig struct {
	*Advisor
	disk    *store.Store
	idle    map[string]time.Duration
	machine autoscale.Machine
}

func advising(t testing.TB, names ...string) *rig {
	t.Helper()
	db, disk := statetest.Open(t, t.TempDir())
	r := &rig{disk: disk, idle: map[string]time.Duration{}, machine: autoscale.Machine{Cores: 2, Fragmentation: -1}}
	r.Advisor = New(Config{
		Log:      slog.New(slog.DiscardHandler),
		Store:    disk,
		State:    db,
		After:    ShortestSpan,
		Rules:    func() *policy.Host { return &rules },
		Room:     func() autoscale.Limits { return autoscale.Limits{8, float64(64 * gib), float64(1024 * gib)} },
		Now:      r.now,
		Machine:  func() autoscale.Machine { return r.machine },
		Pressure: func() bool { return true },
	})
	for _, name := range names {
		r.put(t, state.VM{
			ID:    name + "-id",
			Name:  name,
			State: state.VMRunning,
			Spec:  state.Spec{CPUs: 2, MemoryBytes: 4 * gib, StorageBytes: 10 * gib, BandwidthBPS: 100e6, PIDs: 100},
		})
	}
	return r
}

var rules = policy.Host{
	Mode: "auto",
	CPUs: 2,
	Ranges: policy.Ranges{
		CPUs:         policy.Range[float64]{Min: 0.1, Max: 32},
		MemoryBytes:  policy.Range[int64]{Min: 32 * mib, Max: 256 * gib},
		StorageBytes: policy.Range[int64]{Min: 64 * mib, Max: 10240 * gib},
		BandwidthBPS: policy.Range[int64]{Min: 1e6, Max: 10e9},
	},
}

func (r *rig) now(id string) (Now, bool) {
	return Now{IdleFor: r.idle[id]}, true
}

func (r *rig) put(t testing.TB, v state.VM) {
	t.Helper()
	statetest.Change(t, r.cfg.State, func(tx *state.Tx) { tx.PutVM(v) })
}

func (r *rig) edit(t testing.TB, id string, change func(*state.VM)) {
	t.Helper()
	v := *r.cfg.State.View().VM(id)
	change(&v)
	r.put(t, v)
}

// label makes a VM one of a template.
func (r *rig) label(t testing.TB, id, template string) {
	t.Helper()
	r.edit(t, id, func(v *state.VM) { v.Labels = map[string]string{TemplateLabel: template} })
}

// use lets a VM use so many cores for so long, seen every second, or every minute when
// that is days.
func (a *rig) use(id, template string, from time.Time, d time.Duration, cores float64) time.Time {
	step := time.Second
	if d > 2*time.Hour {
		step = 10 * time.Second
	}
	a.Look(id, template, &state.Usage{At: from})
	for at := from.Add(step); !at.After(from.Add(d)); at = at.Add(step) {
		a.Add(id, at, step, autoscale.Limits{cores, float64(gib), float64(gib), 1e6}, everything)
	}
	return from.Add(d)
}

func (a *rig) adviceOf(t testing.TB, ref string) Advice {
	t.Helper()
	all, err := a.For(ref)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return all[0]
}

func (v Advice) about(resource string) Recommendation {
	i := slices.IndexFunc(v.Recommendations, func(r Recommendation) bool { return r.Resource == resource })
	if i < 0 {
		return Recommendation{}
	}
	return v.Recommendations[i]
}

func (v Advice) kinds() (kinds []string) {
	for _, f := range v.Findings {
		kinds = append(kinds, f.Kind)
	}
	return kinds
}

func TestLittleIsKnownAtFirst(t *testing.T) {
	a := advising(t, "web", "db")
	if got := a.adviceOf(t, "web"); len(got.Recommendations) != 0 || got.HistorySeconds != 0 {
		t.Errorf("of a VM that was never seen: %+v", got)
	}
	a.edit(t, "db-id", func(r *state.VM) { r.Spec.BandwidthBPS = 10e9 })
	a.use("db-id", "", time.Now().Add(-time.Hour), 10*time.Second, 0.001)
	for _, r := range a.adviceOf(t, "db").Recommendations {
		if r.Worth {
			t.Errorf("after ten seconds of next to nothing, it is worth to take away: %+v", r)
		}
	}
	at := a.use("web-id", "", time.Now().Add(-time.Hour), 12*time.Minute, 0.3)
	early := a.adviceOf(t, "web")
	c := early.about("cpus")
	if len(early.Recommendations) != 4 || c.Worth || c.Confidence > 0.01 || !strings.HasPrefix(c.Reason, "little is known yet: 11m of history; so far, ") || c.Target != 0.5 {
		t.Errorf("after 12 minutes: %+v", c)
	}
	if early.HistorySeconds < 700 || early.HistorySeconds > 720 {
		t.Errorf("%v s of history", early.HistorySeconds)
	}
	a.use("web-id", "", at, 24*time.Hour, 0.3)
	c = a.adviceOf(t, "web-id").about("cpus")
	if !c.Worth || c.Confidence < 0.99 || c.Target != 0.5 || c.Saves != 1.5 || c.Uncapped > 0.4 || strings.Contains(c.Reason, "little") {
		t.Errorf("a day later: %+v", c)
	}
	if kinds := a.adviceOf(t, "web").kinds(); !slices.Equal(kinds, []string{"over-provisioned", "over-provisioned", "over-provisioned", "over-provisioned"}) {
		t.Errorf("found %q", kinds)
	}
}

// A gap of which nobody knows what was used in it is no history.
func TestGapsAreNoHistory(t *testing.T) {
	a := advising(t, "web")
	from := time.Now().Add(-1000 * time.Hour)
	a.use("web-id", "", from, time.Minute, 0.3)
	a.Add("web-id", from.Add(999*time.Hour), 998*time.Hour, autoscale.Limits{8}, everything) // asleep
	a.use("web-id", "", from.Add(999*time.Hour), time.Minute, 0.3)
	if got := a.adviceOf(t, "web"); got.HistorySeconds > 121 || got.about("cpus").Confidence > 0.01 || got.about("memory_bytes").Confidence > 0.01 || got.about("cpus").Upper < 1 {
		t.Errorf("%+v", got)
	}
}

func TestATemplateStartsWarm(t *testing.T) {
	a := advising(t, "web", "other")
	from := time.Now().Add(-30 * time.Hour)
	a.use("gone-id", "nginx", from, 25*time.Hour, 0.3)
	a.Forget("gone-id")
	a.Add("gone-id", time.Now(), time.Second, autoscale.Limits{5}, everything) // who looked has not heard yet
	a.label(t, "web-id", "nginx")
	a.use("web-id", "nginx", from.Add(26*time.Hour), time.Minute, 0.3)
	a.use("other-id", "", from.Add(26*time.Hour), time.Minute, 0.3)
	warm, cold := a.adviceOf(t, "web"), a.adviceOf(t, "other")
	if c := warm.about("cpus"); !c.Worth || c.Target != 0.5 || warm.Template != "nginx" || warm.HistorySeconds < 24*3600 {
		t.Errorf("warm: %+v", warm)
	}
	if c := cold.about("cpus"); c.Worth || cold.HistorySeconds > 60 {
		t.Errorf("cold: %+v", cold)
	}
	if len(a.vms) != 2 {
		t.Errorf("%d VMs are remembered", len(a.vms))
	}
}

func TestTemplatesAreBounded(t *testing.T) {
	a := advising(t)
	from := time.Now().Add(-time.Hour)
	for i := range mostTemplates + 10 {
		id := fmt.Sprint("vm", i)
		a.use(id, fmt.Sprint("t", i), from, 2*time.Second, 1)
		a.Forget(id)
		a.templates[fmt.Sprint("t", i)].used = from.Add(time.Duration(i) * time.Second)
	}
	if n := len(a.templates); n != mostTemplates {
		t.Errorf("%d templates", n)
	}
	if a.templates["t0"] != nil || a.templates["t300"] != nil || a.templates["t265"] == nil {
		t.Error("not those used longest ago were forgotten")
	}
	a.save()
	if all, err := a.disk.Raw(store.Profiles); err != nil || len(all) != mostTemplates {
		t.Errorf("%d stored, %v", len(all), err)
	}
}

// restart is the advisor after one that was killed now.
func (a *rig) restart() *rig {
	b := &rig{Advisor: New(a.cfg), disk: a.disk}
	b.Load()
	return b
}

func TestProfilesSurviveARestart(t *testing.T) {
	a := advising(t, "web", "gone")
	now := time.Now()
	a.use("web-id", "nginx", now.Add(-2*time.Hour), time.Hour, 0.7)
	a.use("gone-id", "nginx", now.Add(-2*time.Hour), time.Hour, 1.5)
	a.label(t, "web-id", "nginx")
	a.save()
	before := a.adviceOf(t, "web")
	if diff := cmp.Diff(before, a.restart().adviceOf(t, "web")); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}

	// One deleted and killed before that was saved: its use goes to the template once.
	statetest.Change(t, a.cfg.State, func(tx *state.Tx) { tx.DeleteVM("gone-id") })
	b := a.restart()
	if b.vms["gone-id"] != nil || b.templates["nginx"] == nil {
		t.Fatal("a deleted VM is remembered")
	}
	a.Forget("gone-id")
	want := a.adviceOf(t, "web")
	if diff := cmp.Diff(want, b.adviceOf(t, "web")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.save()
	for range 3 {
		b = b.restart()
		if diff := cmp.Diff(want.HistorySeconds, b.adviceOf(t, "web").HistorySeconds); diff != "" {
			t.Errorf("counted again (-want +got):\n%s", diff)
		}
	}
	all, err := b.disk.Raw(store.Profiles)
	if err != nil || len(all) != 2 || all["vm/web-id"] == nil || all["template/nginx"] == nil {
		t.Errorf("%d stored, %v", len(all), err)
	}
}

func TestNothingNewIsNotSaved(t *testing.T) {
	a := advising(t, "web")
	a.use("web-id", "", time.Now().Add(-time.Hour), time.Minute, 0.7)
	a.save()
	if records, gone := a.takeUnsaved(); len(records)+len(gone) != 0 {
		t.Errorf("%d records, %d to delete", len(records), len(gone))
	}
	a.Look("web-id", "", &state.Usage{At: time.Now()})
	if records, _ := a.takeUnsaved(); len(records) != 0 {
		t.Error("a look is worth a record")
	}
	// What cannot be saved is tried again.
	a.use("web-id", "", time.Now(), time.Second, 0.7)
	a.Forget("other")
	a.use("gone-id", "x", time.Now(), time.Second, 0.7)
	a.Forget("gone-id")
	_ = a.disk.Close()
	a.save()
	if records, gone := a.takeUnsaved(); len(records) != 2 || len(gone) != 1 {
		t.Errorf("%d records, %q to delete", len(records), gone)
	}
}

func storedProfile(t testing.TB, id string) []byte {
	a := advising(t)
	a.use(id, "", time.Unix(1e9, 0), 10*time.Minute, 1)
	records, _ := a.takeUnsaved()
	b, err := json.Marshal(records[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSpoiltProfilesAreDropped(t *testing.T) {
	a := advising(t, "web", "db", "old", "whole")
	var log bytes.Buffer
	a.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	whole := string(storedProfile(t, "whole-id"))
	raw := func(s string) store.Change { return store.Put(store.Profiles, "", json.RawMessage(s)) }
	spoilt := map[string]string{
		"vm/web-id":  `{"version":1,"vm":"web-id","used":"2026-01-01T00:00:00Z","profile":{"use":[null],"born":"2026-01-01T00:00:00Z"}}`,
		"vm/db-id":   whole, // of another VM
		"vm/old-id":  strings.Replace(strings.Replace(whole, `"version":1`, `"version":0`, 1), "whole-id", "old-id", 1),
		"template/a": `[]`,
		"template/b": `{"version":1,"template":"b"}`,
		"x":          `{}`,
	}
	for key, text := range spoilt {
		c := raw(text)
		c.Key = key
		if err := a.disk.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	c := raw(whole)
	c.Key = "vm/whole-id"
	if err := a.disk.Commit(c); err != nil {
		t.Fatal(err)
	}
	a.Load()
	if len(a.vms) != 1 || len(a.templates) != 0 || a.adviceOf(t, "whole").HistorySeconds == 0 {
		t.Errorf("%v, %v", a.vms, a.templates)
	}
	if n := strings.Count(log.String(), "drop profile"); n != len(spoilt) {
		t.Errorf("%d warnings, want %d:\n%s", n, len(spoilt), log.String())
	}
	a.save()
	if all, err := a.disk.Raw(store.Profiles); err != nil || len(all) != 1 {
		t.Errorf("%d are still stored, %v", len(all), err)
	}
}

// FuzzParseProfile reads anything: what is taken for a profile can be used and stored.
func FuzzParseProfile(f *testing.F) {
	f.Add(storedProfile(f, "a"))
	f.Add([]byte(`{"version":1,"vm":"a","profile":{"use":[],"born":"2026-01-01T00:00:00Z","seen":1}}`))
	f.Add([]byte(strings.Replace(string(storedProfile(f, "a")), `"peak":`, `"peak":1e308,"x":`, 1)))
	f.Add([]byte(strings.Replace(string(storedProfile(f, "a")), `"sum":`, `"sum":1e308,"x":`, -1)))
	f.Add([]byte(strings.Replace(string(storedProfile(f, "a")), `"weights":[`, `"weights":[3e38,3e38,`, -1)))
	f.Add([]byte(strings.Replace(string(storedProfile(f, "a")), `"half_life":`, `"half_life":9223372036854775807,"x":`, -1)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseProfile("vm/a", raw)
		if err != nil {
			return
		}
		p := clone(r.Profile)
		p.Add(time.Now(), time.Second, autoscale.Limits{1, 1, 1, 1, 1, 1, 1, 1}, everything)
		p.Merge(r.Profile)
		spec := autoscale.Limits{1, 1e9, 1e9, 1e6, 1e6, 1e6, 100, 100}
		for _, rec := range p.Recommend(spec, autoscale.Default(spec, autoscale.Limits{}, autoscale.Limits{})) {
			if math.IsNaN(rec.Target) || rec.Target < 0 || rec.Lower > rec.Target*1.000001 || rec.Confidence < 0 || rec.Confidence > 1 {
				t.Errorf("%+v", rec)
			}
		}
		if _, err := json.Marshal(p); err != nil {
			t.Errorf("cannot be stored again: %v", err)
		}
	})
}

func TestRounding(t *testing.T) {
	for _, c := range []struct {
		r       autoscale.Resource
		v, want float64
	}{{autoscale.CPU, 0.3512, 0.36}, {autoscale.CPU, 0.07, 0.07}, {autoscale.CPU, 2, 2}, {autoscale.Memory, 1, float64(mib)}, {autoscale.Memory, float64(mib) + 1, 2 * float64(mib)},
		{autoscale.Storage, 5 * float64(gib), 5 * float64(gib)}, {autoscale.Bandwidth, 1234567, 1235000}, {autoscale.ReadBPS, 0.2, 1024}, {autoscale.WriteIOPS, 0, 1}, {autoscale.ReadIOPS, 99.5, 100}} {
		if got := rounded(c.r, c.v, autoscale.Rule{}); got != c.want {
			t.Errorf("%v %v becomes %v, want %v", c.r, c.v, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		r := autoscale.Resource(rapid.IntRange(0, int(autoscale.Resources)-1).Draw(t, "resource"))
		low := rapid.Float64Range(1, 1e12).Draw(t, "min")
		rule := autoscale.Rule{Min: low, Max: low * rapid.Float64Range(1, 20).Draw(t, "times")}
		v := rapid.Float64Range(rule.Min, rule.Max).Draw(t, "v")
		got := rounded(r, v, rule)
		// The agent takes whole bytes and operations; less than one of them out of bounds is not refused for it.
		if got < rule.Min-1 || got > rule.Max || got <= 0 {
			t.Fatalf("%v %v becomes %v, out of %v to %v", r, v, got, rule.Min, rule.Max)
		}
		var s state.Spec
		s.Set(r.String(), got)
		if back := policy.Amounts(s)[r]; back != got {
			t.Fatalf("%v of %v cannot be asked for, only %v", got, r, back)
		}
	})
}

func drawSpec(t *rapid.T, name string) state.Spec {
	n := func(what string) int64 { return rapid.Int64Range(0, 3).Draw(t, name+what) }
	return state.Spec{CPUs: float64(n("cpus")), MemoryBytes: n("memory"), StorageBytes: n("storage"), BandwidthBPS: n("bandwidth"),
		IO: state.IO{ReadBPS: n("rbps"), WriteBPS: n("wbps"), ReadIOPS: n("riops"), WriteIOPS: n("wiops")}, PIDs: 7}
}

// What is undone is what was taken, whatever else has been changed meanwhile.
func TestAdviceIsUndoneFieldByField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := drawSpec(t, "from"), drawSpec(t, "to")
		v := advised{spec: to, taken: &state.AppliedAdvice{From: from, To: to}}
		if v.undoable() == nil {
			t.Fatalf("cannot be undone: %q", changedSince(to, v.taken))
		}
		if back, err := Undo(&state.VM{Spec: to, Advice: v.taken}); err != nil || policy.Amounts(back) != policy.Amounts(from) {
			t.Fatalf("undone it is %+v, not %+v: %v", back, from, err)
		}
		r := autoscale.Resource(rapid.IntRange(0, int(autoscale.Resources)-1).Draw(t, "resource"))
		v.spec.Set(r.String(), 9)
		taken := slices.Contains(differing(from, to), r)
		if undoable := v.undoable() != nil; undoable == taken {
			t.Fatalf("%v of %v was changed by hand, and it can be undone: %v", r, differing(from, to), undoable)
		}
	})
}

func TestWhatIsChosen(t *testing.T) {
	v := &advised{name: "web"}
	recs := func() []autoscale.Recommendation {
		return []autoscale.Recommendation{
			{Resource: autoscale.CPU, Spec: 2, Lower: 0.3, Target: 0.5, Upper: 0.7, Saves: 1.5, Confidence: 1},
			{Resource: autoscale.Memory, Spec: 100, Lower: 50, Target: 60, Upper: 200, Saves: 40, Confidence: 0.1},
			{Resource: autoscale.Storage, Spec: 100, Lower: 50, Target: 100, Upper: 200, Confidence: 1}}
	}
	for name, c := range map[string]struct {
		names []string
		want  []autoscale.Resource
		says  string
	}{
		"worth it":        {nil, []autoscale.Resource{autoscale.CPU}, ""},
		"named":           {[]string{"memory_bytes"}, []autoscale.Resource{autoscale.Memory}, ""},
		"no change":       {[]string{"cpus", "storage_bytes"}, nil, "storage_bytes of VM \"web\" is what is advised"},
		"nothing is said": {[]string{"rbps"}, nil, "nothing is advised for rbps"},
	} {
		got, err := chosen(v, recs(), time.Hour, c.names)
		var all []autoscale.Resource
		for _, r := range got {
			all = append(all, r.Resource)
		}
		if !slices.Equal(all, c.want) || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v", name, all, err)
		}
	}
	if _, err := chosen(v, recs()[1:], 12*time.Minute, nil); err == nil || !strings.Contains(err.Error(), "12m of history") {
		t.Error(err)
	}
	if err := CheckResources([]string{"cpus", "cores"}); err == nil || !strings.Contains(err.Error(), `resources/1 is "cores", not one of cpus`) {
		t.Error(err)
	}
}

// marks shows the advisor two minutes of a VM's counters, growing by so much a second.
func (a *rig) marks(id string, u state.Usage) {
	from := time.Now().Add(-2 * time.Minute)
	for i := range 121 {
		s := float64(i)
		now := state.Usage{At: from.Add(time.Duration(i) * time.Second), CPUSeconds: u.CPUSeconds * s,
			Periods: u.Periods * int64(i), ThrottledPeriods: u.ThrottledPeriods * int64(i),
			CPUWaitingSeconds: u.CPUWaitingSeconds * s, MemoryWaitingSeconds: u.MemoryWaitingSeconds * s, Refaults: u.Refaults * int64(i),
			SwapBytes: u.SwapBytes, WorkingSetBytes: u.WorkingSetBytes, OOMKills: u.OOMKills}
		a.Look(id, "", &now)
		a.LookHost(now.At, 0.99)
	}
}

func TestWhatAilsVMs(t *testing.T) {
	cores := func(a *rig, share float64) float64 { return share * a.machine.Cores }
	for name, c := range map[string]struct {
		web, db func(a *rig) state.Usage
		idle    time.Duration
		want    []string
	}{
		"too young to tell": {nil, nil, 0, nil},
		"throttled by its own limit, and the busy neighbour is not blamed": {
			func(a *rig) state.Usage {
				return state.Usage{CPUSeconds: 0.1, Periods: 10, ThrottledPeriods: 8, CPUWaitingSeconds: 0.9}
			},
			func(a *rig) state.Usage { return state.Usage{CPUSeconds: cores(a, 0.9)} }, 0, []string{"throttled"}},
		"waits for cores that another has": {
			func(a *rig) state.Usage { return state.Usage{CPUSeconds: 0.1, Periods: 10, CPUWaitingSeconds: 0.5} },
			func(a *rig) state.Usage { return state.Usage{CPUSeconds: cores(a, 0.9)} }, 0, []string{"noisy-neighbour"}},
		"swaps": {func(a *rig) state.Usage {
			return state.Usage{SwapBytes: 1 << 30, Refaults: 100, MemoryWaitingSeconds: 0.3}
		}, nil, 0, []string{"swapping"}},
		"near its limit": {func(a *rig) state.Usage { return state.Usage{WorkingSetBytes: 4 * gib} }, nil, 0, []string{"near-oom"}},
		"idle": {func(a *rig) state.Usage { return state.Usage{CPUSeconds: 0.001} },
			nil, time.Hour, []string{"idle"}},
		"no cloudlet, but a shell is busy":  {func(a *rig) state.Usage { return state.Usage{CPUSeconds: 0.5} }, nil, time.Hour, nil},
		"no cloudlet for a moment is usual": {func(a *rig) state.Usage { return state.Usage{} }, nil, time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := advising(t, "web", "db")
			if c.web != nil {
				a.marks("web-id", c.web(a))
			}
			if c.db != nil {
				a.marks("db-id", c.db(a))
			}
			if c.idle > 0 {
				a.idle["web-id"] = c.idle
			}
			got := a.adviceOf(t, "web")
			if !slices.Equal(got.kinds(), c.want) {
				t.Errorf("found %+v, want %q", got.Findings, c.want)
			}
			if name == "waits for cores that another has" && (got.Findings[0].Other != "db-id" || got.Findings[0].OtherName != "db") {
				t.Errorf("blames %+v", got.Findings[0])
			}
		})
	}
}

func TestTwoVMsFitOne(t *testing.T) {
	a := advising(t, "web", "db")
	from := time.Now().Add(-25 * time.Hour)
	a.use("web-id", "", from, 24*time.Hour, 0.3)
	a.use("db-id", "", from, 24*time.Hour, 0.3)
	all, err := a.For("")
	if err != nil || len(all) != 2 || !slices.ContainsFunc(append(all[0].Findings, all[1].Findings...), func(f Finding) bool { return f.Kind == "fits-together" && f.OtherName != "" }) {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestAdviceForTheHost(t *testing.T) {
	a := advising(t, "web")
	if all, err := a.For(""); err != nil || len(all) != 1 {
		t.Errorf("there is nothing to say of the host: %+v, %v", all, err)
	}
	if got := a.adviceOf(t, "host"); got.VMName != "host" || got.VM != "" || len(got.Findings) != 0 {
		t.Errorf("%+v", got)
	}
	a.machine.Fragmentation, a.machine.FreeBytes, a.machine.LargestFree = 0.9, float64(gib), 1-0.9
	all, err := a.For("")
	if err != nil || len(all) != 2 || all[1].VMName != "host" || !slices.Equal(all[1].kinds(),
		[]string{"fragmented-host"}) || !strings.Contains(all[1].Findings[0].Text, "10.0 % of that in blocks") {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := a.For("zz"); err == nil {
		t.Error("advice for nobody")
	}
}

func TestRecentForgetsWhatIsOld(t *testing.T) {
	var r recent
	if _, ok := r.lately(ShortestSpan); ok {
		t.Error("nothing was seen")
	}
	at, cpu := time.Unix(1e9, 0), 0.0
	for i := range 1000 {
		at = at.Add(time.Second)
		cpu += map[bool]float64{true: 4, false: 1}[i < 600]
		r.add(mark{at: at, cpu: cpu})
		if _, ok := r.lately(ShortestSpan); ok != (i >= 60) {
			t.Fatalf("after %d s: known is %v", i, ok)
		}
	}
	if s, _ := r.lately(ShortestSpan); s.span < 285*time.Second || s.span > longestSpan || math.Abs(s.cpus-1) > 1e-9 {
		t.Errorf("%+v", s)
	}
	r.add(mark{at: at.Add(-time.Hour), cpu: cpu})
	if _, ok := r.lately(ShortestSpan); ok {
		t.Error("the clock was set back, and it knows what was")
	}
	r.add(mark{at: at.Add(time.Hour), cpu: cpu})
	if _, ok := r.lately(ShortestSpan); ok {
		t.Error("an hour without a look is known")
	}
}

// noisy makes VMs with as many different values as there may be.
func noisy(t testing.TB, vms int) *rig {
	var names []string
	for i := range vms {
		names = append(names, fmt.Sprint("vm", i))
	}
	a := advising(t, names...)
	rng := rand.New(rand.NewPCG(1, 2))
	around := func(m float64) float64 { return m * math.Exp(rng.NormFloat64()) }
	start := time.Now().Add(-24 * time.Hour)
	for _, name := range names {
		a.Look(name+"-id", "", &state.Usage{At: start})
		a.edit(t, name+"-id", func(r *state.VM) {
			r.Spec.IO = state.IO{ReadBPS: 1 << 20, WriteBPS: 1 << 20, ReadIOPS: 100, WriteIOPS: 100}
		})
		for i := range 4000 {
			a.Add(name+"-id", start.Add(time.Duration(i)*20*time.Second), 9*time.Second,
				autoscale.Limits{around(0.5), around(3e8), 5e9, around(1e6), around(1e6), around(1e6), around(100), around(100)}, everything)
		}
	}
	return a
}

func TestAProfileIsSmall(t *testing.T) {
	a := noisy(t, 1)
	records, _ := a.takeUnsaved()
	b, err := json.Marshal(records[0])
	if err != nil {
		t.Fatal(err)
	}
	quiet := storedProfile(t, "quiet")
	t.Logf("%d bytes with everything as noisy as can be, %d of a steady VM", len(b), len(quiet))
	if len(b) > 16<<10 || len(quiet) > 4<<10 {
		t.Error("too large")
	}
}

func TestASampleCostsNoMemory(t *testing.T) {
	a := noisy(t, 1)
	at := time.Now()
	u := state.Usage{At: at}
	if n := testing.AllocsPerRun(1000, func() {
		at = at.Add(time.Second)
		u.At = at
		a.Add("vm0-id", at, time.Second, autoscale.Limits{1, 1e9, 1e9, 1e6, 1e6, 1e6, 10, 10}, everything)
		a.Look("vm0-id", "", &u)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdvise1000(b *testing.B) {
	a := noisy(b, 1000)
	for b.Loop() {
		if all, err := a.For(""); err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkAdvisorAdd(b *testing.B) {
	a := noisy(b, 1)
	at := time.Now()
	for b.Loop() {
		at = at.Add(time.Second)
		a.Add("vm0-id", at, time.Second, autoscale.Limits{1, 1e9, 1e9, 1e6, 1e6, 1e6, 10, 10}, everything)
	}
}

func BenchmarkSave1000(b *testing.B) {
	a := noisy(b, 1000)
	for b.Loop() {
		a.save()
		for _, w := range a.vms {
			w.unsaved = true
		}
	}
}

// BenchmarkCopyProfile is how long samples wait for a save.
func BenchmarkCopyProfile(b *testing.B) {
	a := noisy(b, 1)
	for b.Loop() {
		a.takeVM("vm0-id")
	}
}

package replay

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Row is one policy on one set of traces.
type Row struct {
	Set    string
	Look   string // how often the policy looks
	Seed   uint64 // 0: nothing was drawn
	Memory bool
	OOMs   int
	High   float64 // slack of memory.high
	Summary
}

// A Set is traces that are replayed together.
type Set struct {
	Name   string
	Look   time.Duration // 0 is every step
	Seed   uint64
	Traces []Trace
	Memory bool
	With   []Policy // nil is Policies
}

// Rough gives a trace the unrest that its averages hide: each second its value
// times a factor of mean 1 that is drawn anew with a deviation of sd and lasts for a
// few seconds.
func Rough(t Trace, seed uint64, sd float64) Trace {
	rng := newRand(seed, t.Name)
	n := int(t.Step / time.Second)
	rough := Trace{Name: t.Name, Step: time.Second, Cap: t.Cap, Demand: make([]float64, 0, n*len(t.Demand))}
	unrest, keep := 0.0, 0.8 // the last second counts for 0.8 of the next
	for _, d := range t.Demand {
		for range n {
			unrest = keep*unrest + math.Sqrt(1-keep*keep)*rng.NormFloat64()
			rough.Demand = append(rough.Demand, min(max(d*(1+sd*unrest), 0), t.Cap))
		}
	}
	return rough
}

// RecordedSets are the sets made of recorded traces. The full ones are as the aims
// have them; halves and every other VM show that no half was fitted to. Looking
// every second takes long: some VMs and days do.
func RecordedSets(rec Recorded, seed uint64) []Set {
	var even, odd []Trace
	for i, t := range rec.PlanetLab {
		if i%2 == 0 {
			even = append(even, t)
		} else {
			odd = append(odd, t)
		}
	}
	some := func(n int) (all []Trace) {
		for i := 0; i < len(rec.PlanetLab); i += max(len(rec.PlanetLab)/n, 1) {
			all = append(all, rec.PlanetLab[i])
		}
		return all
	}
	fast := rec.Alibaba
	fast.Step = time.Second
	day := rec.Alibaba.Part(0.25, 0.375, "Alibaba, one day")
	var roughs []Trace
	for _, t := range some(12) {
		roughs = append(roughs, Rough(t, seed, 0.3))
	}
	return []Set{
		{Name: "Alibaba c_29247", Traces: []Trace{rec.Alibaba}},
		{Name: "Alibaba, first half", Traces: []Trace{rec.Alibaba.Part(0, 0.5, "first half")}},
		{Name: "Alibaba, second half", Traces: []Trace{rec.Alibaba.Part(0.5, 1, "second half")}},
		{Name: "Alibaba, a minute made a second", Traces: []Trace{fast}},
		{Name: "Alibaba, one day", Look: time.Second, Traces: []Trace{day}},
		{Name: "Alibaba, one day, 30 % unrest", Look: time.Second, Seed: seed, Traces: []Trace{Rough(day, seed, 0.3)}},
		{Name: "PlanetLab", Traces: rec.PlanetLab},
		{Name: "PlanetLab, even VMs", Traces: even},
		{Name: "PlanetLab, odd VMs", Traces: odd},
		{Name: "PlanetLab, some VMs", Look: time.Second, Traces: some(48)},
		{Name: "PlanetLab, some VMs, 30 % unrest", Look: time.Second, Seed: seed, Traces: roughs},
		{Name: "Alibaba, other constants", Traces: []Trace{rec.Alibaba}, With: Variants()},
		{Name: "PlanetLab, other constants", Traces: rec.PlanetLab, With: Variants()},
		{Name: "PlanetLab, some VMs, other constants", Look: time.Second, Traces: some(12), With: Variants()},
		{Name: "Bitbrains VM", Traces: []Trace{rec.Bitbrains}},
		{Name: "Bitbrains VM, memory", Traces: []Trace{rec.BitbrainsRAM}, Memory: true},
		{Name: "Bitbrains VM, memory, six days", Look: time.Second, Traces: []Trace{rec.BitbrainsRAM.Part(0, 0.2, "six days")}, Memory: true},
	}
}

// SyntheticSets are the made-up ones, a set each.
func SyntheticSets(seed uint64) (all []Set) {
	for _, t := range Synthetic(seed) {
		all = append(all, Set{Name: "made up: " + t.Name, Seed: seed, Traces: []Trace{t}})
	}
	return all
}

// Rows replays a set with every policy.
func (s Set) Rows() (rows []Row) {
	look := "every step"
	if s.Look > 0 {
		look = "every " + s.Look.String()
	}
	if !s.Memory {
		with := s.With
		if with == nil {
			with = Policies()
		}
		for _, p := range with {
			rows = append(rows, Row{Set: s.Name, Look: look, Seed: s.Seed, Summary: RunAll(s.Traces, s.Look, p)})
		}
		return rows
	}
	for _, p := range MemoryPolicies() {
		row := Row{Set: s.Name, Look: look, Seed: s.Seed, Memory: true, Summary: Summary{Policy: p.Name, VMs: len(s.Traces)}}
		n := float64(len(s.Traces))
		for _, t := range s.Traces {
			r := RunMemory(t, s.Look, p.New(t))
			row.Slack += r.Slack() / n
			row.High += r.HighSlack() / n
			row.OOMs += r.OOMs
			row.Throttled += r.SlowDown / r.Seconds / n
			row.PerHour += float64(r.Resizes) / r.Seconds * 3600 / n
		}
		rows = append(rows, row)
	}
	return rows
}

func pc(v float64, digits int) string { return strconv.FormatFloat(100*v, 'f', digits, 64) }

// WriteTable writes rows for people, a heading for each set.
func WriteTable(w io.Writer, rows []Row) error {
	set := ""
	for _, r := range rows {
		if r.Set+r.Look != set {
			set = r.Set + r.Look
			seed := ""
			if r.Seed != 0 {
				seed = fmt.Sprintf(", seed %d", r.Seed)
			}
			columns := fmt.Sprintf("%-24s %7s %7s %9s %9s %10s %9s %9s", "", "slack", "(p95)", "shortfall", "(p95)", "throttled", "resizes/h", "turns/h")
			if r.Memory {
				columns = fmt.Sprintf("%-24s %9s %9s %7s %10s %9s", "", "max slack", "high slack", "OOMs", "above high", "resizes/h")
			}
			if _, err := fmt.Fprintf(w, "\n%s: %d VMs, looked at %s%s\n%s\n", r.Set, r.VMs, r.Look, seed, columns); err != nil {
				return err
			}
		}
		line := fmt.Sprintf("%-24s %6s%% %6s%% %8s%% %8s%% %9s%% %9.2f %9.2f", r.Policy, pc(r.Slack, 1), pc(r.SlackP95, 1),
			pc(r.Shortfall, 3), pc(r.ShortfallP95, 3), pc(r.Throttled, 2), r.PerHour, r.Reversals)
		if r.Memory {
			line = fmt.Sprintf("%-24s %8s%% %9s%% %7d %9s%% %9.2f", r.Policy, pc(r.Slack, 1), pc(r.High, 1), r.OOMs, pc(r.Throttled, 2), r.PerHour)
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

// WriteCSV writes rows for programs; ratios are 0 to 1.
func WriteCSV(w io.Writer, rows []Row) error {
	out := csv.NewWriter(w)
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	_ = out.Write([]string{"set", "looked_at", "seed", "vms", "policy", "resource", "slack", "slack_p95", "high_slack", "shortfall", "shortfall_p95",
		"throttled", "resizes_per_hour", "turns_per_hour", "ooms"}) // Error has it
	for _, r := range rows {
		resource := "cpus"
		if r.Memory {
			resource = "memory_bytes"
		}
		_ = out.Write([]string{r.Set, r.Look, strconv.FormatUint(r.Seed, 10), strconv.Itoa(r.VMs), r.Policy, resource, number(r.Slack), number(r.SlackP95),
			number(r.High), number(r.Shortfall), number(r.ShortfallP95), number(r.Throttled), number(r.PerHour), number(r.Reversals), strconv.Itoa(r.OOMs)})
	}
	out.Flush()
	return out.Error()
}

// Front are the rows that no other of the set beats in both slack and shortfall;
// oracles do not count.
func Front(rows []Row) (front []Row) {
	for _, r := range rows {
		if strings.HasPrefix(r.Policy, "oracle") {
			continue
		}
		beaten := slices.ContainsFunc(rows, func(o Row) bool {
			return !strings.HasPrefix(o.Policy, "oracle") && o.Slack <= r.Slack && o.Shortfall <= r.Shortfall && (o.Slack < r.Slack || o.Shortfall < r.Shortfall)
		})
		if !beaten {
			front = append(front, r)
		}
	}
	slices.SortFunc(front, func(a, b Row) int { return cmp.Compare(a.Slack, b.Slack) })
	return front
}

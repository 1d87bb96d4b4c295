package metrics

import (
	"bytes"
	"maps"
	"slices"

	"cloudflash/agent"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// render puts a page together. The caller holds m.mu.
func (m *Metrics) render(openMetrics bool, size int) []byte {
	p := &page{b: make([]byte, 0, size+size/8+16<<10), openMetrics: openMetrics}
	one(p, buildFamilies, &m.build)
	collectors := map[string]agent.Collector{}
	if snap := m.source.Snapshot(); snap != nil {
		p.snapshot(snap)
		maps.Copy(collectors, snap.Host.Usage.Collectors)
		if _, told := collectors["pagemap"]; !told && snap.Memory != nil {
			collectors["pagemap"] = agent.Collector{OK: snap.Memory.Scan.State != "unavailable"}
		}
	}
	m.others(p, collectors)
	one(p, collectorFamilies, &collectors)
	if openMetrics {
		p.b = append(p.b, "# EOF\n"...)
	}
	return p.b
}

func (p *page) snapshot(s *agent.Snapshot) {
	one(p, snapshotFamilies, s)
	one(p, hostFamilies, &s.Host)
	w := workOf(s)
	one(p, workFamilies, w)
	p.waiting(w)
	p.scaling(w)
	vms, labels := make([]*agent.VM, len(s.VMs)), make([]string, len(s.VMs))
	for i := range s.VMs {
		vms[i], labels[i] = &s.VMs[i], label("vm", s.VMs[i].ID)
	}
	many(p, vmFamilies, vms, labels)
	if s.Memory == nil {
		return
	}
	one(p, memoryFamilies, s.Memory)
	shares := make([]*share, len(s.VMs))
	for i := range s.VMs {
		shares[i] = &share{s.VMs[i].ID, s.Memory}
	}
	many(p, shareFamilies, shares, labels)
}

var collectorFamilies = []family[map[string]agent.Collector]{
	rows(gaugeKind, "collector_success", "1 when reading went well the last time, 0 when something was in the way; the agent's log tells what.", func(all *map[string]agent.Collector, row func(string, float64)) {
		eachCollector(*all, func(l string, c agent.Collector) {
			ok := 0.0
			if c.OK {
				ok = 1
			}
			row(l, ok)
		})
	}),
	rows(gaugeKind, "collector_duration_seconds", "How long reading took the last time.", func(all *map[string]agent.Collector, row func(string, float64)) {
		eachCollector(*all, func(l string, c agent.Collector) { row(l, c.Seconds) })
	}),
}

func eachCollector(all map[string]agent.Collector, row func(labels string, c agent.Collector)) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		row(label("collector", name), all[name])
	}
}

// others appends what is not of the snapshot, and notes how each source did.
func (m *Metrics) others(p *page, how map[string]agent.Collector) {
	seen := ourNames()
	if own, err := m.own.Gather(); err != nil {
		m.logOnce("own", err)
	} else {
		_ = p.families(own, seen) // their names are ours
	}
	for _, s := range m.sources {
		families, took, err := s.ask()
		if more := p.families(families, seen); err == nil {
			err = more
		}
		m.logOnce(s.name, err)
		c := agent.Collector{OK: err == nil, Seconds: took.Seconds()}
		how[s.name] = c
	}
}

// logOnce tells of a source's error when it is news.
func (m *Metrics) logOnce(source string, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	if m.logged[source] == now {
		return
	}
	m.logged[source] = now
	if err != nil {
		m.log.Warn("collect metrics", "collector", source, "err", err)
	} else {
		m.log.Info("metrics are collected again", "collector", source)
	}
}

// families appends what a registry gathered, less what has been seen on the page.
func (p *page) families(all []*dto.MetricFamily, seen map[string]bool) error {
	var twice error
	b := bytes.NewBuffer(p.b)
	for _, f := range all {
		names := claims(f)
		if i := slices.IndexFunc(names, func(name string) bool { return seen[name] }); i >= 0 {
			twice = takenError(names[i])
			continue
		}
		for _, name := range names {
			seen[name] = true
		}
		length := b.Len()
		if err := p.encode(b, f); err != nil {
			b.Truncate(length)
			twice = err
		}
	}
	p.b = b.Bytes()
	return twice
}

func (p *page) encode(b *bytes.Buffer, f *dto.MetricFamily) error {
	if !p.openMetrics {
		_, err := expfmt.MetricFamilyToText(b, f)
		return err
	}
	if u := unit(f.GetName()); u != "" && f.GetType() != dto.MetricType_UNTYPED {
		f.Unit = &u
	}
	_, err := expfmt.MetricFamilyToOpenMetrics(b, f)
	return err
}

type takenError string

func (e takenError) Error() string { return "metric " + string(e) + " is somebody else's" }

// ourNames are the names of the tables.
func ourNames() map[string]bool {
	names := map[string]bool{}
	for _, h := range heads() {
		names[h.name] = true
	}
	return names
}

// heads are the metrics of the tables.
func heads() []head {
	all := []head{waitingHead, kernelHead}
	all = append(all, headsOf(buildFamilies)...)
	all = append(all, headsOf(snapshotFamilies)...)
	all = append(all, headsOf(hostFamilies)...)
	all = append(all, headsOf(workFamilies)...)
	all = append(all, headsOf(scalingFamilies)...)
	all = append(all, headsOf(vmFamilies)...)
	all = append(all, headsOf(memoryFamilies)...)
	all = append(all, headsOf(shareFamilies)...)
	return append(all, headsOf(collectorFamilies)...)
}

func headsOf[T any](families []family[T]) []head {
	all := make([]head, len(families))
	for i, f := range families {
		all[i] = f.head
	}
	return all
}

package meter

import (
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Collector is how one kind of reading went the last time.
type Collector struct {
	OK      bool
	Seconds float64
	Error   string
}

// collectors remembers how each went, and says so when that changes: not every
// second that something goes on failing.
type collectors struct {
	log *slog.Logger
	mu  sync.Mutex
	all map[string]Collector
}

// Report says how a reading went. Others than the Meter report theirs too.
func (m *Meter) Report(name string, took time.Duration, err error) {
	c := &m.collectors
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.all[name]
	now := Collector{OK: err == nil, Seconds: took.Seconds()}
	switch {
	case err == nil && known && !was.OK:
		c.log.Info("collector works again", "collector", name)
	case err != nil && known && !was.OK:
		now.Error = was.Error // the first reason; the text of each would be made anew every second
	case err != nil:
		now.Error = err.Error()
		c.log.Warn("collector fails", "collector", name, "err", err)
	}
	c.all[name] = now
}

// Collectors are all that have reported.
func (m *Meter) Collectors() map[string]Collector {
	m.collectors.mu.Lock()
	defer m.collectors.mu.Unlock()
	return maps.Clone(m.collectors.all)
}

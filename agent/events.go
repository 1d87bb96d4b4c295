package agent

import (
	"context"
	"log/slog"
	"slices"
	"sort"
	"time"

	"cloudflash/agent/store"
)

// logLevels are those of the log for those of events.
var logLevels = map[string]slog.Level{LevelInfo: slog.LevelInfo, LevelWarn: slog.LevelWarn, LevelError: slog.LevelError}

// keepEvents is how many events are kept; older ones are forgotten.
const keepEvents = 10000

// commit stores changes and the events that tell of them in one transaction,
// then publishes the events. The caller holds a.mu, and changes its own memory
// only after commit returned nil.
func (a *Agent) commit(changes []store.Change, events ...Event) error {
	seq := a.lastSeq()
	for i := range events {
		seq++
		events[i].Seq = seq
		events[i].At = time.Now().UTC()
		changes = append(changes, store.Put(store.Events, store.SeqKey(seq), events[i]))
	}
	surplus := len(a.events) + len(events) - keepEvents
	for i := range max(surplus, 0) {
		changes = append(changes, store.Delete(store.Events, store.SeqKey(a.events[i].Seq)))
	}
	if err := a.store.Commit(changes...); err != nil {
		a.log.Error("store", "err", err)
		return err
	}
	a.events = slices.Delete(append(a.events, events...), 0, max(surplus, 0))
	for _, e := range events {
		a.outcomes.Events[e.Kind]++
		a.log.Log(context.Background(), logLevels[e.Level], e.Message, "kind", e.Kind, "vm", e.VM, "cloudlet", e.Cloudlet)
	}
	a.changed()
	return nil
}

func (a *Agent) lastSeq() uint64 {
	if len(a.events) == 0 {
		return 0
	}
	return a.events[len(a.events)-1].Seq
}

// Events returns at most limit events after seq since, oldest first. ErrExpired
// means that events right after since are no longer kept.
func (a *Agent) Events(since uint64, limit int) ([]Event, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if since > 0 && len(a.events) > 0 && since < a.events[0].Seq-1 {
		return nil, refuse(ErrExpired, "history_gone", "start again from since=0", "events after %d are gone, the oldest kept is %d", since, a.events[0].Seq)
	}
	i := sort.Search(len(a.events), func(i int) bool { return a.events[i].Seq > since })
	return slices.Clone(a.events[i:min(i+max(limit, 0), len(a.events))]), nil
}

// note records an event that changes nothing else.
func (a *Agent) note(e Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.commit(nil, e) // commit has logged why
}

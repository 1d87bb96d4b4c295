package agent

import (
	"context"
	"errors"
	"log/slog"

	"cloudflash/agent/fault"
)

// logLevels are those of the log for those of events.
var logLevels = map[string]slog.Level{LevelInfo: slog.LevelInfo, LevelWarn: slog.LevelWarn, LevelError: slog.LevelError}

// unstored logs and counts a change that could not be stored, and puts into words why.
func (a *Agent) unstored(err error) error {
	a.log.Error("store", "err", err)
	a.held.Lock()
	a.outcomes.Unstored++
	a.held.Unlock()
	if errors.Is(err, fault.ErrFull) {
		return a.diskFull()
	}
	return err
}

func (a *Agent) diskFull() error {
	return fault.Refuse(fault.ErrFull, "disk_full",
		"free space on the disk of "+a.cfg.StateDir+"; what ends meanwhile is stored as soon as there is some",
		"%v: nothing was changed", fault.ErrFull)
}

// heard counts and logs events that have been stored, and tells the waiters of
// Updates.
func (a *Agent) heard(news []Event) {
	for _, e := range news {
		a.log.Log(context.Background(), logLevels[e.Level], e.Message, "kind", e.Kind, "vm", e.VM, "cloudlet", e.Cloudlet)
	}
	a.held.Lock()
	defer a.held.Unlock()
	for _, e := range news {
		a.outcomes.Events[e.Kind]++
	}
	a.changed()
}

// tellUpdates tells the waiters of Updates of what is not stored.
func (a *Agent) tellUpdates() {
	a.held.Lock()
	defer a.held.Unlock()
	a.changed()
}

// Events returns at most limit events after seq since, oldest first. fault.ErrExpired
// means that events right after since are no longer kept.
func (a *Agent) Events(since uint64, limit int) ([]Event, error) {
	found, oldest := a.state.View().Events(since, limit)
	if since > 0 && oldest > 0 && since < oldest-1 {
		return nil, fault.Refuse(fault.ErrExpired, "history_gone", "start again from since=0",
			"events after %d are gone, the oldest kept is %d", since, oldest)
	}
	return found, nil
}

// Decisions returns at most limit decisions after seq since, oldest first. fault.ErrExpired
// means that decisions right after since are no longer kept.
func (a *Agent) Decisions(since uint64, limit int) ([]Decision, error) {
	found, oldest := a.state.View().Decisions(since, limit)
	if since > 0 && oldest > 0 && since < oldest-1 {
		return nil, fault.Refuse(fault.ErrExpired, "history_gone", "start again from since=0",
			"decisions after %d are gone, the oldest kept is %d", since, oldest)
	}
	return found, nil
}

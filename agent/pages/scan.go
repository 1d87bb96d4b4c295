package pages

import (
	"maps"
	"slices"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// kindScan is the kind of operation that a full pass is.
const kindScan = "memory.scan"

// Scan starts a full pass over all pages, at the speed of one core.
func (p *Pages) Scan() (state.Operation, error) {
	if p.scanner == nil {
		return state.Operation{}, unsupported(p.scannerErr)
	}
	op := state.NewOperation(kindScan, "memory")
	if err := p.begin(op); err != nil {
		return state.Operation{}, err
	}
	p.cfg.Changed()
	return op, nil
}

func (p *Pages) begin(op state.Operation) error {
	p.mu.Lock() // before the pass can end
	defer p.mu.Unlock()
	if err := p.scanner.Full(op.ID, func(err error) { p.end(op, err) }); err != nil {
		return fault.Refuse(fault.ErrConflict, "scan_running", "wait for it, or cancel it", "a full pass is under way")
	}
	p.scans[op.ID] = op
	return nil
}

// end notes how a full pass ended.
func (p *Pages) end(op state.Operation, err error) {
	now := time.Now().UTC()
	op.State, op.FinishedAt = state.OperationSucceeded, &now
	if err != nil {
		op.State, op.Error = state.OperationFailed, err.Error()
	}
	p.readScan()
	p.mu.Lock()
	p.scans[op.ID] = op
	p.forget()
	p.mu.Unlock()
	p.cfg.Changed()
}

// keepScans is how many full passes are remembered; they are not stored.
const keepScans = 20

// forget drops the oldest of them. The caller has p.mu.
func (p *Pages) forget() {
	var ended []state.Operation
	for _, op := range p.scans {
		if op.State != state.OperationRunning {
			ended = append(ended, op)
		}
	}
	slices.SortFunc(ended, func(x, y state.Operation) int { return x.CreatedAt.Compare(y.CreatedAt) })
	for _, op := range ended[:max(len(ended)-keepScans, 0)] {
		delete(p.scans, op.ID)
	}
}

// CancelScan ends the full pass that is under way.
func (p *Pages) CancelScan() error {
	if p.scanner == nil || !p.scanner.Cancel() {
		return fault.Refuse(fault.ErrConflict, "no_scan", "", "no full pass is under way")
	}
	return nil
}

// Scans are the full pass that is under way, with how far it is, and the last ones.
func (p *Pages) Scans() []state.Operation {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.scans))
	p.mu.Unlock()
	for i := range all {
		op := &all[i]
		if op.State != state.OperationRunning {
			continue
		}
		if st := p.scanner.Status(); st.FullID == op.ID {
			op.Progress = &st.FullProgress
		}
	}
	return all
}

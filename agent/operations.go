package agent

import (
	"cmp"
	"slices"
	"time"

	"cloudflash/agent/store"
)

// keepOperations is how many finished operations are kept.
const keepOperations = 1000

func putOperation(op Operation) store.Change { return store.Put(store.Operations, op.ID, op) }

// Operations returns those under way and the last that finished, newest first.
func (a *Agent) Operations() []Operation {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]Operation, 0, len(a.operations))
	for _, op := range a.operations {
		all = append(all, a.withProgress(op))
	}
	slices.SortFunc(all, func(x, y Operation) int {
		return cmp.Or(y.CreatedAt.Compare(x.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	return all
}

// Operation returns one of them.
func (a *Agent) Operation(id string) (Operation, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	op, ok := a.operations[id]
	if !ok {
		return op, refuse(ErrNotFound, "operation_not_found", "", "operation %s not found", quote(id))
	}
	return a.withProgress(op), nil
}

func newOperation(kind, target string) Operation {
	return Operation{ID: newID(), Kind: kind, Target: target, State: OperationRunning, CreatedAt: time.Now().UTC()}
}

// finish returns the changes that end every operation under way on target. The
// caller holds a.mu, commits them, then calls the returned function.
func (a *Agent) finish(target string, failure error) ([]store.Change, func()) {
	var changes []store.Change
	var ended []Operation
	for _, op := range a.operations {
		if op.Target != target || op.State != OperationRunning {
			continue
		}
		now := time.Now().UTC()
		op.State, op.FinishedAt = OperationSucceeded, &now
		if failure != nil {
			op.State, op.Error = OperationFailed, failure.Error()
		}
		ended = append(ended, op)
		changes = append(changes, putOperation(op))
	}
	stale := a.staleOperations()
	for _, id := range stale {
		changes = append(changes, store.Delete(store.Operations, id))
	}
	return changes, func() {
		for _, op := range ended {
			a.operations[op.ID] = op
		}
		for _, id := range stale {
			delete(a.operations, id)
		}
	}
}

// staleOperations names the oldest finished operations beyond keepOperations.
func (a *Agent) staleOperations() []string {
	if len(a.operations) <= keepOperations {
		return nil
	}
	var done []Operation
	for _, op := range a.operations {
		if op.State != OperationRunning {
			done = append(done, op)
		}
	}
	slices.SortFunc(done, func(x, y Operation) int { return x.CreatedAt.Compare(y.CreatedAt) })
	var ids []string
	for _, op := range done[:min(len(done), len(a.operations)-keepOperations)] {
		ids = append(ids, op.ID)
	}
	return ids
}

package agent

import (
	"cmp"
	"slices"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/state"
)

// Operations returns those under way and the last that finished, newest first.
func (a *Agent) Operations() []Operation {
	all := []Operation{}
	for op := range a.state.View().Operations() {
		all = append(all, *op)
	}
	all = append(all, a.Pages.Scans()...)
	slices.SortFunc(all, func(x, y Operation) int {
		return cmp.Or(y.CreatedAt.Compare(x.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	return all
}

// Operation returns one of them.
func (a *Agent) Operation(id string) (Operation, error) {
	if op := a.state.View().Operation(id); op != nil {
		return *op, nil
	}
	for _, op := range a.Pages.Scans() {
		if op.ID == id {
			return op, nil
		}
	}
	return Operation{}, fault.Refuse(fault.ErrNotFound, "operation_not_found", "", "operation %s not found", fault.Quote(id))
}

// finish ends every operation under way on target.
func finish(tx *state.Tx, target string, failure error) {
	for _, op := range slices.Collect(tx.RunningOn(target)) {
		ended := *op
		ended.State, ended.FinishedAt = OperationSucceeded, new(time.Now().UTC())
		if failure != nil {
			ended.State, ended.Error = OperationFailed, failure.Error()
		}
		tx.PutOperation(ended)
	}
}

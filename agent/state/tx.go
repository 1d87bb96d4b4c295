package state

import (
	"encoding/json"
	"slices"
	"time"

	"cloudflash/agent/store"
)

// How many are kept; older ones are forgotten.
const (
	KeepEvents     = 10000
	KeepDecisions  = 5000
	KeepEnded      = 10000 // cloudlets
	KeepOperations = 1000  // that have finished
	KeepMade       = 10000
)

// Keys in store.Meta.
const (
	policyKey = "policy" // of the host
	bootKey   = "boot_id"
)

// A Tx is one change under way. It reads what the changes before it have made, as
// a View does, and is of use only inside of Update.
type Tx struct {
	View
	disk []store.Change
	undo []replaced
	news []Event
	then []func()
	err  error // the first record that could not be written
}

// replaced is what was in memory before.
type replaced struct {
	table    string
	old, new any // nil for none
}

// PutVM stores a VM.
func (t *Tx) PutVM(r VM) {
	old := t.VM(r.ID)
	if old == nil {
		t.change(func(rest *rest) { rest.vms++ })
	}
	t.put(tableVMs, orNil(old), &r)
	t.store(store.VMs, r.ID, &r)
}

// EditVM changes what is stored of a VM.
func (t *Tx) EditVM(id string, change func(*VM)) error {
	r := t.VM(id)
	if r == nil {
		return NoVM(id)
	}
	next := *r
	change(&next)
	t.PutVM(next)
	return nil
}

// DeleteVM forgets a VM.
func (t *Tx) DeleteVM(id string) {
	old := t.VM(id)
	if old == nil {
		return
	}
	t.change(func(rest *rest) { rest.vms-- })
	t.put(tableVMs, old, nil)
	t.forget(store.VMs, id)
}

// PutCloudlet stores a cloudlet. When it has ended, the one that has ended the
// longest ago may be forgotten for it.
func (t *Tx) PutCloudlet(r Cloudlet) {
	next := &r
	t.store(store.Cloudlets, r.ID, next)
	t.place(next)
}

// place puts a cloudlet where it belongs in memory.
func (t *Tx) place(next *Cloudlet) {
	old := t.Cloudlet(next.ID)
	if old != nil {
		t.count(old.State, -1)
	}
	t.count(next.State, 1)

	switch ended := next.State.Final(); {
	case !ended:
		t.put(tableCloudlets, orNil(old), next)
		return
	case old != nil && !old.State.Final():
		t.put(tableCloudlets, old, nil)
		old = nil
	}
	if old != nil { // it has ended before, and is told of again
		t.put(tableEnded, old, next)
		t.change(func(rest *rest) {
			rest.ended = slices.Clone(rest.ended)
			rest.ended[slices.Index(rest.ended, old)] = next
		})
		return
	}
	t.put(tableEnded, nil, next)
	t.change(func(rest *rest) { rest.ended = append(rest.ended, next) })
	if ended := t.rest().ended; len(ended) > KeepEnded {
		oldest := ended[0]
		t.change(func(rest *rest) { rest.ended = ended[1:] })
		t.count(oldest.State, -1)
		t.put(tableEnded, oldest, nil)
		t.forget(store.Cloudlets, oldest.ID)
	}
}

func (t *Tx) count(s CloudletState, by int) {
	if i := slices.Index(cloudletStates[:], s); i >= 0 {
		t.change(func(rest *rest) { rest.cloudlets[i] += by })
	}
}

// PutOperation stores an operation. The oldest that has finished may be forgotten
// for it.
func (t *Tx) PutOperation(r Operation) {
	t.store(store.Operations, r.ID, &r)
	finished := 0
	old := t.Operation(r.ID)
	if old != nil && old.State != OperationRunning {
		finished--
	}
	if r.State != OperationRunning {
		finished++
	}
	t.put(tableOperations, orNil(old), &r)
	t.change(func(rest *rest) { rest.finished += finished })
	if t.rest().finished <= KeepOperations {
		return
	}
	oldest := first[Operation](t.View, tableOperations, byFinished, "")
	t.change(func(rest *rest) { rest.finished-- })
	t.put(tableOperations, oldest, nil)
	t.forget(store.Operations, oldest.ID)
}

// PutToken stores a token or session.
func (t *Tx) PutToken(r StoredToken) {
	t.put(tableTokens, orNil(t.Token(r.ID)), &r)
	t.store(store.Tokens, r.ID, &r)
}

// DeleteToken forgets one.
func (t *Tx) DeleteToken(id string) {
	if old := t.Token(id); old != nil {
		t.put(tableTokens, old, nil)
		t.forget(store.Tokens, id)
	}
}

// PutMade stores what a request has made. The first that was stored may be forgotten for it.
func (t *Tx) PutMade(r Made) {
	old := t.Made(r.ID)
	r.Seq = t.rest().madeSeq + 1
	t.placeMade(&r)
	t.store(store.Made, r.ID, &r)
	if old == nil && t.rest().made > KeepMade {
		t.DeleteMade(first[Made](t.View, tableMade, bySeq, "").ID)
	}
}

func (t *Tx) placeMade(r *Made) {
	old := t.Made(r.ID)
	t.put(tableMade, orNil(old), r)
	t.change(func(rest *rest) {
		rest.madeSeq = max(rest.madeSeq, r.Seq)
		if old == nil {
			rest.made++
		}
	})
}

// DeleteMade forgets that a request has made something.
func (t *Tx) DeleteMade(id string) {
	if old := t.Made(id); old != nil {
		t.change(func(rest *rest) { rest.made-- })
		t.put(tableMade, old, nil)
		t.forget(store.Made, id)
	}
}

// AddDecision stores a new decision and returns its number.
func (t *Tx) AddDecision(r Decision) uint64 {
	kept := t.rest().decisions
	r.Seq = 1
	if n := len(kept); n > 0 {
		r.Seq = kept[n-1].Seq + 1
	}
	t.store(store.Decisions, store.SeqKey(r.Seq), &r)
	t.change(func(rest *rest) {
		rest.decisions = append(rest.decisions, &r)
		if surplus := len(rest.decisions) - KeepDecisions; surplus > 0 {
			for _, d := range rest.decisions[:surplus] {
				t.forget(store.Decisions, store.SeqKey(d.Seq))
			}
			rest.decisions = rest.decisions[surplus:]
		}
	})
	return r.Seq
}

// PutDecision stores what has become of a decision, unless that is forgotten.
func (t *Tx) PutDecision(r Decision) {
	i, ok := findDecision(t.rest().decisions, r.Seq)
	if !ok {
		return
	}
	t.store(store.Decisions, store.SeqKey(r.Seq), &r)
	t.change(func(rest *rest) {
		rest.decisions = slices.Clone(rest.decisions)
		rest.decisions[i] = &r
	})
}

// Tell adds events to the system log, and gives them their numbers and times.
func (t *Tx) Tell(news ...Event) {
	for _, e := range news {
		e.Seq, e.At = 1, time.Now().UTC()
		if kept := t.rest().events; len(kept) > 0 {
			e.Seq = kept[len(kept)-1].Seq + 1
		}
		t.store(store.Events, store.SeqKey(e.Seq), e)
		t.news = append(t.news, e)
		t.change(func(rest *rest) {
			rest.events = append(rest.events, e)
			if surplus := len(rest.events) - KeepEvents; surplus > 0 {
				for _, old := range rest.events[:surplus] {
					t.forget(store.Events, store.SeqKey(old.Seq))
				}
				rest.events = rest.events[surplus:]
			}
		})
	}
}

// SetPolicy stores the host's own policy.
func (t *Tx) SetPolicy(p OwnPolicy) {
	t.store(store.Meta, policyKey, p)
	t.change(func(rest *rest) { rest.policy = p })
}

// SetBoot stores during which boot of the machine the agent has recovered.
func (t *Tx) SetBoot(id string) {
	t.store(store.Meta, bootKey, id)
	t.change(func(rest *rest) { rest.boot = id })
}

// Then has something done once the change is published, before it is answered and
// told of. It is for what is counted, not for work: others wait meanwhile. It must not
// call Update.
func (t *Tx) Then(do func()) { t.then = append(t.then, do) }

// change replaces what there is one of.
func (t *Tx) change(do func(*rest)) {
	old := t.rest()
	next := *old
	do(&next)
	t.put(tableRest, old, &next)
}

// put makes one record of another in memory; nil is none.
func (t *Tx) put(table string, old, next any) {
	t.undo = append(t.undo, replaced{table, old, next})
	t.replace(table, old, next)
}

func (t *Tx) replace(table string, old, next any) {
	var err error
	if next != nil {
		err = t.txn.Insert(table, next)
	} else {
		err = t.txn.Delete(table, old)
	}
	if err != nil {
		panic(err) // no such table, or a record of it that was not there
	}
}

// store writes a record down. It is made JSON here, so that one that cannot be
// spoils its own change only.
func (t *Tx) store(b store.Bucket, key string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		if t.err == nil {
			t.err = err
		}
		return
	}
	t.disk = append(t.disk, store.Put(b, key, json.RawMessage(raw)))
}

func (t *Tx) forget(b store.Bucket, key string) {
	t.disk = append(t.disk, store.Delete(b, key))
}

// mark is where a change begins.
type mark struct{ disk, undo, news, then int }

func (t *Tx) mark() mark { return mark{len(t.disk), len(t.undo), len(t.news), len(t.then)} }

// back takes everything back since the mark.
func (t *Tx) back(to mark) {
	for _, r := range slices.Backward(t.undo[to.undo:]) {
		t.replace(r.table, r.new, r.old)
	}
	t.disk, t.undo, t.news, t.then = t.disk[:to.disk], t.undo[:to.undo], t.news[:to.news], t.then[:to.then]
	t.err = nil
}

// orNil makes of a nil record a nil.
func orNil[T any](r *T) any {
	if r == nil {
		return nil
	}
	return r
}

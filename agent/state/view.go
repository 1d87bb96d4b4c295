package state

import (
	"iter"
	"slices"
	"sort"

	"github.com/hashicorp/go-memdb"
)

// A View is what was stored at one moment; inside of Update, with what has been
// changed since. It may be used by many goroutines at once, but not the one of a Tx.
type View struct{ txn *memdb.Txn }

// prefix is what memdb's indexes are asked with for a part of a key.
const prefix = "_prefix"

// first is the record with that key, or nil.
func first[T any](v View, table, index, key string) *T {
	for r := range all[T](v, table, index, key) {
		return r
	}
	return nil
}

// get is the record with that id, or nil.
func get[T any](v View, table, id string) *T {
	_, r := watch[T](v, table, id)
	return r
}

func watch[T any](v View, table, id string) (<-chan struct{}, *T) {
	changed, raw, err := v.txn.FirstWatch(table, byID, id)
	if err != nil {
		panic(err) // no such table or index
	}
	r, _ := raw.(*T)
	return changed, r
}

// all are the records whose key begins with key, in its order.
func all[T any](v View, table, index, key string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		found, err := v.txn.Get(table, index+prefix, key)
		if err != nil {
			panic(err) // no such table or index
		}
		for raw := found.Next(); raw != nil; raw = found.Next() {
			if !yield(raw.(*T)) {
				return
			}
		}
	}
}

// last is the last of all, or nil.
func last[T any](v View, table, index, key string) *T {
	found, err := v.txn.GetReverse(table, index+prefix, key)
	if err != nil {
		panic(err) // no such table or index
	}
	r, _ := found.Next().(*T)
	return r
}

func (v View) rest() *rest { return get[rest](v, tableRest, tableRest) }

// VM returns the VM with that id, or nil.
func (v View) VM(id string) *VM { return get[VM](v, tableVMs, id) }

// FindVM returns the VM with that id or name, or nil.
func (v View) FindVM(ref string) *VM {
	if r := v.VM(ref); r != nil {
		return r
	}
	return first[VM](v, tableVMs, byName, word(ref))
}

// VMs are all by name.
func (v View) VMs() iter.Seq[*VM] { return all[VM](v, tableVMs, byName, "") }

// VMCount is how many there are.
func (v View) VMCount() int { return v.rest().vms }

// SlotTaken reports whether a VM has a slot, even one being deleted.
func (v View) SlotTaken(slot int) bool {
	return first[VM](v, tableVMs, bySlot, number(int64(slot))) != nil
}

// Cloudlet returns the cloudlet with that id, or nil.
func (v View) Cloudlet(id string) *Cloudlet {
	if r := get[Cloudlet](v, tableCloudlets, id); r != nil {
		return r
	}
	return get[Cloudlet](v, tableEnded, id)
}

// FindCloudlet returns the cloudlet with that id, or the newest of that name, or nil.
func (v View) FindCloudlet(ref string) *Cloudlet {
	if r := v.Cloudlet(ref); r != nil {
		return r
	}

	newest := last[Cloudlet](v, tableEnded, byName, word(ref))
	take := func(r *Cloudlet) {
		if r != nil && (newest == nil || r.CreatedAt.After(newest.CreatedAt)) {
			newest = r
		}
	}
	for r := range all[Cloudlet](v, tableCloudlets, byName, word(ref)) {
		take(r)
	}
	if id := ref[min(len(DefaultName("")), len(ref)):]; DefaultName(id) == ref {
		if r := get[Cloudlet](v, tableEnded, id); r != nil && r.Name == ref {
			take(r)
		}
	}
	return newest
}

// Live are the cloudlets that have not ended, by id.
func (v View) Live() iter.Seq[*Cloudlet] { return all[Cloudlet](v, tableCloudlets, byID, "") }

// LiveIn are those of one VM, queued ones that are for it included.
func (v View) LiveIn(vmID string) iter.Seq[*Cloudlet] {
	return all[Cloudlet](v, tableCloudlets, byVM, word(vmID))
}

// HoldIn are those that occupy room in a VM.
func (v View) HoldIn(vmID string) iter.Seq[*Cloudlet] {
	return func(yield func(*Cloudlet) bool) {
		for r := range v.LiveIn(vmID) {
			if r.Holds() && !yield(r) {
				return
			}
		}
	}
}

// LiveNamed are those with that name.
func (v View) LiveNamed(name string) iter.Seq[*Cloudlet] {
	return all[Cloudlet](v, tableCloudlets, byName, word(name))
}

// LiveAs are those in one state, in the order in which they were submitted.
func (v View) LiveAs(s CloudletState) iter.Seq[*Cloudlet] {
	return all[Cloudlet](v, tableCloudlets, byState, word(string(s)))
}

// Stopping are those that were told to end, by when.
func (v View) Stopping() iter.Seq[*Cloudlet] {
	return all[Cloudlet](v, tableCloudlets, byDue, string(dueKill))
}

// Deadlines are those that are to be ended at a deadline, and were not told to end
// yet, by when that is.
func (v View) Deadlines() iter.Seq[*Cloudlet] {
	return all[Cloudlet](v, tableCloudlets, byDue, string(dueStop))
}

// Ended are the cloudlets that have ended, the last first.
func (v View) Ended() iter.Seq[*Cloudlet] {
	ended := v.rest().ended
	return func(yield func(*Cloudlet) bool) {
		for _, r := range slices.Backward(ended) {
			if !yield(r) {
				return
			}
		}
	}
}

// CloudletCounts are how many cloudlets there are by state; a state without any is
// left out.
func (v View) CloudletCounts() map[CloudletState]int {
	counts := map[CloudletState]int{}
	for i, n := range v.rest().cloudlets {
		if n > 0 {
			counts[cloudletStates[i]] = n
		}
	}
	return counts
}

// LiveCount is how many cloudlets have not ended.
func (v View) LiveCount() int {
	n := 0
	for i, some := range v.rest().cloudlets {
		if !cloudletStates[i].Final() {
			n += some
		}
	}
	return n
}

// CloudletCount is how many are remembered, ended ones included.
func (v View) CloudletCount() int { return v.LiveCount() + len(v.rest().ended) }

// Events are at most limit of those after a number, oldest first. Oldest is the
// number of the oldest that is kept, 0 when there is none.
func (v View) Events(since uint64, limit int) (found []Event, oldest uint64) {
	kept := v.rest().events
	if len(kept) == 0 {
		return nil, 0
	}
	i := sort.Search(len(kept), func(i int) bool { return kept[i].Seq > since })
	return slices.Clone(kept[i:min(i+max(limit, 0), len(kept))]), kept[0].Seq
}

// Decisions are at most limit of those after a number, oldest first. Oldest is the
// number of the oldest that is kept, 0 when there is none.
func (v View) Decisions(since uint64, limit int) (found []Decision, oldest uint64) {
	kept := v.rest().decisions
	if len(kept) == 0 {
		return nil, 0
	}
	i := sort.Search(len(kept), func(i int) bool { return kept[i].Seq > since })
	for _, d := range kept[i:min(i+max(limit, 0), len(kept))] {
		found = append(found, *d)
	}
	return found, kept[0].Seq
}

// Decision is the one with that number, or nil when it is forgotten.
func (v View) Decision(seq uint64) *Decision {
	kept := v.rest().decisions
	if i, ok := findDecision(kept, seq); ok {
		return kept[i]
	}
	return nil
}

func findDecision(all []*Decision, seq uint64) (int, bool) {
	return slices.BinarySearchFunc(all, seq, func(d *Decision, seq uint64) int {
		switch {
		case d.Seq < seq:
			return -1
		case d.Seq > seq:
			return 1
		}
		return 0
	})
}

// Operation returns one, or nil.
func (v View) Operation(id string) *Operation { return get[Operation](v, tableOperations, id) }

// Operations are all, by id.
func (v View) Operations() iter.Seq[*Operation] { return all[Operation](v, tableOperations, byID, "") }

// RunningOn are the operations under way on a VM or cloudlet.
func (v View) RunningOn(target string) iter.Seq[*Operation] {
	return all[Operation](v, tableOperations, byTarget, word(target))
}

// Token returns one, or nil.
func (v View) Token(id string) *StoredToken { return get[StoredToken](v, tableTokens, id) }

// Tokens are all, oldest first.
func (v View) Tokens() iter.Seq[*StoredToken] { return all[StoredToken](v, tableTokens, byCreated, "") }

// TokensNamed are those with that name.
func (v View) TokensNamed(name string) iter.Seq[*StoredToken] {
	return all[StoredToken](v, tableTokens, byName, word(name))
}

// TokenOf returns the token of a secret by its hash, or nil.
func (v View) TokenOf(hash string) *StoredToken {
	return first[StoredToken](v, tableTokens, byHash, word(hash))
}

// Made is what a request has made, by the id of its key; nil when it has made nothing.
func (v View) Made(id string) *Made { return get[Made](v, tableMade, id) }

// MadeInOrder is all that requests with a key have made, in the order in which that was stored.
func (v View) MadeInOrder() iter.Seq[*Made] { return all[Made](v, tableMade, bySeq, "") }

// MadeBy is the request with a key that has made a VM or cloudlet, or nil.
func (v View) MadeBy(target string) *Made { return first[Made](v, tableMade, byTarget, word(target)) }

// Policy is the host's own.
func (v View) Policy() OwnPolicy { return v.rest().policy }

// Boot is the boot of the machine during which the agent last recovered.
func (v View) Boot() string { return v.rest().boot }

// WatchVM returns a channel that is closed when the VM with that id has changed,
// has come or has gone since the view.
func (v View) WatchVM(id string) <-chan struct{} {
	changed, _ := watch[VM](v, tableVMs, id)
	return changed
}

// WatchCloudlet returns a channel that is closed when the cloudlet with that id has
// changed or has ended since the view.
func (v View) WatchCloudlet(id string) <-chan struct{} {
	changed, _ := watch[Cloudlet](v, tableCloudlets, id)
	return changed
}

// WatchLiveIn returns a channel that is closed when something in LiveIn has changed
// since the view. While nothing is in it, others may close it too.
func (v View) WatchLiveIn(vmID string) <-chan struct{} {
	found, err := v.txn.Get(tableCloudlets, byVM+prefix, word(vmID))
	if err != nil {
		panic(err) // no such table or index
	}
	return found.WatchCh()
}

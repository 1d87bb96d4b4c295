package state

import (
	"encoding/binary"
	"time"

	"github.com/hashicorp/go-memdb"
)

// The tables in memory. Ended cloudlets have one of their own, with few indexes:
// there are thousands of them, and nobody looks through them for what goes on.
const (
	tableVMs        = "vms"
	tableCloudlets  = "cloudlets" // that have not ended
	tableEnded      = "ended"
	tableOperations = "operations"
	tableTokens     = "tokens"
	tableMade       = "made"
	tableRest       = "rest"
)

// And their indexes. All but the first sort.
const (
	byID       = "id"
	byName     = "name"
	bySlot     = "slot"
	byVM       = "vm"
	byState    = "state"
	byDue      = "due"
	byTarget   = "target"
	byFinished = "finished"
	byCreated  = "created"
	byHash     = "hash"
	bySeq      = "seq"
)

// rest is what there is one of. It is replaced as a whole; its slices are only ever
// appended to and cut at the front, so that older ones stay what they were.
type rest struct {
	policy OwnPolicy // of the host
	boot   string    // during which this was last recovered

	vms       int
	cloudlets [len(cloudletStates)]int // by state, in the order of cloudletStates
	finished  int                      // operations
	made      int
	madeSeq   uint64 // of the last one

	ended     []*Cloudlet // in the order in which their ends were stored
	events    []Event     // by Seq
	decisions []*Decision // by Seq; a change of one replaces the slice
}

var cloudletStates = [...]CloudletState{
	CloudletQueued, CloudletStarting, CloudletRunning, CloudletFrozen,
	CloudletSucceeded, CloudletFailed, CloudletCancelled, CloudletDeadlineExceeded, CloudletLost,
}

// DefaultName is the name of a cloudlet that was given none.
func DefaultName(id string) string { return "cl-" + id }

// What cloudlets are due for, the first byte of their key in byDue.
const (
	dueKill = 'k' // they were told to stop
	dueStop = 's' // they have a deadline
)

func schema() *memdb.DBSchema {
	tables := []*memdb.TableSchema{
		table(tableVMs,
			unique(func(r *VM) string { return r.ID }),
			sorted(byName, func(r *VM) string { return word(r.Name) }),
			sorted(bySlot, func(r *VM) string { return number(int64(r.Slot)) }),
		),
		table(tableCloudlets,
			unique(func(r *Cloudlet) string { return r.ID }),
			sorted(byName, func(r *Cloudlet) string { return word(r.Name) }),
			sorted(byVM, func(r *Cloudlet) string { return word(r.VM) }),
			sorted(byState, func(r *Cloudlet) string { return word(string(r.State)) + instant(r.SubmittedBoot) }),
			sorted(byDue, dueKey),
		),
		table(tableEnded,
			unique(func(r *Cloudlet) string { return r.ID }),
			sorted(byName, endedName),
		),
		table(tableOperations,
			unique(func(r *Operation) string { return r.ID }),
			sorted(byTarget, func(r *Operation) string {
				if r.State != OperationRunning {
					return ""
				}
				return word(r.Target)
			}),
			sorted(byFinished, func(r *Operation) string {
				if r.State == OperationRunning {
					return ""
				}
				return number(r.CreatedAt.UnixNano())
			}),
		),
		table(tableTokens,
			unique(func(r *StoredToken) string { return r.ID }),
			sorted(byName, func(r *StoredToken) string { return word(r.Name) }),
			sorted(byHash, func(r *StoredToken) string { return word(r.Hash) }),
			sorted(byCreated, func(r *StoredToken) string { return number(r.CreatedAt.UnixNano()) }),
		),
		table(tableMade,
			unique(func(r *Made) string { return r.ID }),
			sorted(byTarget, func(r *Made) string { return word(r.Target) }),
			sorted(bySeq, func(r *Made) string { return number(int64(r.Seq)) }),
		),
		table(tableRest, unique(func(*rest) string { return tableRest })),
	}

	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range tables {
		s.Tables[t.Name] = t
	}
	return s
}

// dueKey sorts what the agent has to act on by when. One whose VM is deleted is left out:
// the deletion has a grace of its own.
func dueKey(r *Cloudlet) string {
	switch {
	case r.Stop == StopDelete:
		return ""
	case r.Stop != "":
		return string(dueKill) + instant(r.StoppingBoot)
	case r.DeadlineAt != nil && r.OnDeadline == OnDeadlineKill:
		return string(dueStop) + instant(r.DeadlineBoot)
	}
	return ""
}

// endedName leaves out names that tell the id.
func endedName(r *Cloudlet) string {
	if r.Name == DefaultName(r.ID) {
		return ""
	}
	return word(r.Name) + number(r.CreatedAt.UnixNano())
}

func table(name string, indexes ...*memdb.IndexSchema) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{}}
	for _, i := range indexes {
		t.Indexes[i.Name] = i
	}
	return t
}

func unique[T any](key func(*T) string) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: byID, Unique: true, Indexer: index[T](key)}
}

// sorted is an index whose records are found by a part of their key, from its
// beginning on, and come in its order, then in that of their ids. A record without
// a key is not in it.
func sorted[T any](name string, key func(*T) string) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: index[T](key)}
}

// index makes memdb's keys of a record.
type index[T any] func(*T) string

func (i index[T]) FromObject(raw any) (bool, []byte, error) {
	key := i(raw.(*T))
	return key != "", []byte(key), nil
}

func (i index[T]) FromArgs(args ...any) ([]byte, error) { return []byte(args[0].(string)), nil }

func (i index[T]) PrefixFromArgs(args ...any) ([]byte, error) { return i.FromArgs(args...) }

// word is a key that is no beginning of another.
func word(s string) string { return s + "\x00" }

// number is a key that sorts by n.
func number(n int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(n)^1<<63))
}

func instant(d time.Duration) string { return number(int64(d)) }

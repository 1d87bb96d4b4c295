package state

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"cloudflash/agent/fault"
	"cloudflash/agent/store"

	"github.com/hashicorp/go-memdb"
	"golang.org/x/sys/unix"
)

// DB is what is stored, and its one writer.
type DB struct {
	mem   *memdb.MemDB
	keep  func(...store.Change) error // in one synced transaction
	room  func() error                // whether there is some to spare
	heard func([]Event)
	tell  func(error) error // what a caller is told of a change that cannot be stored

	gate    sync.Mutex // guards waiting
	waiting []*change

	turn chan struct{} // holds a token while somebody runs and stores a group of changes
}

// change is one call of Update.
type change struct {
	do       func(*Tx) error
	anyway   bool          // it may use the room that is kept back
	answered chan struct{} // closed once err is what the caller is told
	err      error
	panicked any
}

// Config is what a DB needs beside the disk. Every field may be nil.
type Config struct {
	// MendVM and MendCloudlet may bring what an earlier agent has written up to date.
	// That is not stored by itself.
	MendVM       func(*VM)
	MendCloudlet func(*Cloudlet)
	// Heard is called right after changes were published and before they are answered,
	// with the events that tell of them, in their order. It must not call Update.
	Heard func([]Event)
	// Unstored is called with what is in the way of a change, other than a refusal of its
	// own, and returns what its caller is told.
	Unstored func(error) error
	// Commit stores changes in one synced transaction, and Room tells whether there is
	// some to spare, in place of the disk's.
	Commit func(...store.Change) error
	Room   func() error
}

// Load reads what is stored.
func Load(disk *store.Store, cfg Config) (*DB, error) {
	mem, err := memdb.NewMemDB(schema())
	if err != nil {
		return nil, err
	}
	d := &DB{
		mem:   mem,
		keep:  disk.Commit,
		room:  disk.Room,
		heard: cfg.Heard,
		tell:  cfg.Unstored,
		turn:  make(chan struct{}, 1),
	}
	if cfg.Commit != nil {
		d.keep = cfg.Commit
	}
	if cfg.Room != nil {
		d.room = cfg.Room
	}
	return d, d.load(disk, cfg)
}

func (d *DB) load(disk *store.Store, cfg Config) error {
	vms, err1 := store.All[VM](disk, store.VMs)
	cloudlets, err2 := store.All[*Cloudlet](disk, store.Cloudlets)
	events, err3 := store.All[Event](disk, store.Events)
	decisions, err4 := store.All[*Decision](disk, store.Decisions)
	operations, err5 := store.All[Operation](disk, store.Operations)
	tokens, err6 := store.All[StoredToken](disk, store.Tokens)
	made, err9 := store.All[Made](disk, store.Made)
	policy, _, err7 := store.Get[OwnPolicy](disk, store.Meta, policyKey)
	boot, _, err8 := store.Get[string](disk, store.Meta, bootKey)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9); err != nil {
		return err
	}

	t := &Tx{View: View{d.mem.Txn(true)}}
	t.replace(tableRest, nil, &rest{policy: policy, boot: boot, events: events, decisions: decisions})
	for _, r := range vms {
		if cfg.MendVM != nil {
			cfg.MendVM(&r)
		}
		t.PutVM(r)
	}
	slices.SortFunc(cloudlets, byEnd)
	same := words{}
	for _, r := range cloudlets {
		same.share(r)
		if cfg.MendCloudlet != nil {
			cfg.MendCloudlet(r)
		}
		t.place(r)
	}
	for _, r := range operations {
		t.PutOperation(r)
	}
	for _, r := range tokens {
		t.PutToken(r)
	}
	for _, r := range made {
		t.placeMade(&r)
	}
	t.txn.Commit()
	return nil
}

// words are texts that thousands of records have in common.
type words map[string]string

// share lets a cloudlet that was read have such texts with the others, and not a copy of
// its own.
func (w words) share(r *Cloudlet) {
	for _, text := range []*string{&r.VM, &r.VMName, &r.OnDeadline, &r.Boot, &r.Signal, (*string)(&r.State)} {
		if known, ok := w[*text]; ok {
			*text = known
			continue
		}
		w[*text] = *text
	}
}

// byEnd is the order in which cloudlets have ended, as far as it is stored.
func byEnd(x, y *Cloudlet) int {
	at := func(r *Cloudlet) int64 {
		if r.FinishedAt == nil {
			return r.CreatedAt.UnixNano()
		}
		return r.FinishedAt.UnixNano()
	}
	return cmp.Or(cmp.Compare(at(x), at(y)), cmp.Compare(x.ID, y.ID))
}

// View returns what is stored now.
func (d *DB) View() View { return View{d.mem.Txn(false)} }

// Update runs a change and returns once it is stored and published; with others,
// should they be waiting. An error of its own, or one of the store, means that
// nothing has changed; one that has no room on the disk is fault.ErrFull.
//
// Do runs alone, after all changes before it and before all after it. It must not
// wait for anybody, nor call Update.
func (d *DB) Update(do func(*Tx) error) error { return d.update(&change{do: do}) }

// UpdateAnyway is Update for what makes something end, or tells that it has: it may use
// the room in the file that is kept back for that.
func (d *DB) UpdateAnyway(do func(*Tx) error) error { return d.update(&change{do: do, anyway: true}) }

// Note records an event that changes nothing else. What is in the way of it has been told
// to Config.Unstored.
func (d *DB) Note(e Event) {
	_ = d.Update(func(tx *Tx) error {
		tx.Tell(e)
		return nil
	})
}

func (d *DB) update(c *change) error {
	c.answered = make(chan struct{})
	d.gate.Lock()
	d.waiting = append(d.waiting, c)
	d.gate.Unlock()

	d.answer(c)
	if c.panicked != nil {
		panic(c.panicked)
	}
	var refusal *fault.Error
	if c.err == nil || d.tell == nil || errors.As(c.err, &refusal) {
		return c.err
	}
	return d.tell(c.err)
}

// answer returns once a change has its answer. Who comes first commits for all that
// wait; they go on as soon as that is done, and need no turn of their own.
func (d *DB) answer(c *change) {
	select {
	case <-c.answered:
		return
	case d.turn <- struct{}{}:
	}
	defer func() { <-d.turn }()
	if !c.done() {
		d.commit()
	}
	if !c.done() { // it was taken along by one who panicked in what was to be done then
		c.err = errors.New("it is not known whether the change is stored")
	}
}

func (c *change) done() bool {
	select {
	case <-c.answered:
		return true
	default:
		return false
	}
}

// commit runs, stores and publishes what is waiting. It is the caller's turn.
func (d *DB) commit() {
	d.gate.Lock()
	group := d.waiting
	d.waiting = nil
	d.gate.Unlock()

	t := &Tx{View: View{d.mem.Txn(true)}}
	full := asFull(d.room())
	for _, c := range group {
		from := t.mark()
		t.run(c)
		if full != nil && c.err == nil && !c.anyway && len(t.disk) > from.disk {
			t.back(from)
			c.err = full
		}
	}
	err := d.write(t.disk)
	if err != nil {
		t.txn.Abort()
	} else {
		t.txn.Commit()
		for _, do := range t.then {
			do()
		}
		if len(t.disk) > 0 && d.heard != nil {
			d.heard(t.news)
		}
	}
	for _, c := range group {
		if c.err == nil {
			c.err = err
		}
		close(c.answered)
	}
}

// run runs one change. One that fails or panics has changed nothing, and is no
// matter of the others.
func (t *Tx) run(c *change) {
	from := t.mark()
	defer func() {
		if c.panicked = recover(); c.panicked != nil {
			t.back(from)
		}
	}()
	if c.err = c.do(t); c.err == nil {
		c.err = t.err
	}
	if c.err != nil {
		t.back(from)
	}
}

func (d *DB) write(changes []store.Change) error {
	if len(changes) == 0 {
		return nil
	}
	return asFull(d.keep(changes...))
}

// asFull tells errors of a full disk from others.
func asFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", fault.ErrFull, err)
	}
	return err
}

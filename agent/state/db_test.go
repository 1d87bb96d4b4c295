package state

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"cloudflash/agent/fault"
	"cloudflash/agent/store"

	"golang.org/x/sys/unix"
)

// fresh is an empty database, and what it was told of events.
func fresh(t testing.TB) (*DB, *store.Store, *[]Event) {
	t.Helper()
	disk, err := store.Open(filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	var news []Event
	db, err := Load(disk, Config{Heard: func(some []Event) { news = append(news, some...) }})
	if err != nil {
		t.Fatal(err)
	}
	return db, disk, &news
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hold keeps the writer busy until the returned function is called, so that what is
// asked for meanwhile makes one group.
func hold(db *DB) (release func()) {
	begun, end := make(chan struct{}), make(chan struct{})
	go func() {
		_ = db.Update(func(*Tx) error {
			close(begun)
			<-end
			return nil
		})
	}()
	<-begun
	return func() { close(end) }
}

// waitFor returns once so many changes wait.
func waitFor(db *DB, n int) {
	for {
		db.gate.Lock()
		waiting := len(db.waiting)
		db.gate.Unlock()
		if waiting == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWaitingChangesAreStoredTogether(t *testing.T) {
	db, disk, news := fresh(t)
	commits := 0
	db.keep = func(changes ...store.Change) error {
		commits++
		return disk.Commit(changes...)
	}
	then := 0
	release := hold(db)
	var wg sync.WaitGroup
	const n = 16
	refusal := errors.New("not this one")
	for i := range n {
		wg.Go(func() {
			err := db.Update(func(tx *Tx) error {
				tx.PutVM(VM{ID: fmt.Sprint(i), Name: fmt.Sprint("vm", i), Slot: i})
				tx.Tell(Event{Kind: "put", VM: fmt.Sprint(i)})
				tx.Then(func() { then++ })
				if i%4 == 1 {
					return refusal
				}
				return nil
			})
			if (err != nil) != (i%4 == 1) || err != nil && !errors.Is(err, refusal) {
				t.Errorf("change %d: %v", i, err)
			}
			if (db.View().VM(fmt.Sprint(i)) != nil) != (err == nil) {
				t.Errorf("change %d is not there once it is answered, or is though it was refused", i)
			}
		})
	}
	waitFor(db, n)
	release()
	wg.Wait()

	if commits != 1 || then != n*3/4 {
		t.Errorf("%d commits, %d done then", commits, then)
	}
	v := db.View()
	stored, err := store.All[VM](disk, store.VMs)
	if v.VMCount() != n*3/4 || len(slices.Collect(v.VMs())) != n*3/4 || len(stored) != n*3/4 || err != nil {
		t.Errorf("%d VMs, %d stored, %v", v.VMCount(), len(stored), err)
	}
	if v.SlotTaken(1) || !v.SlotTaken(2) || v.FindVM("vm1") != nil || v.FindVM("vm2") == nil {
		t.Error("the indexes have what was refused, or lack what was not")
	}
	events, oldest := v.Events(0, 100)
	if len(events) != n*3/4 || oldest != 1 || len(*news) != len(events) {
		t.Fatalf("events %v from %d, told of %v", events, oldest, *news)
	}
	for i, e := range events {
		if e.Seq != uint64(i)+1 || (*news)[i].Seq != e.Seq {
			t.Errorf("event %d has number %d", i, e.Seq)
		}
	}
}

func TestWhatCannotBeStoredIsRefused(t *testing.T) {
	db, _, news := fresh(t)
	must(t, db.Update(func(tx *Tx) error {
		tx.PutVM(VM{ID: "a", Name: "web", State: VMRunning})
		tx.PutCloudlet(Cloudlet{ID: "c", Name: "job", State: CloudletRunning, VM: "a"})
		tx.Tell(Event{Kind: "one"})
		return nil
	}))
	before := db.View()
	for cause, full := range map[error]bool{unix.ENOSPC: true, unix.EDQUOT: true, unix.EIO: false} {
		db.keep = func(...store.Change) error { return fmt.Errorf("store: %w", cause) }
		release := hold(db)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				err := db.Update(func(tx *Tx) error {
					r := *tx.VM("a")
					r.Reason = fmt.Sprint(i)
					tx.PutVM(r)
					c := *tx.Cloudlet("c")
					c.State = CloudletFailed
					tx.PutCloudlet(c)
					tx.Tell(Event{Kind: "two"})
					return nil
				})
				if !errors.Is(err, cause) || errors.Is(err, fault.ErrFull) != full {
					t.Errorf("err = %v", err)
				}
			})
		}
		waitFor(db, 3)
		release()
		wg.Wait()
		v := db.View()
		if v.VM("a") != before.VM("a") || v.Cloudlet("c") != before.Cloudlet("c") || v.CloudletCounts()[CloudletRunning] != 1 {
			t.Errorf("memory is not what it was: %+v", v.VM("a"))
		}
		if events, _ := v.Events(0, 10); len(events) != 1 || len(*news) != 1 {
			t.Errorf("events %v, told of %v", events, *news)
		}
	}
}

func TestChangeThatPanicsIsItsCallersMatter(t *testing.T) {
	db, _, _ := fresh(t)
	release := hold(db)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer func() {
			if r := recover(); r != "oh" {
				t.Errorf("recovered %v", r)
			}
		}()
		_ = db.Update(func(tx *Tx) error { tx.PutVM(VM{ID: "a"}); panic("oh") })
	})
	wg.Go(func() { must(t, db.Update(func(tx *Tx) error { tx.PutVM(VM{ID: "b"}); return nil })) })
	waitFor(db, 2)
	release()
	wg.Wait()
	if v := db.View(); v.VM("a") != nil || v.VM("b") == nil || v.VMCount() != 1 {
		t.Errorf("%v", slices.Collect(v.VMs()))
	}
}

// A number that JSON has no word for spoils its own change only.
func TestRecordThatCannotBeWritten(t *testing.T) {
	db, _, _ := fresh(t)
	if err := db.Update(func(tx *Tx) error { tx.PutVM(VM{ID: "a", Spec: Spec{CPUs: math.NaN()}}); return nil }); err == nil {
		t.Error("it was stored")
	}
	if db.View().VM("a") != nil {
		t.Error("it is there")
	}
	must(t, db.Update(func(tx *Tx) error { tx.PutVM(VM{ID: "b"}); return nil }))
}

func TestViewsNeverChange(t *testing.T) {
	db, _, _ := fresh(t)
	put := func(s CloudletState, n int) {
		must(t, db.Update(func(tx *Tx) error {
			tx.PutCloudlet(Cloudlet{ID: "c", Name: "job", State: s, VM: "a"})
			tx.Tell(Event{Kind: fmt.Sprint(n)})
			tx.AddDecision(Decision{VM: "a"})
			return nil
		}))
	}
	must(t, db.Update(func(tx *Tx) error { tx.PutCloudlet(Cloudlet{ID: "d", VM: "b", State: CloudletRunning}); return nil }))
	put(CloudletQueued, 1)
	old := db.View()
	changed, inVM := old.WatchCloudlet("c"), old.WatchLiveIn("a")
	other := old.WatchLiveIn("b")
	put(CloudletRunning, 2)
	put(CloudletSucceeded, 3)
	must(t, db.Update(func(tx *Tx) error {
		d := *tx.Decision(1)
		d.Why = "changed"
		tx.PutDecision(d)
		return nil
	}))
	for what, c := range map[string]<-chan struct{}{"the cloudlet": changed, "its VM": inVM} {
		select {
		case <-c:
		default:
			t.Errorf("who watches %s was not told", what)
		}
	}
	select {
	case <-other:
		t.Error("who watches another VM was told")
	default:
	}
	if c := old.Cloudlet("c"); c.State != CloudletQueued || old.LiveCount() != 2 || len(slices.Collect(old.LiveAs(CloudletQueued))) != 1 {
		t.Errorf("the view has changed: %+v", c)
	}
	if e, _ := old.Events(0, 10); len(e) != 1 || old.Decision(1).Why != "" {
		t.Errorf("the view has changed: %v", e)
	}
	v := db.View()
	if c := v.FindCloudlet("job"); c == nil || c.State != CloudletSucceeded || v.LiveCount() != 1 || v.CloudletCount() != 2 {
		t.Errorf("now: %+v", c)
	}
	if n := len(slices.Collect(v.LiveIn("a"))) + len(slices.Collect(v.Live())); n != 1 {
		t.Error("what has ended is among the living")
	}
}

func TestQueueAndDeadlinesComeInOrder(t *testing.T) {
	db, _, _ := fresh(t)
	at := time.Now()
	must(t, db.Update(func(tx *Tx) error {
		for id, r := range map[string]Cloudlet{
			"third":    {State: CloudletQueued, SubmittedBoot: 3 * time.Second},
			"first":    {State: CloudletQueued, SubmittedBoot: -time.Second, DeadlineAt: &at, DeadlineBoot: 9 * time.Second, OnDeadline: OnDeadlineKill},
			"second":   {State: CloudletQueued, SubmittedBoot: 2 * time.Second},
			"soon":     {State: CloudletRunning, DeadlineAt: &at, DeadlineBoot: time.Second, OnDeadline: OnDeadlineKill},
			"patient":  {State: CloudletRunning, DeadlineAt: &at, DeadlineBoot: time.Second, OnDeadline: OnDeadlineContinue},
			"starting": {State: CloudletStarting, DeadlineAt: &at, DeadlineBoot: 2 * time.Second, OnDeadline: OnDeadlineKill},
			"deleted":  {State: CloudletRunning, DeadlineAt: &at, DeadlineBoot: time.Second, OnDeadline: OnDeadlineKill, Stop: StopDelete},
			"stopping": {State: CloudletRunning, DeadlineAt: &at, DeadlineBoot: time.Second, OnDeadline: OnDeadlineKill, Stop: StopCancel, StoppingBoot: 5 * time.Second},
			"before":   {State: CloudletRunning, Stop: StopCancel, StoppingBoot: 4 * time.Second},
		} {
			r.ID, r.Name = id, id
			tx.PutCloudlet(r)
		}
		return nil
	}))
	v := db.View()
	for what, c := range map[string]struct {
		got  []string
		want []string
	}{
		"queue":     {ids(slices.Collect(v.LiveAs(CloudletQueued))), []string{"first", "second", "third"}},
		"deadlines": {ids(slices.Collect(v.Deadlines())), []string{"soon", "starting", "first"}},
		"stopping":  {ids(slices.Collect(v.Stopping())), []string{"before", "stopping"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
}

func ids(all []*Cloudlet) (out []string) {
	for _, r := range all {
		out = append(out, r.ID)
	}
	return out
}

// So much is kept and no more, in memory and on disk.
func TestTheOldestIsForgotten(t *testing.T) {
	db, disk, _ := fresh(t)
	begin := time.Unix(1e9, 0).UTC()
	const more = 3
	must(t, db.Update(func(tx *Tx) error {
		for i := range KeepEnded + more {
			tx.PutCloudlet(Cloudlet{ID: fmt.Sprintf("%05d", i), Name: "job", State: CloudletQueued, CreatedAt: begin.Add(time.Duration(i))})
		}
		for i := range KeepDecisions + more {
			tx.AddDecision(Decision{VM: fmt.Sprint(i)})
		}
		for i := range KeepEvents + more {
			tx.Tell(Event{Kind: fmt.Sprint(i)})
		}
		for i := range KeepOperations + more {
			tx.PutOperation(Operation{ID: fmt.Sprint(i), Target: "x", State: OperationRunning, CreatedAt: begin.Add(time.Duration(i))})
		}
		return nil
	}))
	must(t, db.Update(func(tx *Tx) error {
		for i := range KeepEnded + more {
			r := *tx.Cloudlet(fmt.Sprintf("%05d", i))
			r.State = CloudletSucceeded
			tx.PutCloudlet(r)
		}
		for i := range KeepOperations + more {
			r := *tx.Operation(fmt.Sprint(i))
			r.State = OperationSucceeded
			tx.PutOperation(r)
		}
		return nil
	}))

	v := db.View()
	if n := v.CloudletCount(); n != KeepEnded || v.CloudletCounts()[CloudletSucceeded] != KeepEnded {
		t.Errorf("%d cloudlets, %v", n, v.CloudletCounts())
	}
	if v.Cloudlet("00002") != nil || v.Cloudlet("00003") == nil || v.FindCloudlet("job").ID != "10002" {
		t.Error("another than the oldest was forgotten")
	}
	if d, oldest := v.Decisions(0, math.MaxInt); len(d) != KeepDecisions || oldest != more+1 {
		t.Errorf("%d decisions from %d", len(d), oldest)
	}
	if e, oldest := v.Events(0, math.MaxInt); len(e) != KeepEvents || oldest != more+1 {
		t.Errorf("%d events from %d", len(e), oldest)
	}
	if n := len(slices.Collect(v.Operations())); n != KeepOperations || v.Operation("2") != nil {
		t.Errorf("%d operations", n)
	}
	for b, want := range map[store.Bucket]int{
		store.Cloudlets:  KeepEnded,
		store.Decisions:  KeepDecisions,
		store.Events:     KeepEvents,
		store.Operations: KeepOperations,
	} {
		if all, err := disk.Raw(b); err != nil || len(all) != want {
			t.Errorf("%s: %d stored, %v", b, len(all), err)
		}
	}
}

// What is read back from the disk is what is in memory.
func TestLoadAgain(t *testing.T) {
	db, disk, _ := fresh(t)
	must(t, db.Update(func(tx *Tx) error {
		tx.PutVM(VM{ID: "a", Name: "web", Slot: 3})
		tx.PutVM(VM{ID: "b", Name: "gone"})
		tx.DeleteVM("b")
		tx.PutCloudlet(Cloudlet{ID: "c", Name: DefaultName("c"), State: CloudletSucceeded})
		tx.PutToken(StoredToken{Token: Token{ID: "t", Name: "ci"}, Hash: "h"})
		tx.PutToken(StoredToken{Token: Token{ID: "u", Name: "old"}, Hash: "g"})
		tx.DeleteToken("u")
		tx.PutMade(Made{ID: "k", Body: "b", Target: "a"})
		tx.PutMade(Made{ID: "l", Body: "b", Target: "b"})
		tx.DeleteMade("l")
		tx.SetPolicy(OwnPolicy{Gen: 7})
		tx.SetBoot("boot")
		tx.Tell(Event{Kind: "x"})
		return nil
	}))
	again, err := Load(disk, Config{MendVM: func(r *VM) { r.Image = "host" }})
	must(t, err)
	v := again.View()
	if r := v.FindVM("web"); r == nil || r.Slot != 3 || r.Image != "host" || v.VMCount() != 1 {
		t.Errorf("%+v", r)
	}
	if c := v.FindCloudlet("cl-c"); c == nil || v.CloudletCount() != 1 {
		t.Errorf("%+v", c)
	}
	if v.TokenOf("h") == nil || v.TokenOf("g") != nil || v.Policy().Gen != 7 || v.Boot() != "boot" {
		t.Errorf("%v %v %v", slices.Collect(v.Tokens()), v.Policy(), v.Boot())
	}
	if v.MadeBy("a") == nil || v.Made("k").Body != "b" || v.Made("l") != nil || len(slices.Collect(v.MadeInOrder())) != 1 {
		t.Errorf("made: %v", slices.Collect(v.MadeInOrder()))
	}
	must(t, again.Update(func(tx *Tx) error { tx.Tell(Event{Kind: "y"}); return nil }))
	if e, _ := again.View().Events(1, 5); len(e) != 1 || e[0].Seq != 2 {
		t.Errorf("%v", e)
	}
}

// What makes things end has room that what makes more of them has not.
func TestRoomIsForWhatEnds(t *testing.T) {
	db, _, _ := fresh(t)
	put := func(tx *Tx) error { tx.PutVM(VM{ID: "a"}); return nil }
	must(t, db.Update(put))
	db.room = func() error { return unix.ENOSPC }
	if err := db.Update(func(tx *Tx) error { tx.PutVM(VM{ID: "b"}); return nil }); !errors.Is(err, fault.ErrFull) {
		t.Errorf("err = %v", err)
	}
	must(t, db.Update(func(tx *Tx) error { return nil })) // a look stores nothing
	must(t, db.UpdateAnyway(func(tx *Tx) error { tx.DeleteVM("a"); return nil }))
	if n := db.View().VMCount(); n != 0 {
		t.Errorf("%d VMs", n)
	}
}

// The first that was stored is forgotten, whatever the time of day was.
func TestOldestMadeIsForgotten(t *testing.T) {
	db, _, _ := fresh(t)
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	must(t, db.Update(func(tx *Tx) error {
		for i := range KeepMade {
			tx.PutMade(Made{ID: fmt.Sprint(i), At: day.Add(time.Duration(i) * time.Second)})
		}
		tx.PutMade(Made{ID: "new", At: day.Add(-time.Hour)}) // the clock was set back
		return nil
	}))
	v := db.View()
	if v.Made("new") == nil || v.Made("0") != nil || v.Made("1") == nil {
		t.Errorf("new %v, first %v, second %v", v.Made("new"), v.Made("0"), v.Made("1"))
	}
}

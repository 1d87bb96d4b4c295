package state

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"cloudflash/agent/store"

	"github.com/google/go-cmp/cmp"
)

// old opens a copy of the database of an earlier agent.
func old(t *testing.T) *store.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "old.db")
	b, err := os.ReadFile("testdata/schema1.db")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	disk, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	return disk
}

// What an earlier agent has written means the same, and is written the same.
func TestOldDatabase(t *testing.T) {
	disk := old(t)
	db, err := Load(disk, Config{})
	if err != nil {
		t.Fatal(err)
	}
	v := db.View()

	same := func(b store.Bucket, find func(key string, id string) any) {
		t.Helper()
		stored, err := disk.Raw(b)
		if err != nil || len(stored) == 0 {
			t.Fatalf("%s: %d records, %v", b, len(stored), err)
		}
		for key, raw := range stored {
			var want, got map[string]any
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Fatal(err)
			}
			id, _ := want["id"].(string)
			found := find(key, id)
			if reflect.ValueOf(found).IsNil() {
				t.Errorf("%s %q was not loaded", b, key)
				continue
			}
			again, err := json.Marshal(found)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(again, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %q is written otherwise:\n%s", b, key, diff)
			}
		}
	}
	events, _ := v.Events(0, KeepEvents)
	bySeq := map[string]*Event{}
	for _, e := range events {
		bySeq[store.SeqKey(e.Seq)] = &e
	}
	decisions, _ := v.Decisions(0, KeepDecisions)
	byNumber := map[string]*Decision{}
	for _, d := range decisions {
		byNumber[store.SeqKey(d.Seq)] = &d
	}
	same(store.VMs, func(_, id string) any { return v.VM(id) })
	same(store.Cloudlets, func(_, id string) any { return v.Cloudlet(id) })
	same(store.Operations, func(_, id string) any { return v.Operation(id) })
	same(store.Tokens, func(_, id string) any { return v.Token(id) })
	same(store.Events, func(key, _ string) any { return bySeq[key] })
	same(store.Decisions, func(key, _ string) any { return byNumber[key] })

	counts := map[CloudletState]int{CloudletQueued: 2, CloudletStarting: 1, CloudletRunning: 3, CloudletFrozen: 1,
		CloudletSucceeded: 2, CloudletFailed: 3, CloudletLost: 1, CloudletCancelled: 1}
	if diff := cmp.Diff(counts, v.CloudletCounts()); diff != "" {
		t.Errorf("cloudlets by state:\n%s", diff)
	}
	if v.VMCount() != 5 || v.LiveCount() != 7 || v.Boot() != "this boot" || v.Policy().Gen != 1 || *v.Policy().Layer.Rules["all"].Up != 0.9 {
		t.Errorf("%d VMs, %d live, boot %q, policy %+v", v.VMCount(), v.LiveCount(), v.Boot(), v.Policy())
	}
	web := v.FindVM("web")
	size := web.Size()
	if size.CPUs != 0.75 || size.MemoryBytes != 80<<20 || web.Held().MemoryBytes != 80<<20 || web.Lent().MemoryBytes != 16<<20 {
		t.Errorf("web has %v, holds %v", size, web.Held())
	}
	if last := v.FindCloudlet("job"); last == nil || last.Argv[1] != "5" {
		t.Errorf("the newest job: %+v", last)
	}
	if c := v.FindCloudlet("stopping"); c == nil || c.Stop != StopCancel {
		t.Errorf("what is stopping: %+v", c)
	}
}

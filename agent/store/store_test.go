package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type record struct {
	Name string
	N    int
}

func open(t *testing.T) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, path
}

func TestCommitSurvivesReopen(t *testing.T) {
	s, path := open(t)
	if err := s.Commit(Put(VMs, "b", record{"b", 2}), Put(VMs, "a", record{"a", 1}), Put(VMs, "c", record{"c", 3})); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(Delete(VMs, "b"), Delete(VMs, "never there")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := All[record](s, VMs)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]record{{"a", 1}, {"c", 3}}, got); diff != "" {
		t.Error(diff)
	}
	if _, found, err := Get[record](s, VMs, "b"); found || err != nil {
		t.Errorf("deleted record: found=%v err=%v", found, err)
	}
}

func TestCommitIsAllOrNothing(t *testing.T) {
	s, _ := open(t)
	if err := s.Commit(Put(VMs, "a", record{"a", 1}), Put(VMs, "bad", make(chan int))); err == nil {
		t.Fatal("a value JSON cannot hold was stored")
	}
	if all, _ := All[record](s, VMs); len(all) != 0 {
		t.Errorf("half a commit is on disk: %v", all)
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	_, path := open(t)
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Errorf("err = %v, want ErrLocked", err)
	}
}

func TestSeqKeysSortByNumber(t *testing.T) {
	if !(SeqKey(9) < SeqKey(10) && SeqKey(255) < SeqKey(256)) {
		t.Error("keys do not sort by sequence")
	}
}

func TestEachStoreHasAnIDThatStays(t *testing.T) {
	s, path := open(t)
	id, err := s.ID()
	if again, _ := s.ID(); err != nil || id == "" || again != id {
		t.Errorf("%q, then %q, %v", id, again, err)
	}
	other, _ := open(t)
	if its, err := other.ID(); err != nil || its == id {
		t.Errorf("two stores are %q, %v", its, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if its, err := s.ID(); err != nil || its != id {
		t.Errorf("%q after it was opened again, %v", its, err)
	}
}

// What was read of the file does not stay in memory, and can be read again.
func TestRelaxGivesMemoryBack(t *testing.T) {
	s, path := open(t)
	var changes []Change
	for i := range 5000 {
		changes = append(changes, Put(VMs, fmt.Sprint(i), record{strings.Repeat("x", 500), i}))
	}
	if err := s.Commit(changes...); err != nil {
		t.Fatal(err)
	}
	read := func() {
		if all, err := All[record](s, VMs); err != nil || len(all) != len(changes) {
			t.Fatal(len(all), err)
		}
	}

	read()
	before := resident(t, path)
	if err := s.Relax(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t, path); before < 2<<20 || after > before/10 {
		t.Errorf("%d bytes of the file are in memory, before that %d", after, before)
	}
	read()
}

// resident is how much of a mapped file this process has in memory.
func resident(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := bytes.Cut(text, []byte(path+"\n"))
	_, text, rss := bytes.Cut(text, []byte("\nRss:"))
	var kib int
	if _, err := fmt.Sscan(string(text[:min(len(text), 40)]), &kib); !found || !rss || err != nil {
		t.Fatal("no mapping of ", path)
	}
	return kib << 10
}

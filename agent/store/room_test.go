package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// While the disk gives more, the file grows before it is needed; when it does not, that
// is told while there is room to end what goes on.
func TestRoomIsKeptBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := 0
	more := func() {
		t.Helper()
		n++
		if err := s.Commit(Put(Cloudlets, fmt.Sprint(n), strings.Repeat("x", 100_000))); err != nil {
			t.Fatal(err)
		}
	}
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}

	for range 100 {
		if err := s.Room(); err != nil {
			t.Fatal(err)
		}
		more()
	}
	if got := blocks(); got < 100*100_000+keptRoom/2 {
		t.Errorf("%d bytes have blocks", got)
	}

	s.allocate = func(int64) error { return os.NewSyscallError("fallocate", unix.ENOSPC) }
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for s.Room() == nil {
		more()
	}
	if err := s.Room(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("err = %v", err)
	}
	for range keptRoom / 2 / 100_000 { // which is what it is for
		more()
	}
	if after, err := os.Stat(path); err != nil || after.Size() != info.Size() {
		t.Errorf("the file has grown from %d to %d bytes, %v", info.Size(), after.Size(), err)
	}

	for i := range n { // there is room again once something is forgotten
		if err := s.Commit(Delete(Cloudlets, fmt.Sprint(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Room(); err != nil {
		t.Error(err)
	}
}

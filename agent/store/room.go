package store

import (
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	// keptRoom is how many bytes of the file are kept for changes that make things end:
	// some thousands of them.
	keptRoom = 2 << 20
	// roomStep is by how much more than that the file is made to grow.
	roomStep = 2 << 20
)

// Room returns an error where less than the room that is kept back is left in the
// file, and the disk has no more. A Commit may succeed all the same: that is what it
// is kept for. What makes more should not be tried.
func (s *Store) Room() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserve()
}

// reserve makes the file grow, in blocks that the disk has given and not only
// promised, until there is room in it. The caller holds s.mu.
func (s *Store) reserve() error {
	used := int64(0)
	if err := s.db.View(func(tx *bolt.Tx) error {
		used = tx.Size()
		return nil
	}); err != nil {
		return err
	}
	free := int64(s.db.Stats().FreePageN) * int64(s.db.Info().PageSize)
	if s.given-used+free >= keptRoom {
		return nil
	}

	want := max(used+keptRoom+roomStep, s.given)
	err := s.allocate(want)
	switch {
	case err == nil, errors.Is(err, unix.EOPNOTSUPP): // such a file system gives none in advance
		s.given = want
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("keep room in the database: %w", err)
	}
	return err
}

// allocate has the disk give blocks for the file up to a size in bytes.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), 0, 0, size))
}

// Package statetest opens databases for tests.
package statetest

import (
	"path/filepath"
	"testing"

	"cloudflash/agent/state"
	"cloudflash/agent/store"
)

// Open opens the database in dir, for as long as the test lasts.
func Open(t testing.TB, dir string) (*state.DB, *store.Store) {
	t.Helper()
	disk, err := store.Open(filepath.Join(dir, "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	db, err := state.Load(disk, state.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return db, disk
}

// Change is a change that nobody refuses.
func Change(t testing.TB, db *state.DB, do func(*state.Tx)) {
	t.Helper()
	if err := db.Update(func(tx *state.Tx) error { do(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

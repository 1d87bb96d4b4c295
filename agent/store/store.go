// Package store keeps the agent's records in one bbolt file: what VMs and
// cloudlets there shall be, what became of them, and the system log.
//
// It knows nothing of what it stores: records are JSON under a bucket and a
// key. A Commit is one synced transaction, so a record and the event that tells
// of it are either both on disk or neither is.
package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Bucket names one kind of record.
type Bucket string

// The buckets of the store.
const (
	VMs        Bucket = "vms"
	Cloudlets  Bucket = "cloudlets"
	Events     Bucket = "events"
	Operations Bucket = "operations"
	Tokens     Bucket = "tokens"
	Decisions  Bucket = "decisions"
	Meta       Bucket = "meta"
	Profiles   Bucket = "profiles"
	Made       Bucket = "made"
)

// ErrLocked means that another agent holds the store.
var ErrLocked = errors.New("store is in use by another agent")

// A Store is one open database file. It is safe for concurrent use.
type Store struct {
	db       *bolt.DB
	allocate func(size int64) error

	mu    sync.Mutex // guards given
	given int64      // bytes of the file that have blocks for sure
}

// ErrNewer means that a newer agent has written the database.
var ErrNewer = errors.New("the database is of a newer version of cloudflash")

// Schema is the version of what the records are like. An agent refuses a
// database of a later one.
const Schema = 1

// schemaKey is where the version is, in Meta. A database without it is of
// version 1.
const schemaKey = "schema"

// Without it a second agent hangs for ever. A child that an agent killed just
// now was about to execute may hold the file for a moment longer.
const lockTime = 5 * time.Second

// Open opens or creates the database. It waits some seconds for the file lock,
// then returns ErrLocked; a file that is damaged, or that a newer agent has
// written, it leaves alone and returns ErrDamaged or ErrNewer.
func Open(path string) (*Store, error) {
	if err := check(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:        lockTime,
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}

	s := &Store{db: db, allocate: func(size int64) error { return allocate(path, size) }}
	if err := s.checkSchema(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	if err := s.create(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	_ = s.Room() // whoever wants to store more is told
	return s, nil
}

// Relax gives back the memory that what was read of the file is in: all of it, once
// everything was read. A page is read again when it is asked for.
func (s *Store) Relax() error {
	return s.db.View(func(tx *bolt.Tx) error { // meanwhile the file stays mapped where it is
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, s.db.Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED)
		if errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
		return nil
	})
}

// check verifies the file while nobody writes to it.
func check(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // and so the lock

	for end := time.Now().Add(lockTime); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return verify(f)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return os.NewSyscallError("flock", err)
		}
		if time.Now().After(end) {
			return ErrLocked
		}
	}
}

// checkSchema reads the version before anything is written.
func (s *Store) checkSchema() error {
	return s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(Meta))
		if b == nil {
			return nil
		}
		raw := b.Get([]byte(schemaKey))
		if raw == nil {
			return nil
		}
		var found int
		if err := json.Unmarshal(raw, &found); err != nil {
			return fmt.Errorf("%w: its version is %q", ErrDamaged, raw)
		}
		if found > Schema {
			return fmt.Errorf("%w: its records are of version %d, this is version %d", ErrNewer, found, Schema)
		}
		return nil
	})
}

// idKey is where the store's name of its own is, in Meta.
const idKey = "id"

// ID tells this store from every other. It is made when it is first asked for.
func (s *Store) ID() (string, error) {
	id, found, err := Get[string](s, Meta, idKey)
	if err != nil || found {
		return id, err
	}
	id = rand.Text()
	return id, s.Commit(Put(Meta, idKey, id))
}

// create makes the buckets that are missing. Where none is, as at every start but the
// first, nothing is written: the disk may be full.
func (s *Store) create() error {
	missing := false
	err := s.db.View(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			missing = missing || tx.Bucket([]byte(b)) == nil
		}
		missing = missing || tx.Bucket([]byte(Meta)).Get([]byte(schemaKey)) == nil
		return nil
	})
	if err != nil || !missing {
		return err
	}
	return s.db.Update(createBuckets)
}

var buckets = [...]Bucket{VMs, Cloudlets, Events, Operations, Tokens, Decisions, Meta, Profiles, Made}

func createBuckets(tx *bolt.Tx) error {
	for _, b := range buckets {
		if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
			return fmt.Errorf("create bucket %s: %w", b, err)
		}
	}
	return apply(tx, Put(Meta, schemaKey, Schema))
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// A Change is one write of a Commit.
type Change struct {
	Bucket Bucket
	Key    string
	Value  any // nil deletes the key
}

// Put makes a Change that stores v as JSON; a json.RawMessage is stored as it is.
func Put(b Bucket, key string, v any) Change { return Change{b, key, v} }

// Delete makes a Change that removes a key; a missing key is fine.
func Delete(b Bucket, key string) Change { return Change{Bucket: b, Key: key} }

// Commit writes all changes in one transaction and returns once they are on disk. It
// may use the room that is kept back; see Room.
func (s *Store) Commit(changes ...Change) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, c := range changes {
			if err := apply(tx, c); err != nil {
				return fmt.Errorf("store %s/%s: %w", c.Bucket, c.Key, err)
			}
		}
		return nil
	})
}

func apply(tx *bolt.Tx, c Change) error {
	b := tx.Bucket([]byte(c.Bucket))
	if c.Value == nil {
		return b.Delete([]byte(c.Key))
	}
	if raw, ok := c.Value.(json.RawMessage); ok {
		return b.Put([]byte(c.Key), raw)
	}
	v, err := json.Marshal(c.Value)
	if err != nil {
		return err
	}
	return b.Put([]byte(c.Key), v)
}

// Get reads one record; found is false when there is none.
func Get[T any](s *Store, b Bucket, key string) (v T, found bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		raw := tx.Bucket([]byte(b)).Get([]byte(key))
		if raw == nil {
			return nil
		}
		found = true
		return json.Unmarshal(raw, &v)
	})
	if err != nil {
		return v, found, fmt.Errorf("read %s/%s: %w", b, key, err)
	}
	return v, found, nil
}

// All reads every record of a bucket in key order.
func All[T any](s *Store, b Bucket) ([]T, error) {
	var all []T
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(b)).ForEach(func(k, raw []byte) error {
			var v T
			if err := json.Unmarshal(raw, &v); err != nil {
				return fmt.Errorf("read %s/%s: %w", b, k, err)
			}
			all = append(all, v)
			return nil
		})
	})
	return all, err
}

// Raw reads every record of a bucket as it is stored, by key: for records that are
// not worth failing over.
func (s *Store) Raw(b Bucket) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(b)).ForEach(func(k, raw []byte) error {
			all[string(k)] = bytes.Clone(raw) // bbolt's own is gone with the transaction
			return nil
		})
	})
	return all, err
}

// SeqKey turns a sequence number into a key that sorts by it.
func SeqKey(seq uint64) string {
	return string(binary.BigEndian.AppendUint64(nil, seq))
}

package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// filled is a database with records small and large, some of them deleted.
func filled(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		var changes []Change
		for j := range 20 {
			key := fmt.Sprintf("%03d-%02d", i, j)
			changes = append(changes, Put(Cloudlets, key, record{strings.Repeat("x", 10*(j+1)), i}))
			if i > 0 && j%3 == 0 {
				changes = append(changes, Delete(Cloudlets, fmt.Sprintf("%03d-%02d", i-1, j)))
			}
		}
		changes = append(changes, Put(Events, SeqKey(uint64(i)), record{strings.Repeat("y", 9000), i}))
		if err := s.Commit(changes...); err != nil {
			t.Fatal(err)
		}
	}
	used := int64(0)
	err = s.db.View(func(tx *bolt.Tx) error {
		used = tx.Size()
		return nil
	})
	if err := errors.Join(err, s.Close(), os.Truncate(path, used)); err != nil { // what is kept back cannot be damaged
		t.Fatal(err)
	}
	return path
}

// readAll opens a database and reads all of it, as an agent does at its start.
func readAll(path string) error {
	s, err := Open(path)
	if err != nil {
		return err
	}
	for _, b := range []Bucket{VMs, Cloudlets, Events} {
		if _, err := All[record](s, b); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	return errors.Join(s.Commit(Put(VMs, "new", record{"new", 1})), s.Close())
}

func TestWholeDatabasesAreTaken(t *testing.T) {
	path := filled(t)
	for range 3 {
		if err := readAll(path); err != nil {
			t.Fatal(err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readAll(empty); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestDamagedDatabasesAreRefused(t *testing.T) {
	whole, err := os.ReadFile(filled(t))
	if err != nil {
		t.Fatal(err)
	}
	for what, damage := range map[string]func(b []byte) []byte{
		"half a file":       func(b []byte) []byte { return b[:len(b)/2] },
		"a few bytes":       func(b []byte) []byte { return b[:100] },
		"another file":      func([]byte) []byte { return bytes.Repeat([]byte("hello, world\n"), 10000) },
		"nothing but zeros": func(b []byte) []byte { return make([]byte, len(b)) },
		"no meta pages":     func(b []byte) []byte { clear(b[:2*4096]); return b },
	} {
		path := filepath.Join(t.TempDir(), "test.db")
		b := damage(bytes.Clone(whole))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path)
		if !errors.Is(err, ErrDamaged) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
			t.Errorf("%s: the file was written to (%v)", what, err)
		}
	}
}

// Whatever page is overwritten with whatever: it is refused, or nothing that
// counts was hit. bbolt panics in a goroutine of its own, so another process tries.
func TestRandomPages(t *testing.T) {
	if path := os.Getenv("CLOUDFLASH_STORE_TEST"); path != "" {
		if err := readAll(path); err != nil {
			fmt.Printf("refused: %v\n", err)
		}
		return
	}
	whole, err := os.ReadFile(filled(t))
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const rounds = 24
	refused := 0
	for i := range rounds {
		b := bytes.Clone(whole)
		page := b[4096*r.IntN(len(b)/4096):][:4096]
		switch i % 4 {
		case 0:
			for j := range page {
				page[j] = byte(r.Uint32())
			}
		case 1:
			clear(page)
		case 2: // another page of the file
			copy(page, whole[4096*r.IntN(len(b)/4096):][:4096])
		case 3: // a few bytes of what says where things are
			for range 3 {
				page[r.IntN(64)] = byte(r.Uint32())
			}
		}
		path := filepath.Join(t.TempDir(), "test.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^TestRandomPages$")
		cmd.Env = append(os.Environ(), "CLOUDFLASH_STORE_TEST="+path)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("round %d: %v\n%.2000s", i, err, out)
		}
		if bytes.Contains(out, []byte("refused: ")) {
			refused++
		}
	}
	t.Logf("%d of %d refused", refused, rounds)
	if refused == 0 {
		t.Error("none was refused")
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	s, path := open(t)
	if err := s.Commit(Put(Meta, schemaKey, Schema+1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrNewer) {
		t.Errorf("err = %v, want ErrNewer", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was written to (%v)", err)
	}
}

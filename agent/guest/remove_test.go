package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveTree(t *testing.T) {
	at := t.TempDir()
	victim := filepath.Join(at, "victim")
	tree := filepath.Join(at, "tree")
	if err := os.MkdirAll(filepath.Join(victim, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 2500 { // more than one reading of a directory
		d := filepath.Join(tree, fmt.Sprintf("d%d", i%50), fmt.Sprintf(".removed-%d", i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "f"), nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"l", "d1/l", "d1/.removed-1/l"} {
		if err := os.Symlink(victim, filepath.Join(tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(tree, ".removed-1"), 0o755); err != nil { // the name that it would take itself
		t.Fatal(err)
	}
	if err := RemoveTree(tree); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(tree); err == nil {
		t.Error("it is there")
	}
	if err := os.Symlink(victim, tree); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a link, then nothing
		if err := RemoveTree(tree); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(victim); err != nil || len(left) != 1 {
		t.Errorf("the victim's: %v, %v", left, err)
	}
}

func TestRemoveTreeDeeperThanFilesCanBeOpen(t *testing.T) {
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: had.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &had) }()
	tree := filepath.Join(t.TempDir(), "tree")
	dir := unix.AT_FDCWD
	for i := range 5000 {
		name := "d"
		if i == 0 {
			name = tree
		}
		if err := unix.Mkdirat(dir, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if dir != unix.AT_FDCWD {
			_ = unix.Close(dir)
		}
		dir = next
	}
	_ = unix.Close(dir)
	if err := RemoveTree(tree); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(tree); err == nil {
		t.Error("it is there")
	}
}

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVMsWithoutADatabaseAreNotErased(t *testing.T) {
	for what, c := range map[string]struct {
		make    func(cfg Config) string // returns what is to be named
		refused bool
	}{
		"nothing is there": {func(Config) string { return "" }, false},
		"data": {func(cfg Config) string {
			return mkdir(t, cfg.StateDir, "vms", "0123456789", "data")
		}, true},
		"an init": {func(cfg Config) string { return mkdir(t, cfg.RunDir, "vms", "0123456789") }, true},
		"a slice": {func(cfg Config) string { return mkdir(t, cfg.CgroupParent, "vms", "0123456789") }, true},
		"a pool":  {func(cfg Config) string { return write(t, filepath.Join(cfg.StateDir, "pool.xfs"), "x") }, true},
		"an empty database": {func(cfg Config) string {
			write(t, filepath.Join(cfg.StateDir, databaseFile), "")
			return mkdir(t, cfg.StateDir, "vms", "0123456789")
		}, true},
		"a database": {func(cfg Config) string {
			write(t, filepath.Join(cfg.StateDir, databaseFile), "x")
			return mkdir(t, cfg.StateDir, "vms", "0123456789")
		}, false},
	} {
		cfg := Config{StateDir: t.TempDir(), RunDir: t.TempDir(), CgroupParent: t.TempDir()}
		mkdir(t, cfg.StateDir, "vms")
		named := c.make(cfg)
		err := checkOwnerless(cfg)
		if errors.Is(err, ErrOwnerless) != c.refused {
			t.Errorf("%s: %v", what, err)
		}
		if c.refused {
			named, _, _ = strings.Cut(named, "/data")
			if !strings.Contains(err.Error(), named) || !strings.Contains(err.Error(), "--erase") {
				t.Errorf("%s: %v, want %s in it", what, err, named)
			}
		}
		cfg.Erase = true
		if err := checkOwnerless(cfg); err != nil {
			t.Errorf("%s, to be erased: %v", what, err)
		}
	}
}

func mkdir(t *testing.T, elem ...string) string {
	t.Helper()
	dir := filepath.Join(elem...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cloudflash/agent/storage"
	"cloudflash/agent/vm"
)

// databaseFile has what is intended. Without it the agent cannot tell which VMs are its
// own.
const databaseFile = "cloudflash.db"

// ErrOwnerless means that there are VMs here, but no database that knows them:
// to start would be to erase them.
var ErrOwnerless = errors.New("VMs without a database")

// checkOwnerless refuses to start on an empty or missing database where VMs
// are. It runs before anything is made.
func checkOwnerless(cfg Config) error {
	path := filepath.Join(cfg.StateDir, databaseFile)
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Size() > 0:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}

	found, err := ownerless(cfg)
	if err != nil {
		return err
	}
	if len(found) == 0 || cfg.Erase {
		return nil
	}
	const shown = 5
	names := strings.Join(found[:min(shown, len(found))], ", ")
	if more := len(found) - shown; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("%w: %s is missing or empty, but there is %s. Put the database back, "+
		"or start once with --erase to erase these VMs and their data", ErrOwnerless, path, names)
}

// ownerless is what there is of VMs: their data, their inits, their slices.
func ownerless(cfg Config) ([]string, error) {
	var found []string
	for _, dir := range []string{cfg.StateDir, cfg.RunDir, cfg.CgroupParent} {
		entries, err := os.ReadDir(filepath.Join(dir, "vms"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() && e.Name() != vm.LostDir {
				found = append(found, filepath.Join(dir, "vms", e.Name()))
			}
		}
	}
	if pool := filepath.Join(cfg.StateDir, storage.PoolFile); len(found) == 0 {
		if _, err := os.Stat(pool); err == nil {
			found = append(found, pool+" with the data of VMs") // not mounted, so nobody can look into it
		}
	}
	slices.Sort(found)
	return found, nil
}

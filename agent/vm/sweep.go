package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cloudflash/agent/guest"
	"cloudflash/agent/state"
	"cloudflash/cgroup"
)

// LostDir is where the data of VMs goes that no record knows, beside that of VMs: in
// another file system it could not be moved to.
const LostDir = ".lost"

// Sweep removes what carries our mark and belongs to no VM: slices, links, run
// directories. Data is set aside.
func (p *Platform) Sweep(ctx context.Context) error {
	known := map[string]bool{}
	for _, v := range p.cfg.VMs() {
		known[v.ID] = true
	}
	ids, err := p.cfg.Parent.Slices()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if known[id] {
			continue
		}
		s := p.cfg.Parent.Slice(id)
		if err := errors.Join(cgroup.IgnoreGone(s.Kill(ctx)), s.Remove(ctx)); err != nil {
			p.log.Error("sweep slice", "id", id, "err", err)
		}
	}
	if err := p.network.Sweep(ctx, known); err != nil {
		p.log.Error("sweep network", "err", err)
	}

	remove := p.setAside
	if p.cfg.Erase {
		remove = guest.RemoveTree
	}
	err = errors.Join(p.sweepDirs(p.cfg.RunDir, known, guest.RemoveTree), p.sweepDirs(p.cfg.StateDir, known, remove))
	if err := p.sweepStorage(ctx); err != nil { // when their directories are gone
		p.log.Error("sweep storage", "err", err)
	}
	return err
}

// sweepDirs removes the directories below root that belong to no VM.
func (p *Platform) sweepDirs(root string, known map[string]bool, remove func(string) error) error {
	entries, err := os.ReadDir(filepath.Join(root, "vms"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if known[e.Name()] || e.Name() == LostDir {
			continue
		}
		if err := remove(filepath.Join(root, "vms", e.Name())); err != nil {
			p.log.Error("sweep directory", "path", e.Name(), "err", err)
		}
	}
	return nil
}

// setAside moves what nobody knows out of the way. Data is erased with its VM, or not
// at all.
func (p *Platform) setAside(path string) error {
	lost := filepath.Join(filepath.Dir(path), LostDir)
	if err := os.Mkdir(lost, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	to := filepath.Join(lost, filepath.Base(path)+"-"+time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(path, to); err != nil {
		return err
	}
	p.cfg.State.Note(state.Event{
		Level:   state.LevelWarn,
		Kind:    "data.set_aside",
		Message: fmt.Sprintf("%s belongs to no VM and was moved to %s; delete it when nobody misses it", path, to),
	})
	return nil
}

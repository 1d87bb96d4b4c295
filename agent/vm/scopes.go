package vm

import (
	"context"
	"errors"
	"strings"

	"cloudflash/agent/cloudlet"
	"cloudflash/cgroup"
)

const (
	initScope   = "init" // the leaf of a VM's init
	scopePrefix = "cl-"  // of those of cloudlets and of commands of vm exec
)

// Scope is the cgroup of a cloudlet or of a command of vm exec.
func (v *VM) Scope(id string) *cgroup.Scope { return v.slice.Scope(scopePrefix + id) }

// MakeScope makes the cgroup of a cloudlet or of a command of vm exec.
func (v *VM) MakeScope(id string, sla int) (*cgroup.Scope, error) {
	s := v.Scope(id)
	if err := s.Create(); err != nil {
		return s, err
	}
	if err := s.Chown(v.UIDBase(), v.UIDBase()); err != nil {
		return s, err
	}
	weight, group := cloudlet.Weight(sla), true
	return s, s.Apply(cgroup.Limits{CPUWeight: &weight, OOMGroup: &group})
}

// ScopeIDs are the cloudlets and commands of vm exec that have a cgroup.
func (v *VM) ScopeIDs() ([]string, error) {
	names, err := v.slice.Scopes()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		if id, ok := strings.CutPrefix(name, scopePrefix); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// EachScope freezes or thaws every cloudlet and command of vm exec, but those that are to
// be left out. The init is not among them.
func (l *Lease) EachScope(
	ctx context.Context, act func(*cgroup.Scope, context.Context) error, leave func(id string) bool,
) error {
	ids, err := l.ScopeIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if leave(id) {
			continue
		}
		if err := cgroup.IgnoreGone(act(l.Scope(id), ctx)); err != nil {
			return err
		}
	}
	return nil
}

// SweepScopes removes the cgroups of all but those that live, of which is asked once the
// cgroups are known: what comes to life in between stays.
func (v *VM) SweepScopes(ctx context.Context, lives func() map[string]bool) {
	if !v.slice.Exists() {
		return
	}
	names, err := v.slice.Scopes()
	if err != nil {
		v.p.log.Error("sweep scopes", "vm", v.Name, "err", err)
		return
	}

	live := lives()
	for _, name := range names {
		id, ours := strings.CutPrefix(name, scopePrefix)
		if name == initScope || ours && live[id] {
			continue
		}
		s := v.slice.Scope(name)
		if err := errors.Join(cgroup.IgnoreGone(s.Kill(ctx)), s.Remove(ctx)); err != nil {
			v.p.log.Error("sweep scope", "vm", v.Name, "scope", name, "err", err)
		}
	}
}

package agent

import (
	"cmp"
	"context"
	"strconv"

	"cloudflash/agent/autoscale"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"
	"cloudflash/agent/vm"
)

// rules are what all policies on this host go by.
func (a *Agent) rules() *policy.Host {
	return &policy.Host{
		Mode:     cmp.Or(a.cfg.Autoscale, string(autoscale.Auto)),
		Idle:     a.cfg.Idle,
		Ranges:   a.cfg.Ranges,
		Defaults: a.cfg.Defaults,
		CPUs:     float64(a.host.Facts().CPUs),
	}
}

// Policy returns how limits are scaled: of a VM, or, where ref is empty, of the host.
func (a *Agent) Policy(ref string) (policy.Policy, error) {
	s := a.state.View()
	r, err := policyTarget(s, ref)
	if err != nil {
		return policy.Policy{}, err
	}
	return a.rules().Show(s, r, a.roomFor()), nil
}

// policyTarget is nil for the host.
func policyTarget(s state.View, ref string) (*vmRecord, error) {
	if ref == "" {
		return nil, nil
	}
	if r := s.FindVM(ref); r != nil {
		return r, nil
	}
	return nil, state.NoVM(ref)
}

// SetPolicy replaces the policy that was set for a VM, or, where ref is empty, for
// the host. A version that is not empty has to be the present one.
func (a *Agent) SetPolicy(ctx context.Context, ref string, own PolicyLayer, version string) (policy.Policy, error) {
	var l *vm.Lease
	if ref != "" {
		v, err := a.lookup(ref)
		if err != nil {
			return policy.Policy{}, err
		}
		l = v.Work()
		defer l.Release()
		ref = v.ID
	}
	r, err := a.storePolicy(ref, own, version)
	if err != nil {
		return policy.Policy{}, err
	}
	if r == nil {
		a.spawn(func(ctx context.Context) { a.settleAll(ctx) })
	} else {
		a.settle(context.WithoutCancel(ctx), l) // stored is stored, though nobody waits any more
	}
	return a.Policy(ref)
}

func (a *Agent) storePolicy(ref string, own PolicyLayer, version string) (*vmRecord, error) {
	room := a.roomFor()
	var r *vmRecord
	err := a.state.Update(func(tx *state.Tx) (err error) {
		if r, err = policyTarget(tx.View, ref); err != nil {
			return err
		}
		old := tx.Policy()
		if r != nil {
			old = r.Own
		}
		if version != "" && version != strconv.Itoa(old.Gen) {
			return fault.Refuse(fault.ErrPrecondition, "precondition_failed", "read the policy again, and change that",
				"the policy was changed meanwhile: it has version %d, not %s", old.Gen, fault.Quote(version))
		}
		if err := a.rules().CheckLayer(tx.View, r, own, room); err != nil {
			return err
		}

		next := ownPolicy{Layer: own, Gen: old.Gen + 1}
		if r == nil {
			tx.SetPolicy(next)
			tx.Tell(Event{Level: LevelInfo, Kind: "autoscale.policy", Message: "the host's autoscaling policy was changed"})
			return nil
		}
		rec := *r
		rec.Own = next
		tx.PutVM(rec)
		tx.Tell(Event{Level: LevelInfo, Kind: "autoscale.policy", VM: r.ID, Message: "the autoscaling policy of VM " + r.Name + " was changed"})
		a.touch(r.ID, "its policy was changed")
		return nil
	})
	return r, err
}

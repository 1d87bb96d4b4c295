package agent

import "testing"

// Between two rounds the scaler of a VM has the policy of before, and the loop may look
// ten times: what was changed meanwhile must not be undone.
func TestNothingIsDecidedByThePolicyOfBefore(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *Agent){
		"the VM's own":  func(t *testing.T, a *Agent) { a.edit(t, "vm0", func(r *vmRecord) { r.Own.Gen++ }) },
		"the host's":    func(t *testing.T, a *Agent) { a.own(t, ownPolicy{Gen: 1}) },
		"the VM's size": func(t *testing.T, a *Agent) { a.edit(t, "vm0", func(r *vmRecord) { r.Spec.CPUs = 1 }) },
	} {
		t.Run(name, func(t *testing.T) {
			a := fakeVMs(t, 1)
			a.scaleRound(a.followAll(), false)
			f := a.scaling.followers["vm0"]
			looks := func() bool {
				before := f.last.At
				f.looks = 1
				a.scaleRound(a.hottest(), true)
				return f.last.At.After(before)
			}
			if !looks() {
				t.Fatal("it is not looked at")
			}
			change(t, a)
			if looks() {
				t.Error("it is looked at with the policy of before")
			}
			a.scaleRound(a.followAll(), true)
			if !looks() {
				t.Error("it is not looked at with the new one")
			}
		})
	}
}

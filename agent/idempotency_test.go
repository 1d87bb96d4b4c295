package agent

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"
	"cloudflash/agent/policy"
	"cloudflash/agent/state"

	"github.com/google/go-cmp/cmp"
)

// refusalOf is the code of a refusal, or what else an error says.
func refusalOf(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestTheSameRequestMakesOneCloudlet(t *testing.T) {
	r := newIdleRig(t, policy.Idle{})
	r.vm("web")
	req := cloudlet.Submit{VM: "web", Argv: []string{"true"}, Key: "k"}
	first, err := r.SubmitCloudlet(t.Context(), req)
	r.ok(err)

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if again, err := r.SubmitCloudlet(t.Context(), req); err != nil || again.ID != first.ID {
				t.Errorf("again: %s, not %s: %v", again.ID, first.ID, err)
			}
		})
	}
	wg.Wait()
	other := req
	other.Argv = []string{"false"}
	if _, err := r.SubmitCloudlet(t.Context(), other); refusalOf(err) != "idempotency_key_reused" || !errors.Is(err, fault.ErrInvalid) {
		t.Errorf("another request: %v", err)
	}
	if _, err := r.CreateVM(t.Context(), VMCreate{Key: "k", Name: "!"}); refusalOf(err) != "invalid_name" {
		t.Errorf("the key of a cloudlet is none of a VM: %v", err)
	}
	for range 2 { // without a key, each is another
		_, err = r.SubmitCloudlet(t.Context(), cloudlet.Submit{VM: "web", Argv: []string{"true"}})
		r.ok(err)
	}
	if n := len(r.Cloudlets()); n != 3 {
		t.Errorf("%d cloudlets", n)
	}

	r.state, err = state.Load(r.store, state.Config{}) // as after kill -9
	r.ok(err)
	if again, err := r.SubmitCloudlet(t.Context(), req); err != nil || again.ID != first.ID {
		t.Errorf("after a restart: %s, not %s: %v", again.ID, first.ID, err)
	}
}

func TestBadKeysAreRefused(t *testing.T) {
	r := newIdleRig(t, policy.Idle{})
	for _, key := range []string{strings.Repeat("x", longestKey+1), "a\nb", "\x7f", "clé"} {
		if _, err := r.SubmitCloudlet(t.Context(), cloudlet.Submit{Key: key}); refusalOf(err) != "invalid_idempotency_key" {
			t.Errorf("%.10q: %v", key, err)
		}
		if _, err := r.CreateVM(t.Context(), VMCreate{Key: key}); refusalOf(err) != "invalid_idempotency_key" {
			t.Errorf("%.10q: %v", key, err)
		}
	}
	if _, err := r.SubmitCloudlet(t.Context(), cloudlet.Submit{Key: strings.Repeat("x", longestKey)}); err != nil {
		t.Error(err)
	}
}

// A key is good for a day, by the clock that nobody sets; after a reboot, by the other.
func TestKeysAreForgotten(t *testing.T) {
	now := clock.Now()
	for what, test := range map[string]struct {
		boot  string
		at    time.Time
		age   time.Duration
		known bool
	}{
		"of yesterday":                      {"this boot", now.Day, keepKeys, false},
		"nearly so":                         {"this boot", now.Day, keepKeys - time.Minute, true},
		"the clock was set":                 {"this boot", now.Day.Add(-1000 * time.Hour), time.Minute, true},
		"of yesterday, before a reboot":     {"another", now.Day.Add(-keepKeys), -time.Hour, false},
		"of a minute ago, before a reboot":  {"another", now.Day.Add(-time.Minute), 1000 * time.Hour, true},
		"of yesterday, the clock set after": {"this boot", now.Day.Add(time.Hour), keepKeys, false},
	} {
		r := newIdleRig(t, policy.Idle{})
		_, err := r.SubmitCloudlet(t.Context(), cloudlet.Submit{Name: "a", Key: "old"})
		r.ok(err)
		r.must(t, func(tx *state.Tx) {
			for m := range tx.MadeInOrder() {
				old := *m
				old.Boot, old.At, old.AtBoot = test.boot, test.at, now.Boot-test.age
				tx.PutMade(old)
			}
		})
		_, err = r.SubmitCloudlet(t.Context(), cloudlet.Submit{Name: "a", Key: "old"})
		if said := refusalOf(err); (said == "<nil>") != test.known || !test.known && said != "name_taken" {
			t.Errorf("%s: asked again, it says %s", what, said)
		}
		_, err = r.SubmitCloudlet(t.Context(), cloudlet.Submit{Name: "b", Key: "new"})
		r.ok(err)
		n := 0
		for range r.state.View().MadeInOrder() {
			n++
		}
		if (n == 2) != test.known {
			t.Errorf("%s: %d keys are left", what, n)
		}
	}
}

func TestTheSameRequestMakesOneVM(t *testing.T) {
	r := newIdleRig(t, policy.Idle{})
	req := VMCreate{Spec: Spec{CPUs: 0.1, MemoryBytes: 32 * mib}, Key: "k"} // a name is made up
	key, err := askedWith("VM", req.Key, req)
	r.ok(err)
	v, _, err := r.admit(req.withDefaults(r.cfg.Defaults), key)
	r.ok(err)
	again, made, err := r.admit(req.withDefaults(r.cfg.Defaults), key)
	if err != nil || again != nil || made != v.ID {
		t.Fatalf("%v, %q, %v; want %q", again, made, err, v.ID)
	}

	got := make(chan VM)
	go func() {
		one, err := r.CreateVM(t.Context(), req)
		if err != nil {
			t.Error(err)
		}
		got <- one
	}()
	select {
	case one := <-got:
		t.Errorf("it is answered before the VM is there: %+v", one)
	case <-time.After(50 * time.Millisecond):
	}
	_, err = r.setState(v, VMRunning, "", Event{Level: LevelInfo, Kind: "vm.created", VM: v.ID})
	r.ok(err)
	if one := <-got; one.ID != v.ID || one.State != VMRunning {
		t.Errorf("%+v", one)
	}

	r.must(t, func(tx *state.Tx) { tx.DeleteVM(v.ID) })
	if _, err := r.CreateVM(t.Context(), req); refusalOf(err) != "idempotency_key_spent" || !errors.Is(err, fault.ErrConflict) {
		t.Errorf("deleted meanwhile: %v", err)
	}
}

// The VM that a request was to make could not be made: who has asked again meanwhile is
// not told that its key is spent, but waits until nothing is left, and tries it again.
func TestARequestThatFailedIsTriedAgain(t *testing.T) {
	r := newIdleRig(t, policy.Idle{})
	req := VMCreate{Name: "web", Spec: Spec{CPUs: 0.1, MemoryBytes: 32 * mib}, Key: "k"}
	key, err := askedWith("VM", req.Key, req)
	r.ok(err)
	v, _, err := r.admit(req.withDefaults(r.cfg.Defaults), key)
	r.ok(err)
	got := make(chan error)
	go func() {
		_, err := r.CreateVM(t.Context(), req)
		got <- err
	}()
	waits := func(while string) {
		t.Helper()
		select {
		case err := <-got:
			t.Fatalf("it is answered while the VM is %s: %v", while, err)
		case <-time.After(50 * time.Millisecond):
		}
	}

	waits("being created")
	r.ok(r.updateAnyway(v, func(rec *vmRecord) { rec.State, rec.Unmade = VMDeleting, true }))
	waits("being erased")
	r.must(t, func(tx *state.Tx) { r.removeRecord(tx, v) })
	r.forget(v)
	err = <-got // there is no kernel here
	if err == nil || !strings.Contains(err.Error(), "create VM web") || refusalOf(err) == "idempotency_key_spent" {
		t.Errorf("%v", err)
	}
}

// A newer agent knows more fields; a request that does not say them is the same.
func TestWhatIsLeftOutDoesNotCount(t *testing.T) {
	type older struct {
		Name string
		Spec struct{ CPUs float64 }
		Argv []string
	}
	type newer struct {
		Name  string
		Spec  struct{ CPUs, GPUs float64 }
		Argv  []string
		Class string
		Env   map[string]string
		Rules *struct{ Up float64 }
		Key   string `json:"-"`
	}
	var o older
	var n newer
	o.Name, o.Spec.CPUs, o.Argv = "web", 0.5, []string{"echo", "", "0"}
	n.Name, n.Spec.CPUs, n.Argv, n.Key = "web", 0.5, []string{"echo", "", "0"}, "k"
	first := said(reflect.ValueOf(o))
	if diff := cmp.Diff(first, said(reflect.ValueOf(n))); diff != "" {
		t.Error(diff)
	}
	for what, change := range map[string]func(*newer){
		"an empty argument":    func(n *newer) { n.Argv = []string{"echo", "0"} },
		"an empty variable":    func(n *newer) { n.Env = map[string]string{"A": ""} },
		"0 in place of a rule": func(n *newer) { n.Rules = &struct{ Up float64 }{} },
	} {
		other := n
		change(&other)
		if cmp.Diff(first, said(reflect.ValueOf(other))) == "" {
			t.Errorf("%s makes no difference", what)
		}
	}
}

// What an agent has stored that took the whole request for its body.
func TestKeysOfAnEarlierAgent(t *testing.T) {
	r := newIdleRig(t, policy.Idle{})
	r.vm("web")
	req := cloudlet.Submit{VM: "web", Argv: []string{"true"}, Key: "k"}
	first, err := r.SubmitCloudlet(t.Context(), req)
	r.ok(err)
	key, err := askedWith("cloudlet", req.Key, req)
	r.ok(err)
	r.must(t, func(tx *state.Tx) {
		old := *tx.Made(key.key)
		old.Body = key.full
		tx.PutMade(old)
	})
	if again, err := r.SubmitCloudlet(t.Context(), req); err != nil || again.ID != first.ID {
		t.Errorf("%s, not %s: %v", again.ID, first.ID, err)
	}
}

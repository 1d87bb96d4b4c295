package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cloudflash/agent/guest"
	"cloudflash/agent/store"
	"cloudflash/agent/vm"
)

// What an agent finds when it comes back that another, which was killed or could not write, has left.

// Frozen by an agent that was killed before it had stored that: the store says running, so it runs.
func TestSystemFrozenByAKilledAgentRunsOn(t *testing.T) {
	l := newLive(t)
	v := l.create("half", small())
	c := l.sh("half", "while :; do :; done")
	l.state(c.ID, CloudletRunning)
	scope := l.known(v.ID).Scope(c.ID)
	l.stop()
	if err := scope.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}

	l.start()
	l.state(c.ID, CloudletRunning)
	before := cpuOf(t, l, v.ID)
	l.until(func() bool { return cpuOf(t, l, v.ID) > before+0.1 }, "it runs on")
}

// An exit is acknowledged to the init only once it is stored: one that could not be is stored by the next agent.
func TestSystemExitThatCannotBeStoredIsKept(t *testing.T) {
	l := newLive(t)
	v := l.create("unsaid", small())
	c := l.sh("unsaid", "until [ -e /data/end ]; do sleep 0.05; done; exit 7")
	l.state(c.ID, CloudletRunning)
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.known(v.ID).DataDir(), "end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l.until(func() bool { return l.log.said("msg=store") }, "the agent could not store it")
	if kept, err := guest.ReadJournal(l.known(v.ID).RunDir()); err != nil || len(kept) != 1 {
		t.Errorf("the journal holds %v, %v", kept, err)
	}

	l.stop()
	l.start()
	if c := l.ended(c.ID); c.ExitCode == nil || *c.ExitCode != 7 {
		t.Errorf("%+v", c)
	}
}

// An agent with other directories leaves the VMs of this one alone, whether it runs or not.
func TestSystemSecondAgentIsRefused(t *testing.T) {
	l := newLive(t)
	v := l.create("first", small())
	c := l.sh("first", "sleep 600")
	c = l.state(c.ID, CloudletRunning)
	other := l.cfg
	other.StateDir, other.RunDir = stateDir(t), t.TempDir()
	other.Log = slog.New(slog.DiscardHandler)
	refused := func(when string, cfg Config, want error, named string) {
		t.Helper()
		a, err := New(cfg)
		if err == nil {
			_ = a.Close()
		}
		if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), named) {
			t.Errorf("%s: %v", when, err)
		}
	}

	refused("without a database", other, ErrOwnerless, "--erase")
	st, err := store.Open(filepath.Join(other.StateDir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	refused("with one", other, ErrOtherAgent, "locked")
	l.stop()
	refused("while the first is down", other, ErrOtherAgent, l.cfg.StateDir)

	l.start()
	if now := l.state(c.ID, CloudletRunning); now.PID != c.PID {
		t.Errorf("pid %d, was %d", now.PID, c.PID)
	}
	l.delete(v.ID)
	l.stop()
	a, err := New(other)
	if err != nil {
		t.Fatalf("where no VM is left: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	l.start()
}

// Data that no record knows is moved out of the way, and stays there.
func TestSystemUnknownDataIsSetAside(t *testing.T) {
	l := newLive(t)
	l.create("known", small())
	l.stop()
	unknown := filepath.Join(l.cfg.StateDir, "vms", "ffffffffff")
	if err := os.MkdirAll(filepath.Join(unknown, "data"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(unknown, "data", "thesis"), []byte("years of work"), 0o600); err != nil {
		t.Fatal(err)
	}

	for range 2 {
		l.start()
		found, err := filepath.Glob(filepath.Join(l.cfg.StateDir, "vms", vm.LostDir, "ffffffffff-*", "data", "thesis"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v %v", found, err)
		}
		if b, err := os.ReadFile(found[0]); err != nil || string(b) != "years of work" {
			t.Errorf("%q %v", b, err)
		}
		if _, err := os.Stat(unknown); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
		l.stop()
	}
	l.start()
	events, err := l.Events(0, 1000)
	if n := strings.Count(fmt.Sprint(events), "belongs to no VM"); n != 1 || err != nil {
		t.Errorf("it was told of %d times, %v", n, err)
	}
}

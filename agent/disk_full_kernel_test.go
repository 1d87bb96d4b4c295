package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cloudflash/agent/cloudlet"
	"cloudflash/agent/fault"

	"golang.org/x/sys/unix"
)

// On a full disk nothing new is taken; what runs ends, can be cancelled and deleted, and
// an agent starts. With room again, all is as it was.
func TestSystemFullDisk(t *testing.T) {
	l := newLive(t)
	l.stop()
	l.cfg.StateDir, l.cfg.Storage = t.TempDir(), StorageNone
	if err := os.Chmod(l.cfg.StateDir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", l.cfg.StateDir, "tmpfs", 0, "size=32m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(l.cfg.StateDir, unix.MNT_DETACH) })
	l.start()

	spec := small()
	spec.StorageBytes = 64 * mib
	v := l.create("web", spec)
	ends := l.sh("web", "until [ -e /data/go ]; do sleep 0.1; done; exit 3")
	stays := l.sh("web", "exec sleep 1000")
	l.state(ends.ID, CloudletRunning)
	l.state(stays.ID, CloudletRunning)
	full := fill(t, filepath.Join(l.cfg.StateDir, "full"))

	// They wait, and take room in the database until there is none to spare.
	much := cloudlet.Submit{Argv: []string{"true", strings.Repeat("x", 80<<10)}, Request: Request{CPUs: 1000}}
	var err error
	for range 1000 {
		if _, err = l.SubmitCloudlet(t.Context(), much); err != nil {
			break
		}
	}
	var e *fault.Error
	if !errors.As(err, &e) || !errors.Is(err, fault.ErrFull) || e.Code != "disk_full" || !strings.Contains(e.Hint, l.cfg.StateDir) {
		t.Fatalf("submit: %v", err)
	}
	for _, c := range l.Health(t.Context()) {
		if c.Name == "store" && c.OK {
			t.Errorf("the store is said to be well: %s", c.Detail)
		}
	}
	at := l.Snapshot().Seq
	l.until(func() bool { return l.Snapshot().Seq > at }, "a picture")
	if n := l.Snapshot().Outcomes.Unstored; n == 0 {
		t.Error("no failure is counted")
	}

	if err := os.WriteFile(filepath.Join(l.cfg.StateDir, "vms", v.ID, "data", "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if c := l.ended(ends.ID); c.State != CloudletFailed || *c.ExitCode != 3 {
		t.Errorf("what ended: %s, %s", c.State, c.Reason)
	}
	l.stop()
	l.start()
	if c := l.state(stays.ID, CloudletRunning); c.PID == 0 {
		t.Errorf("after a restart: %+v", c)
	}
	if _, err := l.CancelCloudlet(t.Context(), stays.ID); err != nil {
		t.Fatal(err)
	}
	if c := l.ended(stays.ID); c.State != CloudletCancelled {
		t.Errorf("what was cancelled: %s, %s", c.State, c.Reason)
	}
	if _, err := l.SubmitCloudlet(t.Context(), much); !errors.Is(err, fault.ErrFull) {
		t.Errorf("submit: %v", err)
	}
	l.delete("web")

	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	l.create("again", spec)
	if c := l.ended(l.sh("again", "exit 0").ID); c.State != CloudletSucceeded {
		t.Errorf("with room again: %s, %s", c.State, c.Reason)
	}
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return path
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"

	"golang.org/x/sys/unix"
)

// TestSystemSpoiltImage starts the init of a VM again after its root has put
// directories where files are written, and filled its storage.
//
// It takes 20 s: twelve inits are started, and a storage is filled twice.
func TestSystemSpoiltImage(t *testing.T) {
	s := systemtest.Start(t)
	image := filepath.Join(s.StateDir, "image")
	if err := firstError(os.MkdirAll(filepath.Join(image, "etc"), 0o755), os.WriteFile(filepath.Join(image, "etc/hosts"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	s.Out("vm", "create", "web", "--memory", "128MiB", "--storage", "64MiB", "--image", image)
	dir := filepath.Join(s.StateDir, "vms", s.VM("web").ID)
	upper := filepath.Join(dir, "upper/files")
	for name, spoil := range map[string]func() error{
		"a directory for a file": func() error {
			return firstError(os.RemoveAll(filepath.Join(upper, "etc/resolv.conf")), os.MkdirAll(filepath.Join(upper, "etc/resolv.conf/x"), 0o755))
		},
		"links": func() error {
			return firstError(os.RemoveAll(filepath.Join(upper, "etc")), os.Symlink("/data", filepath.Join(upper, "etc")),
				os.RemoveAll(filepath.Join(upper, "opt")), os.Symlink("/data", filepath.Join(upper, "opt")))
		},
		"no blocks": func() error { return fill(filepath.Join(dir, "data/big")) },
		"no inodes": func() error {
			for i := range 10_000 {
				if err := os.WriteFile(filepath.Join(dir, "data", strconv.Itoa(i)), nil, 0o600); err != nil {
					return full(err)
				}
			}
			return errors.New("no limit")
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() { // what is left of it is the next one's start
				data, _ := filepath.Glob(filepath.Join(dir, "data/*"))
				for _, f := range data {
					_ = os.Remove(f)
				}
			}()
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			for range 3 { // XFS may still count what the start before has removed
				endInit(t, s)
			}
			s.Out("vm", "exec", "web", "--", "burn", "--help")
		})
	}
}

// TestSystemFullVMIsErased deletes a VM whose storage is used up by a deep tree.
func TestSystemFullVMIsErased(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "full", "--memory", "128MiB", "--storage", "64MiB")
	data := filepath.Join(s.StateDir, "vms", s.VM("full").ID, "data")
	for i := range 900 {
		dir := filepath.Join(data, strconv.Itoa(i%30), strconv.Itoa(i/30), "d")
		if err := firstError(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "f"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := fill(filepath.Join(data, "29", "29", "d", "big")); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("full"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Dir(data)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is something left: %v", err)
	}
}

// endInit kills the init of the VM web, and waits until it has another.
func endInit(t *testing.T, s *systemtest.Agent) {
	t.Helper()
	before := s.VM("web")
	if before.InitPID == 0 {
		t.Fatalf("it is %s and has no init: %s", before.State, before.Reason)
	}
	if err := unix.Kill(before.InitPID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	systemtest.Until(t, "the VM has a new init", func() bool {
		v := s.VM("web")
		if v.State == agent.VMFailed {
			t.Fatalf("%s: %s", v.State, v.Reason)
		}
		return v.InitPID != 0 && v.InitPID != before.InitPID && v.State == agent.VMRunning
	})

	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", s.VM("web").InitPID))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains("\n"+string(mounts), "\noverlay / overlay rw,") {
		t.Errorf("nothing can be deleted in the root of the VM:\n%s", mounts)
	}
}

// fill writes to a file until there is no room.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; size /= 2 {
		for err = nil; err == nil; _, err = f.Write(make([]byte, size)) {
		}
		if err := full(err); err != nil {
			return err
		}
	}
	return nil
}

func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil
	}
	return err
}

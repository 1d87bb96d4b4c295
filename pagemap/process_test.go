package pagemap

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// deepFile makes a file whose path is some 75 KiB long, and opens it.
func deepFile(t *testing.T) int {
	t.Helper()
	dir, err := unix.Open(t.TempDir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	name := strings.Repeat("d", 255)
	for i := 0; i < 300 && err == nil; i++ {
		var next int
		if err = unix.Mkdirat(dir, name, 0o700); err == nil {
			next, err = unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			_ = unix.Close(dir)
			dir = next
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, "f", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	return fd
}

func itself(t *testing.T) *Process {
	t.Helper()
	p, err := FS("/").OpenProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestProcessItself(t *testing.T) {
	p := itself(t)
	resident, err := p.Resident()
	name, nameErr := p.Name()
	if err != nil || nameErr != nil || resident < 100 || name == "" || strings.Contains(name, "\n") {
		t.Errorf("%d pages resident, %v; %q, %v", resident, err, name, nameErr)
	}
	all, truncated, err := p.Mappings(t.Context(), os.Getpagesize(), 9, 10000)
	var found uint64
	for _, m := range all {
		found += m.Present
	}
	// Memory of the race detector alone is more than what is looked at.
	if err != nil || truncated && !underRace || found < 100 && !underRace {
		t.Errorf("%d mappings, %d pages present, truncated %v, %v", len(all), found, truncated, err)
	}
	if some, truncated, err := p.Mappings(t.Context(), os.Getpagesize(), 9, 2); len(some) != 2 || !truncated || err != nil {
		t.Errorf("%+v, truncated %v, %v", some, truncated, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := p.Mappings(ctx, os.Getpagesize(), 9, 2); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Mappings of a file deep down make more text than is read, and little memory.
func TestMappingsOfADeepFile(t *testing.T) {
	fd := deepFile(t)
	for range 300 {
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(b) })
	}
	p := itself(t)
	var all []Mapping
	var truncated bool
	var err error
	used := allocated(func() { all, truncated, err = p.Mappings(t.Context(), os.Getpagesize(), 9, 2000) })
	deep := 0
	for _, m := range all {
		if len(m.Name) > maxNameBytes+len("…") {
			t.Errorf("a name of %d bytes", len(m.Name))
		}
		if strings.HasSuffix(m.Name, "d…") {
			deep++
		}
	}
	t.Logf("%d mappings, %d of the file, truncated %v, %d KiB allocated", len(all), deep, truncated, used>>10)
	if err != nil || !truncated || deep < 100 || deep >= 300 || used > 4<<20 {
		t.Errorf("%v, truncated %v, %d mappings of the file, %d KiB", err, truncated, deep, used>>10)
	}
}

func TestProcessGone(t *testing.T) {
	child := exec.CommandContext(t.Context(), "sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := FS("/").OpenProcess(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	_, _, mapsErr := p.Mappings(t.Context(), os.Getpagesize(), 9, 2)
	_, nameErr := p.Name()
	_, cgroupErr := p.Cgroup()
	_, residentErr := p.Resident()
	for _, err := range []error{mapsErr, nameErr, cgroupErr, residentErr} {
		if !errors.Is(err, ErrGone) {
			t.Error(err)
		}
	}
	if _, err := FS("/").OpenProcess(child.Process.Pid); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ptr[T any](v T) *T { return &v }

// process adds a process with one descriptor of a GPU and a pipe.
func process(t *testing.T, root string, pid, fd int, info string) {
	t.Helper()
	dir := filepath.Join(root, "proc", strconv.Itoa(pid))
	for _, d := range []string{"fd", "fdinfo"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Symlink("/dev/whatever/the/vm/calls/it", filepath.Join(dir, "fd", strconv.Itoa(fd)))
	_ = os.Symlink("pipe:[4711]", filepath.Join(dir, "fd", "1"))
	for name, text := range map[string]string{strconv.Itoa(fd): info, "1": info} {
		if err := os.WriteFile(filepath.Join(dir, "fdinfo", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// vmOf maps 100..199 to a VM.
func vmOf(pid int) (string, bool) { return "v1", pid >= 100 && pid < 200 }

func TestSampleDRM(t *testing.T) {
	cfg := tree(t, radeons())
	inv := discover(t, cfg)
	set := func(ns, cycles, total int) {
		process(t, cfg.Root, 100, 5, fmt.Sprintf(amdText, ns, ns/2))
		process(t, cfg.Root, 101, 6, fmt.Sprintf(amdText, ns, ns/2)) // a child with the same file
		process(t, cfg.Root, 102, 5, fmt.Sprintf(xeText, cycles, total))
		process(t, cfg.Root, 300, 5, "drm-driver:\tamdgpu\ndrm-client-id:\t99\ndrm-pdev:\t0000:0a:00.0\ndrm-memory-vram:\t1 KiB\n")
		process(t, cfg.Root, 103, 5, "drm-driver:\tvirtio_gpu\ndrm-client-id:\t1\ndrm-pdev:\t0000:00:02.0\n") // no unit
	}
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(inv)
		set(1e9, 1000, 2000)
		first, err := m.Sample(t.Context(), vmOf)
		if err != nil {
			t.Fatal(err)
		}
		if len(first.Processes) != 2 || first.Processes[0].BusyRatio != nil {
			t.Errorf("first sample: %+v, want two processes without ratios", first.Processes)
		}
		time.Sleep(2 * time.Second)
		set(15e8, 1300, 3000)
		got, err := m.Sample(t.Context(), vmOf)
		if err != nil {
			t.Fatal(err)
		}
		want := Sample{At: time.Now(),
			Units: []UnitUse{{"0000:03:00.0", ptr(0.3), ptr[int64](32 << 20)}, {"0000:0a:00.0", ptr(0.37), ptr[int64](1 << 30)}},
			Processes: []ProcessUse{{100, "v1", "0000:0a:00.0", ptr(0.25), ptr[int64](512 << 20)},
				{102, "v1", "0000:03:00.0", ptr(0.3), ptr[int64](32 << 20)}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// fake is an NVML that answers when it is told to.
type fake struct {
	hang   chan struct{}
	closed bool
	lost   error
}

func (f *fake) cards() ([]card, error) {
	<-f.hang
	return nil, f.lost
}

func (f *fake) sample() ([]UnitUse, []ProcessUse, error) {
	<-f.hang
	return []UnitUse{{Unit: uuid0, BusyRatio: ptr(0.5)}}, []ProcessUse{{PID: 100, Unit: uuid0}, {PID: 7, Unit: uuid0}}, f.lost
}

func (f *fake) close() error {
	f.closed = true
	return nil
}

func TestSampleOutlivesNVMLThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hang: make(chan struct{}), lost: errors.New("GPU is lost")}
		cfg := Config{Root: t.TempDir(), open: func() (library, error) { return f, nil }}
		m := NewMeter(Inventory{config: cfg, units: []Unit{{ID: uuid0, Vendor: NVIDIA}}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Sample(ctx, vmOf); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want a deadline", err)
		}
		if _, err := m.Sample(t.Context(), vmOf); !errors.Is(err, ErrBusy) {
			t.Errorf("err = %v, want ErrBusy", err)
		}
		if err := m.Close(); !errors.Is(err, ErrBusy) {
			t.Errorf("close: %v, want ErrBusy", err)
		}
		close(f.hang)
		synctest.Wait()
		s, err := m.Sample(t.Context(), vmOf)
		if !errors.Is(err, f.lost) || len(s.Units) != 1 || len(s.Processes) != 1 || s.Processes[0].VM != "v1" {
			t.Errorf("sample %+v, %v; want the unit, the VM's process and the error", s, err)
		}
		if err := m.Close(); err != nil || !f.closed {
			t.Errorf("close: %v, closed %v", err, f.closed)
		}
	})
}

func TestDiscoverOutlivesNVMLThatHangs(t *testing.T) {
	f := &fake{hang: make(chan struct{})}
	cfg := tree(t, hopper())
	cfg.open = func() (library, error) { return f, nil }
	synctest.Test(t, func(t *testing.T) {
		f.hang = make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		inv, err := Discover(ctx, cfg)
		if err != nil || len(inv.Units()) != 3 || len(inv.Notes()) != 1 {
			t.Errorf("%d units, %q, %v; want what the kernel tells", len(inv.Units()), inv.Notes(), err)
		}
		if s, err := NewMeter(inv).Sample(t.Context(), vmOf); err != nil || len(s.Units) != 0 {
			t.Errorf("sample %+v, %v; want nothing asked", s, err)
		}
		close(f.hang)
	})
}

func TestSampleWithoutNVMLKnowsNoUse(t *testing.T) {
	s, err := NewMeter(discover(t, tree(t, hopper()))).Sample(t.Context(), vmOf)
	if err != nil || len(s.Units) != 0 || len(s.Processes) != 0 {
		t.Errorf("sample %+v, %v", s, err)
	}
}

// TestLiveGPU looks at this host. It runs in both builds.
func TestLiveGPU(t *testing.T) {
	inv, err := Discover(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, note := range inv.Notes() {
		t.Log("note:", note)
	}
	if _, err := os.Stat("/dev/nvidiactl"); err != nil {
		t.Log("NOT RUN ON A GPU: nothing of this package has been tried on a real NVIDIA GPU here")
		t.Skip("no /dev/nvidiactl")
	}
	m := NewMeter(inv)
	defer m.Close()
	s, err := m.Sample(t.Context(), func(int) (string, bool) { return "all", true })
	if err != nil {
		t.Error(err)
	}
	if len(inv.Units()) == 0 {
		t.Error("there is /dev/nvidiactl and no unit")
	}
	for _, u := range inv.Units() {
		t.Logf("unit %+v", u)
	}
	t.Logf("sample %+v", s)
}

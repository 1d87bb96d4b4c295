package meter

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"cloudflash/cgroup"
)

// native is a cgroup of the real kernel without controllers, as any Linux with
// cgroup v2 mounted somewhere lets root make: cpu.stat and pressure are real.
func native(b *testing.B, name string) tree {
	b.Helper()
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		dir := filepath.Join(mount, fmt.Sprintf("cloudflash-bench-%d-%s", os.Getpid(), name))
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		b.Cleanup(func() { _ = os.Remove(dir) })
		if r, err := cgroup.OpenReader(dir); err == nil {
			_, err = r.CPU()
			_ = r.Close()
			if err == nil {
				return tree(dir)
			}
		}
	}
	b.Skip("needs root and a cgroup v2 mount")
	return ""
}

// BenchmarkPass is one second's work for so many VMs. Its time divided by a
// second is the share of one core. Files are captured ones (all of them, on the
// file system of the tests) or the kernel's own that need no controller; VMs move
// every second or never.
func BenchmarkPass(b *testing.B) {
	for _, vms := range []int{100, 1000} {
		for _, files := range []string{"captured", "native"} {
			for _, moves := range []bool{true, false} {
				b.Run(fmt.Sprintf("vms=%d/%s/moving=%v", vms, files, moves), func(b *testing.B) { benchmarkPass(b, vms, files == "native", moves) })
			}
		}
	}
}

func benchmarkPass(b *testing.B, vms int, real, moves bool) {
	m := New(Config{StateDir: b.TempDir()})
	defer m.Close()
	captured := tree("")
	if !real {
		captured = newTree(b) // one for all: the page cache makes no difference
	}
	var probes []*Probe
	for i := range vms {
		id := fmt.Sprint("vm", i)
		if real {
			captured = native(b, id)
		}
		p, err := m.VM(id, captured)
		if err != nil {
			b.Fatal(err)
		}
		defer p.Close()
		probes = append(probes, p)
	}
	now := time.Now()
	pass := func() {
		now = now.Add(time.Second)
		if moves {
			for _, p := range probes {
				p.raw[CPUTime]-- // as if there had been a microsecond since
			}
		}
		m.Pass(now)
	}
	for range 100 {
		pass()
	}
	b.ReportAllocs()
	began := cpuTime() // neighbours do not count
	for b.Loop() {
		pass()
	}
	perPass := (cpuTime() - began) / time.Duration(b.N)
	b.ReportMetric(100*perPass.Seconds(), "%core")
	b.ReportMetric(float64(perPass.Microseconds())/float64(vms), "us/vm")
}

// BenchmarkHistoryMemory tells what a day of history takes of one VM.
func BenchmarkHistoryMemory(b *testing.B) {
	noise := rand.New(rand.NewPCG(7, 8))
	kinds := map[string]func(sec int64, s int) float64{
		"idle": func(_ int64, s int) float64 { return float64(s) },
		"busy": func(sec int64, s int) float64 { // all that is measured wanders by some per cent
			if s >= vmGPUBusy {
				return 1
			}
			return 1e6 * (1 + 0.1*noise.Float64())
		},
		"noise": func(int64, int) float64 { return noise.Float64() * 1e9 },
	}
	for name, f := range kinds {
		b.Run(name, func(b *testing.B) {
			var h *history
			for b.Loop() {
				h = newHistory(vmSeries)
				feed(h, start, start+25*3600, f)
			}
			b.ReportMetric(float64(h.bytes()+h.fixed()), "bytes/vm")
			b.ReportMetric(float64(h.bytes()), "packed-bytes/vm")
		})
	}
}

// BenchmarkHistoryRead is a day of all series of one VM, as a dashboard asks for it.
func BenchmarkHistoryRead(b *testing.B) {
	noise := rand.New(rand.NewPCG(7, 8))
	m := New(Config{})
	m.past["vm1"] = newHistory(vmSeries)
	feed(m.past["vm1"], start, start+25*3600, func(int64, int) float64 { return noise.Float64() * 1e9 })
	for b.Loop() {
		if _, err := m.VMWindow("vm1", time.Unix(start+25*3600, 0), Longest, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSave is writing a day of history of 100 VMs.
func BenchmarkSave(b *testing.B) {
	m := New(Config{File: filepath.Join(b.TempDir(), "history")})
	noise := rand.New(rand.NewPCG(7, 8))
	h := newHistory(vmSeries)
	feed(h, start, start+25*3600, func(int64, int) float64 { return 1e6 * (1 + 0.1*noise.Float64()) })
	for i := range 100 {
		m.past[fmt.Sprint("vm", i)] = h
	}
	for b.Loop() {
		if err := m.Save(); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(m.cfg.File)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/(1<<20), "MiB")
	runtime.KeepAlive(m)
}

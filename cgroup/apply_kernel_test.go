package cgroup_test

import (
	"errors"
	"testing"
	"time"

	"cloudflash/cgroup"
	"github.com/google/go-cmp/cmp"
)

// What Apply refuses leaves every limit as it was, also those that come before
// the bad one in the order of writing.
func TestSystemRefusedLimitsChangeNothing(t *testing.T) {
	s := slice(t)
	major, minor := disk(t)
	good := cgroup.Limits{
		CPU: &cgroup.CPU{Quota: 50 * time.Millisecond, Period: 100 * time.Millisecond}, CPUWeight: ptr(int64(200)), CPUBurst: ptr(20 * time.Millisecond),
		MemoryMax: ptr(int64(64 << 20)), MemoryHigh: ptr(int64(48 << 20)), SwapMax: ptr(int64(0)), OOMGroup: ptr(true), PIDsMax: ptr(int64(64)),
		IO: []cgroup.IODevice{{Major: major, Minor: minor, WriteBPS: 5 << 20}}, IOWeight: ptr(int64(50)),
	}
	if err := s.Apply(good); err != nil {
		t.Fatal(err)
	}
	before, err := s.Limits()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*cgroup.Limits){
		"quota of 1 µs":      func(l *cgroup.Limits) { l.CPU.Quota = time.Microsecond },
		"period of 2 s":      func(l *cgroup.Limits) { l.CPU.Period = 2 * time.Second },
		"no period":          func(l *cgroup.Limits) { l.CPU.Period = 0 },
		"weight 0":           func(l *cgroup.Limits) { l.CPUWeight = ptr(int64(0)) },
		"negative weight":    func(l *cgroup.Limits) { l.CPUWeight = ptr(int64(-1)) },
		"negative burst":     func(l *cgroup.Limits) { l.CPUBurst = ptr(-time.Millisecond) },
		"burst above quota":  func(l *cgroup.Limits) { l.CPUBurst = ptr(time.Second) },
		"negative memory":    func(l *cgroup.Limits) { l.MemoryMax = ptr(int64(-1)) },
		"negative high":      func(l *cgroup.Limits) { l.MemoryHigh = ptr(int64(-4096)) },
		"negative swap":      func(l *cgroup.Limits) { l.SwapMax = ptr(int64(-1)) },
		"negative pids":      func(l *cgroup.Limits) { l.PIDsMax = ptr(int64(-1)) },
		"pids beyond 2^22":   func(l *cgroup.Limits) { l.PIDsMax = ptr(int64(cgroup.Max - 1)) },
		"no such device":     func(l *cgroup.Limits) { l.IO = append(l.IO, cgroup.IODevice{Major: 4095, Minor: 1, WriteBPS: 1 << 20}) },
		"negative rate":      func(l *cgroup.Limits) { l.IO[0].WriteBPS = -5 },
		"weight of io 10001": func(l *cgroup.Limits) { l.IOWeight = ptr(int64(10001)) },
		"negative io weight": func(l *cgroup.Limits) { l.IOWeight = ptr(int64(-1)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := cgroup.Limits{
				CPU: &cgroup.CPU{Quota: 30 * time.Millisecond, Period: 50 * time.Millisecond}, CPUWeight: ptr(int64(300)), CPUBurst: ptr(10 * time.Millisecond),
				MemoryMax: ptr(int64(80 << 20)), MemoryHigh: ptr(int64(70 << 20)), SwapMax: ptr(int64(1 << 20)), OOMGroup: ptr(false), PIDsMax: ptr(int64(99)),
				IO: []cgroup.IODevice{{Major: major, Minor: minor, WriteBPS: 6 << 20}}, IOWeight: ptr(int64(60)),
			}
			spoil(&l)
			if err := s.Apply(l); err == nil || errors.Is(err, cgroup.ErrUnsupported) || errors.Is(err, cgroup.ErrGone) {
				t.Errorf("it says %v", err)
			}
			after, err := s.Limits()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("half-applied:\n%s", diff)
				if err := s.Apply(good); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// 0 is a limit of the kernel like any other: no process may be born.
func TestKernelNoPIDsAtAll(t *testing.T) {
	s := slice(t)
	if err := s.Apply(cgroup.Limits{PIDsMax: ptr(int64(0))}); err != nil {
		t.Error(err)
	}
	if got := file1(t, s.Path(), "pids.max"); got != "0" {
		t.Errorf("pids.max is %q", got)
	}
}

// A reader that was closed does not blame the kernel.
func TestKernelClosedReader(t *testing.T) {
	r, err := slice(t).OpenReader()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CPU(); err == nil || errors.Is(err, cgroup.ErrUnsupported) {
		t.Errorf("read after Close: %v", err)
	}
}

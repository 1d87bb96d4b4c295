package cgroup

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCheckLimits(t *testing.T) {
	n := ptr(int64(-1))
	tests := map[string]struct {
		limits Limits
		says   string // empty: accepted
	}{
		"nothing":       {Limits{}, ""},
		"zero":          {Limits{PIDsMax: ptr(int64(0)), MemoryMax: ptr(int64(0)), CPUBurst: ptr(time.Duration(0)), IO: []IODevice{{Major: 8}}}, ""},
		"max":           {Limits{PIDsMax: ptr(int64(Max)), MemoryHigh: ptr(int64(Max)), IO: []IODevice{{8, 0, Max, Max, Max, Max}}}, ""},
		"no quota":      {Limits{CPU: &CPU{-1, time.Second}}, ""},
		"no period":     {Limits{CPU: &CPU{Quota: time.Second}}, "cpu.max with a period of 0s"},
		"cpu.weight":    {Limits{CPUWeight: n}, "cpu.weight of -1: must not be negative"},
		"memory.max":    {Limits{MemoryMax: n}, "memory.max of -1"},
		"memory.high":   {Limits{MemoryHigh: n}, "memory.high of -1"},
		"swap":          {Limits{SwapMax: n}, "memory.swap.max of -1"},
		"io.weight":     {Limits{IOWeight: n}, "io.weight of -1"},
		"pids.max":      {Limits{PIDsMax: n}, "pids.max of -1"},
		"burst":         {Limits{CPUBurst: ptr(-time.Second)}, "cpu.max.burst"},
		"any of a disk": {Limits{IO: []IODevice{{Major: 8, WriteIOPS: -5}}}, "io.max on 8:0 of -5"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.limits.check()
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

func TestChangedLimits(t *testing.T) {
	cpu := &CPU{50 * time.Millisecond, 100 * time.Millisecond}
	burst := ptr(20 * time.Millisecond)
	disk := func(minor uint32, rate int64) IODevice { return IODevice{8, minor, Max, rate, Max, Max} }
	tests := map[string]struct{ was, now, want Limits }{
		"nothing":              {Limits{CPU: cpu, PIDsMax: ptr(int64(5))}, Limits{CPU: &CPU{cpu.Quota, cpu.Period}, PIDsMax: ptr(int64(5))}, Limits{}},
		"one":                  {Limits{PIDsMax: ptr(int64(5)), CPUWeight: ptr(int64(1))}, Limits{PIDsMax: ptr(int64(6)), CPUWeight: ptr(int64(1))}, Limits{PIDsMax: ptr(int64(5))}},
		"burst with its quota": {Limits{CPU: cpu, CPUBurst: burst}, Limits{CPU: cpu, CPUBurst: ptr(time.Duration(0))}, Limits{CPU: cpu, CPUBurst: burst}},
		"absent here":          {Limits{}, Limits{SwapMax: ptr(int64(5))}, Limits{}},
		"a disk":               {Limits{IO: []IODevice{disk(0, 5)}}, Limits{IO: []IODevice{disk(0, 6)}}, Limits{IO: []IODevice{disk(0, 5)}}},
		"a disk was free":      {Limits{}, Limits{IO: []IODevice{disk(0, 6)}}, Limits{IO: []IODevice{disk(0, Max)}}},
		"a disk is free now":   {Limits{IO: []IODevice{disk(0, 5), disk(16, 7)}}, Limits{IO: []IODevice{disk(16, 7)}}, Limits{IO: []IODevice{disk(0, 5)}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.was.changed(tt.now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMismatchOfBurstAndGroup(t *testing.T) {
	tests := map[string]struct {
		want, have Limits
		says       string // empty: they agree
	}{
		"burst to microseconds": {Limits{CPUBurst: ptr(time.Millisecond + 1)}, Limits{CPUBurst: ptr(time.Millisecond)}, ""},
		"no burst, no file":     {Limits{CPUBurst: ptr(time.Duration(0))}, Limits{}, ""},
		"burst, no file":        {Limits{CPUBurst: ptr(time.Second)}, Limits{}, "cpu.max.burst"},
		"another burst":         {Limits{CPUBurst: ptr(time.Second)}, Limits{CPUBurst: ptr(time.Minute)}, "cpu.max.burst"},
		"same group":            {Limits{OOMGroup: ptr(true)}, Limits{OOMGroup: ptr(true)}, ""},
		"another group":         {Limits{OOMGroup: ptr(true)}, Limits{OOMGroup: ptr(false)}, "memory.oom.group"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := mismatch("/c", tt.want, tt.have)
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// What is wrong on its face is refused before the kernel is asked for anything.
func TestApplyChecksFirst(t *testing.T) {
	err := group{t.TempDir() + "/none"}.Apply(Limits{IO: []IODevice{{Major: 8, WriteBPS: -5}}})
	if err == nil || !strings.Contains(err.Error(), "must not be negative") {
		t.Error(err)
	}
}

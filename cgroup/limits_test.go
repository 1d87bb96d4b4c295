package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

func TestMismatch(t *testing.T) {
	page := int64(os.Getpagesize())
	tests := map[string]struct {
		want, have Limits
		says       string // empty: they agree
	}{
		"nothing asked":        {Limits{}, Limits{MemoryMax: ptr(int64(5))}, ""},
		"equal":                {Limits{PIDsMax: ptr(int64(5))}, Limits{PIDsMax: ptr(int64(5))}, ""},
		"rounded to a page":    {Limits{MemoryMax: ptr(10*page + 1)}, Limits{MemoryMax: ptr(10 * page)}, ""},
		"a page too little":    {Limits{MemoryMax: ptr(11 * page)}, Limits{MemoryMax: ptr(10 * page)}, "memory.max"},
		"more than asked":      {Limits{MemoryMax: ptr(10 * page)}, Limits{MemoryMax: ptr(11 * page)}, "memory.max"},
		"max is not a number":  {Limits{MemoryMax: ptr(int64(Max))}, Limits{MemoryMax: ptr(Max - page + 1)}, "memory.max"},
		"absent":               {Limits{MemoryHigh: ptr(int64(1))}, Limits{}, "memory.high of /c is absent after writing 1"},
		"another pids":         {Limits{PIDsMax: ptr(int64(5))}, Limits{PIDsMax: ptr(int64(6))}, "pids.max"},
		"CPU to microseconds":  {Limits{CPU: &CPU{50*time.Millisecond + 1, 100 * time.Millisecond}}, Limits{CPU: &CPU{50 * time.Millisecond, 100 * time.Millisecond}}, ""},
		"CPU without a limit":  {Limits{CPU: &CPU{0, time.Second}}, Limits{CPU: &CPU{-1, time.Second}}, ""},
		"another period":       {Limits{CPU: &CPU{1e6, time.Second}}, Limits{CPU: &CPU{1e6, 2 * time.Second}}, "cpu.max of /c is 1000 2000000 after writing 1000 1000000"},
		"no limit on a device": {Limits{IO: []IODevice{{Major: 8}}}, Limits{}, ""},
		"a limit is missing":   {Limits{IO: []IODevice{{Major: 8, WriteBPS: 5}}}, Limits{IO: []IODevice{{8, 16, Max, 5, Max, Max}}}, "io.max"},
		"another weight":       {Limits{CPUWeight: ptr(int64(5)), IOWeight: ptr(int64(5))}, Limits{CPUWeight: ptr(int64(5)), IOWeight: ptr(int64(7))}, "io.weight of /c is 7 after writing 5"},
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

// Names that come from records must never lead out of the parent.
func TestPlainNames(t *testing.T) {
	p := &Parent{"/sys/fs/cgroup/cloudflash"}
	if got := p.Slice("abc").Scope("cl-1").Path(); got != "/sys/fs/cgroup/cloudflash/vms/abc/cl-1" {
		t.Error(got)
	}
	for _, bad := range []string{"", ".", "..", "a/b", "/", "a\nb", "a\x00", "cgroup.procs"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is accepted", bad)
				}
			}()
			p.Slice(bad)
		}()
	}
}

func TestOpenParentRefuses(t *testing.T) {
	for _, bad := range []string{"", "relative", "/sys/fs/cgroup/../x", "/sys/fs/cgroup/"} {
		if _, err := OpenParent(bad); err == nil || !strings.Contains(err.Error(), "absolute, clean path") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "cloudflash")
	if _, err := OpenParent(dir); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "cgroup v2 mounted there") {
		t.Errorf("no cgroup file system: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}

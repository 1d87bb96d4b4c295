package cgroup

import (
	"bytes"
	"math"
	"strconv"
	"testing"
	"time"
)

// seed gives a fuzz test the texts of the kernels in testdata.
func seed(f *testing.F, file string) {
	f.Helper()
	for _, kernel := range kernels {
		f.Add(fixture(f, kernel, file))
	}
	f.Add([]byte(""))
	f.Add([]byte("max\n"))
	f.Add([]byte("a 1\nb -1\n\n 18446744073709551616"))
}

// The number that the parser reads is the one that the standard library reads.
func FuzzParseNumber(f *testing.F) {
	seed(f, "memory.current")
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseNumber(b)
		text := string(bytes.TrimSpace(b))
		want, wantErr := strconv.ParseUint(text, 10, 64)
		if text == "max" {
			want, wantErr = math.MaxInt64, nil
		}
		if (err == nil) != (wantErr == nil) || err == nil && uint64(got) != min(want, math.MaxInt64) {
			t.Errorf("%q: %d, %v; the standard library says %d, %v", b, got, err, want, wantErr)
		}
	})
}

func FuzzParseCPUStat(f *testing.F) {
	seed(f, "cpu.stat")
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseCPUStat(b); err == nil && min(s.Usage, s.User, s.System, s.ThrottledTime, s.BurstTime) < 0 {
			t.Errorf("%q: a negative time: %+v", b, s)
		}
	})
}

func FuzzParseMemoryStat(f *testing.F) {
	seed(f, "memory.stat")
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseMemoryStat(b) })
}

func FuzzParseMemoryEvents(f *testing.F) {
	seed(f, "memory.events")
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseMemoryEvents(b) })
}

func FuzzParseIOStat(f *testing.F) {
	seed(f, "io.stat")
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseIOStat(b) })
}

func FuzzParsePressure(f *testing.F) {
	seed(f, "memory.pressure")
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePressure(b)
		for _, v := range []float64{p.Some.Avg10, p.Some.Avg60, p.Full.Avg300} {
			if err == nil && (math.IsNaN(v) || math.IsInf(v, 0) || v < 0) {
				t.Errorf("%q: %v", b, v)
			}
		}
		if p.Some.Total < 0 || p.Full.Total < 0 {
			t.Errorf("%q: a negative time", b)
		}
	})
}

func FuzzParseEvents(f *testing.F) {
	seed(f, "cgroup.events")
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseEvents(b) })
}

func FuzzParsePIDs(f *testing.F) {
	f.Add([]byte("1\n22\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pids, err := parsePIDs(b)
		if err != nil {
			return
		}
		for _, pid := range pids {
			if pid < 0 {
				t.Errorf("%q: pid %d", b, pid)
			}
		}
	})
}

func FuzzParseCPUMax(f *testing.F) {
	seed(f, "cpu.max")
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCPUMax(b)
		if err != nil {
			return
		}
		text := "max"
		if c.Quota >= 0 {
			text = micros(c.Quota)
		}
		again, err := parseCPUMax([]byte(text + " " + micros(c.Period)))
		if err != nil || *again != *c || c.Period < 0 || c.Period%time.Microsecond != 0 {
			t.Errorf("%q: %+v, again %+v, %v", b, c, again, err)
		}
	})
}

func FuzzParseIOMax(f *testing.F) {
	seed(f, "io.max")
	f.Fuzz(func(t *testing.T, b []byte) {
		devices, err := parseIOMax(b)
		for _, d := range devices {
			if err == nil && min(d.ReadBPS, d.WriteBPS, d.ReadIOPS, d.WriteIOPS) < 0 {
				t.Errorf("%q: %+v", b, d)
			}
		}
	})
}

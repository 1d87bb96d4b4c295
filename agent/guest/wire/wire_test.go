package wire

import (
	"testing"
)

func TestFieldsComeBackInOrder(t *testing.T) {
	var w Writer
	w.Begin(Start, 7)
	w.String("id")
	w.Strings([]string{"a", "", "c"})
	w.Int64(-5)
	Exit{ID: "x", Code: 3, Signal: 9, StartedAt: 1, FinishedAt: 2, CPUTime: 1 << 40, FinishedBoot: 7}.Put(&w)
	r := Reader{B: w.B}
	if kind, seq := r.Begin(); kind != Start || seq != 7 {
		t.Errorf("begin: %d %d", kind, seq)
	}
	if s := r.String(); s != "id" {
		t.Errorf("string %q", s)
	}
	if all := r.Strings(); len(all) != 3 || all[2] != "c" {
		t.Errorf("strings %q", all)
	}
	if n := r.Int64(); n != -5 {
		t.Errorf("int64 %d", n)
	}
	if e := r.Exit(); e.ID != "x" || e.CPUTime != 1<<40 || r.Bad || len(r.B) != 0 {
		t.Errorf("exit %+v, bad %v, rest %d", e, r.Bad, len(r.B))
	}
	if r.Uint32(); !r.Bad {
		t.Error("reading past the end went unnoticed")
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{2, 1, 0, 0, 0, 2, 0, 0, 0, 'a', 'b'})
	f.Add([]byte{2, 1, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Reader{B: b}
		r.Begin()
		if n := len(r.Strings()); n > len(b) {
			t.Errorf("%d strings from %d bytes", n, len(b))
		}
		_ = r.String()
		r.Exit()
	})
}

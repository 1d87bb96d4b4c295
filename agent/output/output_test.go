package output

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// written is a directory in which a cloudlet called c has said something.
func written(t *testing.T, text string) Dir {
	t.Helper()
	d := Dir(t.TempDir())
	f, err := d.Create("c", "stdout", os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBoundKeepsTheNewest(t *testing.T) {
	const keep = 1 << 20
	text := strings.Repeat("0123456789abcdef", 4*keep/16)
	d := written(t, text)
	if err := d.Bound("c", keep); err != nil {
		t.Fatal(err)
	}

	b, err := os.ReadFile(d.path("c", "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != len(text) || string(b[len(b)-keep:]) != text[len(text)-keep:] {
		t.Errorf("the file is %d bytes long, was %d, or its newest part is damaged", len(b), len(text))
	}
	var st syscall.Stat_t
	if err := syscall.Stat(d.path("c", "stdout"), &st); err != nil || st.Blocks*512 > 2*keep {
		t.Errorf("%d bytes on disk, %v", st.Blocks*512, err)
	}

	r, err := d.Open("c", "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.SeekTo(0); err != nil {
		t.Fatal(err)
	}
	at := r.Offset()
	var said strings.Builder
	if err := r.CopyTo(t.Context(), &said); err != nil {
		t.Fatal(err)
	}
	if said.String() != text[at:] || said.Len() < keep {
		t.Errorf("%d bytes from %d on are read, %d are kept", said.Len(), at, keep)
	}
	if err := d.Bound("nobody", keep); err != nil {
		t.Errorf("a cloudlet without output: %v", err)
	}
}

func TestSeek(t *testing.T) {
	const text = "one\ntwo\nthree"
	d := written(t, text)
	r, err := d.Open("c", "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, c := range []struct {
		what string
		seek func() error
		want string
	}{
		{"all", func() error { return r.SeekTo(-1) }, text},
		{"an offset", func() error { return r.SeekTo(4) }, "two\nthree"},
		{"behind the end", func() error { return r.SeekTo(100) }, ""},
		{"no line", func() error { return r.SeekTail(0) }, ""},
		{"the last line", func() error { _ = r.SeekTo(0); return r.SeekTail(1) }, "three"},
		{"more lines than there are", func() error { _ = r.SeekTo(0); return r.SeekTail(9) }, text},
	} {
		var said strings.Builder
		if err := errors.Join(c.seek(), r.CopyTo(t.Context(), &said)); err != nil || said.String() != c.want {
			t.Errorf("%s: %q %v, want %q", c.what, said.String(), err, c.want)
		}
	}
}

// Whoever could put a link there would have the agent write to its target.
func TestLinksAreNotFollowed(t *testing.T) {
	d := Dir(t.TempDir())
	target := filepath.Join(t.TempDir(), "target")
	if err := os.Symlink(target, d.path("c", "stdout")); err != nil {
		t.Fatal(err)
	}
	if f, err := d.Create("c", "stdout", os.Getuid()); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("created %v, %v", f, err)
	}
	if err := os.WriteFile(target, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Bound("c", 1); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("bound: %v", err)
	}
}

package output

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
		{"no line", func() error { return r.SeekTail(t.Context(), 0) }, ""},
		{"the last line", func() error { _ = r.SeekTo(0); return r.SeekTail(t.Context(), 1) }, "three"},
		{"more lines than there are", func() error { _ = r.SeekTo(0); return r.SeekTail(t.Context(), 9) }, text},
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

// A process of the VM makes its output endless, by saying that it is long.
func TestEndlessOutputEnds(t *testing.T) {
	for name, long := range map[string]int64{"a hole": 1 << 43, "a short one": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			d := written(t, "one\ntwo\n")
			path := d.path("c", "stdout")
			if err := os.Truncate(path, long); err != nil {
				t.Fatal(err)
			}
			r, err := d.Open("c", "stdout")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var said strings.Builder
			if err := errors.Join(r.SeekTo(0), r.CopyTo(t.Context(), &said)); err != nil {
				t.Fatal(err)
			}
			if text := strings.TrimRight(said.String(), "\x00"); text != "one\ntwo\n" || said.Len() > 1<<20 {
				t.Errorf("%d bytes: %.50q", said.Len(), text)
			}
			if err := r.SeekTail(t.Context(), 3); err != nil || long > tailMost && r.Offset() != long {
				t.Errorf("the tail is at %d, %v", r.Offset(), err)
			}

			// What is written then follows.
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString("three\n"); err != nil {
				t.Fatal(err)
			}
			said.Reset()
			if err := errors.Join(r.SeekTo(long), r.CopyTo(t.Context(), &said)); err != nil || said.String() != "three\n" {
				t.Errorf("%.50q, %v", said.String(), err)
			}
		})
	}
}

// bounder bounds the output while it is read.
type bounder struct {
	strings.Builder
	bound func() error
}

func (b *bounder) Write(p []byte) (int, error) {
	if b.Len() == 0 {
		if err := b.bound(); err != nil {
			return 0, err
		}
	}
	return b.Builder.Write(p)
}

func TestWhatIsPunchedOutAheadOfAReaderIsCounted(t *testing.T) {
	const size = 8 << 20
	d := written(t, strings.Repeat("x", size))
	r, err := d.Open("c", "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	said := &bounder{bound: func() error { return d.Bound("c", 1<<20) }}
	if err := errors.Join(r.SeekTo(0), r.CopyTo(t.Context(), said)); err != nil {
		t.Fatal(err)
	}
	if r.Lost() < size/2 || r.Lost()+int64(said.Len()) != size {
		t.Errorf("%d bytes read and %d lost, of %d", said.Len(), r.Lost(), size)
	}
}

func TestSeekTailEndsWithItsRequest(t *testing.T) {
	d := written(t, strings.Repeat("x", 1<<20))
	r, err := d.Open("c", "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.SeekTail(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A lease on the file makes nobody wait.
func TestLeasedOutput(t *testing.T) {
	d := written(t, strings.Repeat("x", 4<<20))
	f, err := os.OpenFile(d.path("c", "stdout"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lease := func() {
		t.Helper()
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			t.Skip("no leases here: ", err)
		}
	}
	signal.Ignore(syscall.SIGIO)
	defer signal.Reset(syscall.SIGIO)

	lease()
	began := time.Now()
	if _, err := d.Open("c", "stdout"); !errors.Is(err, ErrLeased) {
		t.Errorf("open: %v", err)
	}
	if err := d.Bound("c", 1<<20); !errors.Is(err, ErrLeased) {
		t.Errorf("bound: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second { // the kernel takes a lease back after 45
		t.Errorf("it took %v", took)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	if err := d.Bound("c", 1<<20); err != nil {
		t.Errorf("without the lease: %v", err)
	}
}

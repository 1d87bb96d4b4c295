package guest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// archive writes headers with a body "x" for files, as whoever runs the test.
func archive(tb testing.TB, entries ...tar.Header) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg && h.Size == 0 {
			h.Size = 1
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.Uid == 0 {
			h.Uid, h.Gid = os.Getuid(), os.Getgid()
		}
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func unpackBytes(tb testing.TB, b []byte) (dir string, err error) {
	tb.Helper()
	at := tb.TempDir()
	path := filepath.Join(at, "image.tar")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	dir = filepath.Join(at, "root", "image")
	if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
		tb.Fatal(err)
	}
	return dir, Unpack(context.Background(), path, dir, 1<<20)
}

func TestUnpack(t *testing.T) {
	plain := archive(t, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o711}, tar.Header{Name: "usr/bin/tool", Typeflag: tar.TypeReg, Mode: 0o4755},
		tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"}, tar.Header{Name: "bin/other", Typeflag: tar.TypeReg},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "usr/bin/tool"}, tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8},
		tar.Header{Name: "closed", Typeflag: tar.TypeDir, Mode: 0o500}, tar.Header{Name: "closed/in", Typeflag: tar.TypeReg},
		tar.Header{Name: "away", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, tar.Header{Name: "usr/bin/tool", Typeflag: tar.TypeReg, Mode: 0o755, Size: 3})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"plain": plain, "gzipped": zipped.Bytes()} {
		dir, err := unpackBytes(t, b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for file, want := range map[string]string{"usr/bin/tool": "xxx", "usr/bin/other": "x", "hard": "x", "closed/in": "x"} {
			if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
				t.Errorf("%s: %s is %q, %v", name, file, got, err)
			}
		}
		for file, want := range map[string]os.FileMode{".": os.ModeDir | 0o711, "closed": os.ModeDir | 0o500, "usr/bin/tool": 0o755, "hard": os.ModeSetuid | 0o755} {
			if info, err := os.Lstat(filepath.Join(dir, file)); err != nil || info.Mode() != want {
				t.Errorf("%s: %s: %v, %v", name, file, info.Mode(), err)
			}
		}
		if to, err := os.Readlink(filepath.Join(dir, "away")); err != nil || to != "/etc/passwd" {
			t.Errorf("%s: a link away is kept as text: %q, %v", name, to, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "dev/sda")); err == nil {
			t.Errorf("%s: a device was made", name)
		}
		if err := Unpack(t.Context(), "/gone", dir, 0); err != nil {
			t.Errorf("%s: again: %v", name, err)
		}
	}
}

// What an archive wants outside of its directory it does not get.
func TestUnpackStaysInside(t *testing.T) {
	tests := map[string]struct {
		entries []tar.Header
		says    string // empty: taken, but inside
	}{
		"parent":               {[]tar.Header{{Name: "../../evil", Typeflag: tar.TypeReg}}, ""},
		"absolute":             {[]tar.Header{{Name: "/evil", Typeflag: tar.TypeReg}}, ""},
		"through a link up":    {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "l/evil", Typeflag: tar.TypeReg}}, "escapes"},
		"through a link":       {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "l/evil", Typeflag: tar.TypeReg}}, "escapes"},
		"a directory by link":  {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "l/d", Typeflag: tar.TypeDir}}, "escapes"},
		"hard link to outside": {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "l/image.tar"}}, "escapes"},
		"an id beyond":         {[]tar.Header{{Name: "f", Typeflag: tar.TypeReg, Uid: 65536}}, "beyond the ids"},
		"too large":            {[]tar.Header{{Name: "f", Typeflag: tar.TypeReg, Size: 2 << 20}}, "more than the VM's storage"},
		"nothing":              {nil, "empty"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir, err := unpackBytes(t, archive(t, tt.entries...))
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
			at := filepath.Dir(filepath.Dir(dir))
			for _, evil := range []string{filepath.Join(at, "evil"), filepath.Join(at, "root", "evil"), "/tmp/evil", "/evil"} {
				if _, err := os.Lstat(evil); err == nil {
					t.Errorf("%s exists", evil)
				}
			}
			if left, _ := os.ReadDir(filepath.Dir(dir)); err != nil && len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// What is left out counts too, as does what describes no file: it has to be read.
func TestUnpackReadsNoMoreThanItMayWrite(t *testing.T) {
	var long bytes.Buffer
	w := tar.NewWriter(&long)
	for range 20 {
		records := map[string]string{"comment": strings.Repeat("x", 500<<10)}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: records}); err != nil {
			t.Fatal(err)
		}
	}
	odd := archive(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 5 << 20})
	copy(odd[156:], "Z")           // typeflag
	copy(odd[148:156], "        ") // the checksum counts itself as spaces
	sum := 0
	for _, c := range odd[:512] {
		sum += int(c)
	}
	copy(odd[148:], fmt.Sprintf("%06o\x00 ", sum))

	for name, b := range map[string][]byte{"an unknown type": odd, "global headers": long.Bytes()} {
		if _, err := unpackBytes(t, b); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// doneAfter is done after it was asked so often.
type doneAfter struct {
	context.Context
	left int
}

func (d *doneAfter) Err() error {
	if d.left--; d.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestUnpackEndsWithinAnEntry(t *testing.T) {
	at := t.TempDir()
	path := filepath.Join(at, "a.tar")
	if err := os.WriteFile(path, archive(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 1 << 20}), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Unpack(&doneAfter{t.Context(), 20}, path, filepath.Join(at, "image"), 4<<20)
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "no tar archive") {
		t.Error(err)
	}
	if left, _ := os.ReadDir(at); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUnpackKeepsTimes(t *testing.T) {
	then := time.Date(2019, 3, 7, 12, 30, 5, 0, time.UTC)
	dir, err := unpackBytes(t, archive(t, tar.Header{Name: "d", Typeflag: tar.TypeDir, ModTime: then},
		tar.Header{Name: "d/f", Typeflag: tar.TypeReg, ModTime: then}, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "d/f"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d", "d/f", "h"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.ModTime().Equal(then) {
			t.Errorf("%s: %v, %v", name, info.ModTime(), err)
		}
	}
}

func TestUnpackBegunBefore(t *testing.T) {
	at := t.TempDir()
	if err := os.MkdirAll(filepath.Join(at, "image.part", "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "a.tar"), archive(t, tar.Header{Name: "f", Typeflag: tar.TypeReg}), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(at, "image")
	if err := Unpack(t.Context(), filepath.Join(at, "a.tar"), dir, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "half")); err == nil {
		t.Error("what a killed call has left is in it")
	}
}

func FuzzUnpack(f *testing.F) {
	good := archive(f, tar.Header{Name: "d", Typeflag: tar.TypeDir}, tar.Header{Name: "d/f", Typeflag: tar.TypeReg}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "d"})
	f.Add(good)
	f.Add(good[:700])
	f.Add([]byte("\x1f\x8b nothing"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir, err := unpackBytes(t, b)
		left, _ := os.ReadDir(filepath.Dir(dir))
		if err != nil && len(left) != 0 || err == nil && (len(left) != 1 || left[0].Name() != "image") {
			t.Errorf("%v, left: %v", err, left)
		}
		if at, _ := os.ReadDir(filepath.Dir(filepath.Dir(dir))); len(at) != 2 {
			t.Errorf("beside it: %v", at)
		}
	})
}

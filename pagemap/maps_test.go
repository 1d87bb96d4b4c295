package pagemap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// present has all pages of a mapping in memory.
func present(m *Mapping) error {
	m.Present = m.Pages
	return nil
}

func TestReadMaps(t *testing.T) {
	long, wide := strings.Repeat("/d", 1<<19), strings.Repeat("é", 200)
	for name, c := range map[string]struct {
		text      string
		most      int
		want      []Mapping
		truncated bool
	}{
		"empty": {"", 9, nil, false},
		"kinds": {"55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]\n" +
			"7f0000000000-7f0000001000 r--p 00001000 fe:00 42   /usr/lib/a file (deleted)\n" +
			"7f0000002000-7f0000004000 ---p 00000000 00:00 0\n" +
			"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n", 9, []Mapping{
			{Start: 0x55d0c0000000, End: 0x55d0c0021000, Permissions: "rw-p", Name: "[heap]", Pages: 33, Present: 33},
			{Start: 0x7f0000000000, End: 0x7f0000001000, Permissions: "r--p", Name: "/usr/lib/a file (deleted)", Pages: 1, Present: 1},
			{Start: 0x7f0000002000, End: 0x7f0000004000, Permissions: "---p", Pages: 2},
			{Start: 0xffffffffff600000, End: 0xffffffffff601000, Permissions: "--xp", Name: "[vsyscall]", Pages: 1, Present: 1}}, false},
		"the largest in address order": {"1000-2000 r 0 0 0 a\n2000-4000 r 0 0 0 b\n4000-5000 r 0 0 0 c\n5000-8000 r 0 0 0 d\n8000-9000 r 0 0 0 e\n", 2, []Mapping{
			{Start: 0x2000, End: 0x4000, Permissions: "r", Name: "b", Pages: 2, Present: 2},
			{Start: 0x5000, End: 0x8000, Permissions: "r", Name: "d", Pages: 3, Present: 3}}, true},
		"the first of equal ones": {strings.Repeat("1000-2000 r 0 0 0 a\n", 9), 1, []Mapping{{Start: 0x1000, End: 0x2000, Permissions: "r", Name: "a", Pages: 1, Present: 1}}, true},
		"a long line": {"1000-2000 r 0 0 0 " + long + "\n2000-3000 r 0 0 0 b\n", 9, []Mapping{
			{Start: 0x1000, End: 0x2000, Permissions: "r", Name: long[:maxNameBytes] + "…", Pages: 1, Present: 1},
			{Start: 0x2000, End: 0x3000, Permissions: "r", Name: "b", Pages: 1, Present: 1}}, false},
		"a long line at the end": {"1000-2000 r 0 0 0 " + long, 9, []Mapping{{Start: 0x1000, End: 0x2000, Permissions: "r", Name: long[:maxNameBytes] + "…", Pages: 1, Present: 1}}, false},
		"between characters":     {"1000-2000 r 0 0 0 x" + wide, 9, []Mapping{{Start: 0x1000, End: 0x2000, Permissions: "r", Name: "x" + wide[:254] + "…", Pages: 1, Present: 1}}, false},
	} {
		got, truncated, err := readMaps(t.Context(), strings.NewReader(c.text), 4096, c.most, present)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil || truncated != c.truncated {
			t.Errorf("%s: %v, truncated %v (-want +got):\n%s", name, err, truncated, diff)
		}
	}
	for _, text := range []string{"x", "2-1 rw-p 0 0 0\n", "1 rw-p\n", "1-2 r\n" + long} {
		if got, _, err := readMaps(t.Context(), strings.NewReader(text), 4096, 9, present); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.60q: %+v, %v", text, got, err)
		}
	}
}

func TestReadMapsEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	looked := 0
	_, _, err := readMaps(ctx, &endless{line: "1000-2000 r 0 0 0\n", left: 1 << 20}, 4096, 9, func(*Mapping) error {
		if looked++; looked == 5 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || looked != 5 {
		t.Errorf("%v after %d mappings", err, looked)
	}
	if _, _, err := readMaps(t.Context(), strings.NewReader("1000-2000 r 0 0 0\n"), 4096, 9, func(*Mapping) error { return ErrGone }); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

// endless is a text of one line over and over, of which `left` bytes are read.
type endless struct {
	line     string
	at, left int
}

func (e *endless) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, errMore
	}
	n := copy(b[:min(len(b), e.left)], e.line[e.at:])
	e.at, e.left = (e.at+n)%len(e.line), e.left-n
	return n, nil
}

// What a process maps does not decide what is allocated.
func TestReadMapsIsBounded(t *testing.T) {
	length := maxMapsBytes
	if underRace {
		length /= 8 // it takes ten times as long
	}
	const header = "7f0000000000-7f0000001000 rw-s 00000000 fe:00 42       "
	for name, line := range map[string]string{
		"deep directories": header + strings.Repeat("/d", 1<<19) + "\n",
		"longest names":    header + strings.Repeat("d", 2*maxNameBytes) + "\n",
		"many mappings":    header + "\n",
		"one line":         header + strings.Repeat("x", maxMapsBytes),
		"empty lines":      "\n",
	} {
		used := allocated(func() {
			if got, truncated, err := readMaps(t.Context(), &endless{line: line, left: length}, 4096, 200, present); err != nil || len(got) > 200 || !truncated {
				t.Errorf("%s: %d mappings, truncated %v, %v", name, len(got), truncated, err)
			}
		})
		t.Logf("%s: %d KiB allocated", name, used>>10)
		if used > 512<<10 {
			t.Errorf("%s: %d KiB allocated for a text of %d", name, used>>10, length>>10)
		}
	}
}

// allocated is how many bytes f allocates, whether or not it keeps them.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A line of which the end was not read is no line.
func TestStreamStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maps")
	const text = "1000-2000 r 0 0 0 a\n2000-3000 r 0 0 0 b\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for left, want := range map[int64]string{0: "[] true", 19: "[] true", 20: "[a] true", 39: "[a] true", 40: "[a b] true", 41: "[a b] false"} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		all, truncated, err := readMaps(t.Context(), &stream{name: "maps", fd: int(f.Fd()), left: left}, 4096, 9, present)
		names := []string{}
		for _, m := range all {
			names = append(names, m.Name)
		}
		if got := fmt.Sprint(names, truncated); got != want || err != nil {
			t.Errorf("%d bytes: %s, %v, want %s", left, got, err, want)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadCgroup(t *testing.T) {
	deep := "/" + strings.Repeat("c", 4000)
	for text, want := range map[string]string{"0::/a\n": "/a", "2:cpu:" + deep + "\n1:name=x:/\n0::" + deep + " (deleted)\n": deep + " (deleted)", "0::/": "/",
		"": "", "1:cpu:/a\n": "", "0::" + strings.Repeat("/d", 1<<19): ""} {
		if got, err := readCgroup(strings.NewReader(text)); got != want || (err == nil) != (want != "") {
			t.Errorf("%.60q: %q, %v", text, got, err)
		}
	}
}

func TestParseStatm(t *testing.T) {
	if got, err := parseStatm([]byte("300 42 7 1 0 9 0\n")); got != 42 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	for _, text := range []string{"", "1", "1 x", "1 99999999999999999999"} {
		if got, err := parseStatm([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

package meter

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// saved is a Meter with a day of history of the host and two VMs.
func saved(t testing.TB, file string) *Meter {
	t.Helper()
	m := New(Config{File: file})
	noise := rand.New(rand.NewPCG(5, 6))
	for _, id := range []string{"vm1", "vm2"} {
		m.past[id] = newHistory(vmSeries)
		feedDay(m.past[id], start, start+25*3600+33, func(_ int64, s int) float64 {
			if s == vmGPUBusy {
				return math.NaN()
			}
			return noise.Float64() * float64(s)
		})
	}
	feedDay(m.hostPast, start+20*3600, start+25*3600+33, func(int64, int) float64 { return noise.Float64() })
	if err := m.Save(); err != nil {
		t.Fatal(err)
	}
	return m
}

func load(t testing.TB, file string) (*Meter, error) {
	t.Helper()
	m := New(Config{File: file})
	return m, m.Load()
}

func same(t testing.TB, want, got *Meter, id string) {
	t.Helper()
	now := time.Unix(start+25*3600+33, 0)
	for _, span := range []time.Duration{5 * time.Minute, time.Hour, 24 * time.Hour} {
		a, err1 := want.VMWindow(id, now, span, nil)
		b, err2 := got.VMWindow(id, now, span, nil)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, b, cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s, %v: %.500s", id, span, diff)
		}
	}
}

func TestHistorySurvives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history")
	before := saved(t, file)
	after, err := load(t, file)
	if err != nil {
		t.Fatal(err)
	}
	same(t, before, after, "vm1")
	same(t, before, after, "vm2")
	now := time.Unix(start+25*3600+33, 0)
	if diff := cmp.Diff(before.HostWindow(now, time.Hour, nil), after.HostWindow(now, time.Hour, nil), cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}
	if b, a := before.past["vm1"], after.past["vm1"]; a.last != b.last || a.size == 0 || a.size > b.size {
		t.Errorf("last %d of %d, %d bytes of %d", a.last, b.last, a.size, b.size)
	}
	after.Keep(func(id string) bool { return id == "vm2" })
	if err := after.Save(); err != nil {
		t.Fatal(err)
	}
	if again, err := load(t, file); err != nil || len(again.past) != 1 {
		t.Errorf("%d histories: a deleted VM has come back: %v", len(again.past), err)
	}
	info, err := os.Stat(file)
	if left, _ := filepath.Glob(file + ".*"); err != nil || info.Mode().Perm() != 0o600 || left != nil {
		t.Errorf("%v %v, beside it %v", info.Mode(), err, left)
	}
}

// What was recorded between the last save and the end is lost, what comes after
// the new start goes on in the same chunk, and between them is a gap.
func TestRestartLeavesAGap(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history")
	before := New(Config{File: file})
	h := newHistory(vmSeries)
	before.past["vm1"] = h
	one := func(int64, int) float64 { return 1 }
	feed(h, start, start+100, one)
	if err := before.Save(); err != nil {
		t.Fatal(err)
	}
	feed(h, start+101, start+140, one) // killed here
	after, err := load(t, file)
	if err != nil {
		t.Fatal(err)
	}
	feed(after.past["vm1"], start+150, start+199, one)
	w, err := after.VMWindow("vm1", time.Unix(start+199, 0), 200*time.Second, []string{"cpus"})
	if err != nil || len(w.Series) != 1 {
		t.Fatal(err, w)
	}
	for i, v := range w.Series[0].Avg {
		if isGap := i >= 101 && i < 150 || i == 100; math.IsNaN(v) != isGap && i != 100 {
			t.Errorf("second %d: %v", i, v)
		}
	}
	w, _ = after.VMWindow("vm1", time.Unix(start+199, 0), time.Hour, []string{"cpus"})
	if v := w.Series[0].Avg[360-10:]; !math.IsNaN(v[1]) || v[0] != 1 || v[5] != 1 {
		t.Errorf("ten seconds: %v", v)
	}
}

func TestSpoiltFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history")
	before := saved(t, file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(whole[:len(whole)-10])
	m, err := load(t, file)
	if err == nil || len(m.past) != 1 {
		t.Fatalf("cut off: %d histories, %v", len(m.past), err)
	}
	same(t, before, m, "vm1")
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-100] ^= 1
	put(flipped)
	if m, err := load(t, file); err == nil || len(m.past) != 1 {
		t.Errorf("one bit: %d histories, %v", len(m.past), err)
	}
	for name, b := range map[string][]byte{"empty": {}, "another file": []byte("SQLite format 3\x00 and more than the head of ours"), "huge record": append([]byte(fileHead), 255, 255, 255, 255, 0, 0, 0, 0)} {
		put(b)
		if m, err := load(t, file); err == nil || len(m.past) != 0 {
			t.Errorf("%s: %d histories, %v", name, len(m.past), err)
		}
	}
	put([]byte(fileHead))
	if _, err := load(t, file); err != nil {
		t.Errorf("only the head: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, file); err != nil {
		t.Errorf("no file: %v", err)
	}
}

func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "history")
	m := saved(t, file)
	if err := os.Mkdir(file+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	m.save()
	if c := m.Collectors()["history"]; c.OK || c.Error == "" {
		t.Errorf("%+v", c)
	}
	if _, err := load(t, file); err != nil {
		t.Errorf("the old file: %v", err)
	}
}

func TestRunSavesNowAndThen(t *testing.T) {
	for given, every := range map[time.Duration]time.Duration{0: SaveEvery, 3 * time.Second: 3 * time.Second} {
		t.Run(every.String(), func(t *testing.T) { runSaves(t, given, every) })
	}
	if SaveEvery > time.Minute {
		t.Error("a killed agent loses more than a minute")
	}
}

func runSaves(t *testing.T, given, every time.Duration) {
	file := filepath.Join(t.TempDir(), "history")
	synctest.Test(t, func(t *testing.T) {
		m := New(Config{File: file, SaveEvery: given})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { m.Run(ctx); close(done) }()
		time.Sleep(every - time.Second)
		synctest.Wait()
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Error("written too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		if _, err := os.Stat(file); err != nil {
			t.Error("the end is not written: ", err)
		}
	})
}

func FuzzLoad(f *testing.F) {
	file := filepath.Join(f.TempDir(), "history")
	m := New(Config{File: file, Log: slog.New(slog.DiscardHandler)})
	m.past["vm1"] = newHistory(vmSeries)
	feed(m.past["vm1"], start, start+700, func(sec int64, s int) float64 { return float64(sec % 7 * int64(s)) })
	record := m.past["vm1"].appendRecord(nil, "vm1", 0)
	_, _, _ = recordHead(&record)
	f.Add(record)
	f.Fuzz(func(t *testing.T, b []byte) {
		h := newHistory(vmSeries)
		if h.parse(b) != nil {
			return
		}
		feed(h, start+800, start+1200, func(int64, int) float64 { return 1 }) // whatever was read, it goes on
		h.window(time.Unix(start+1200, 0), time.Hour, vmSeriesList(), nil)
	})
}

func TestBudget(t *testing.T) {
	m := saved(t, "")
	all := m.past["vm1"].bytes() + m.past["vm2"].bytes() + 2*m.past["vm1"].fixed()
	m.cfg.MaxBytes = all * 3 / 4
	for range 100 {
		m.shed()
	}
	left := m.past["vm1"].bytes() + m.past["vm2"].bytes() + 2*m.past["vm1"].fixed()
	if left > m.cfg.MaxBytes || left < all/2 {
		t.Errorf("%d of %d bytes left, %d allowed", left, all, m.cfg.MaxBytes)
	}
	w, err := m.VMWindow("vm1", time.Unix(start+25*3600+33, 0), 24*time.Hour, []string{"cpus"})
	if err != nil || !math.IsNaN(w.Series[0].Avg[5]) || math.IsNaN(w.Series[0].Avg[719]) {
		t.Errorf("not the oldest went: %v", err)
	}
	m.cfg.MaxBytes = 1
	for range 100 {
		m.shed() // ends when there is nothing to drop
	}
	if n := m.past["vm1"].bytes(); n != 0 {
		t.Errorf("%d bytes", n)
	}
}

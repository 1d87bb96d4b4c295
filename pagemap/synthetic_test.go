package pagemap

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"
)

// synthetic is a machine of any size: in every GiB, 64 MiB belong to the VM of
// that GiB in huge pages, 64 MiB alternate between two VMs page by page, 128 MiB
// are the host's cache, one block is half free, the rest is free.
type synthetic struct {
	pages uint64
	fail  error // of reads of flags
	reads int
}

const (
	gibPages = 1 << 18
	mibPages = 1 << 8
)

// pattern is the flags of one GiB.
var pattern = sync.OnceValue(func() []uint64 {
	all := make([]uint64, gibPages)
	for at := range all {
		switch {
		case at < 64*mibPages && at%512 == 0:
			all[at] = flagHead | flagTHP | flagAnon | flagLRU
		case at < 64*mibPages:
			all[at] = flagTail | flagTHP
		case at < 128*mibPages:
			all[at] = flagAnon | flagLRU
		case at < 256*mibPages:
			all[at] = flagLRU
		case at < 258*mibPages && at%2 == 0:
			all[at] = flagSlab
		default:
			all[at] = flagBuddy
		}
	}
	return all
})

func (s *synthetic) Flags(first uint64, buf []uint64) (int, error) {
	s.reads++
	if s.fail != nil {
		return 0, s.fail
	}
	n := uint64(0)
	for want := min(uint64(len(buf)), s.pages-min(first, s.pages)); n < want; {
		n += uint64(copy(buf[n:want], pattern()[(first+n)%gibPages:]))
	}
	return int(n), nil
}

func (s *synthetic) Owners(first uint64, buf []uint64) (int, error) {
	for i := range buf {
		buf[i] = 0
		frame := first + uint64(i)
		switch at := frame % gibPages; {
		case at < 64*mibPages && at%512 == 0:
			buf[i] = 100 + frame/gibPages%50
		case at >= 64*mibPages && at < 128*mibPages:
			buf[i] = 100 + (frame/gibPages+frame%2)%50
		}
	}
	return len(buf), nil
}

func (s *synthetic) Close() error { return nil }

func fifty() map[uint64]string {
	table := map[uint64]string{}
	for i := uint64(0); i < 50; i++ {
		table[100+i] = string(rune('A'+i%26)) + string(rune('a'+i/26))
	}
	return table
}

func TestOneTebibyte(t *testing.T) {
	gibs := uint64(1024)
	if underRace {
		gibs = 100 // it takes ten times as long
	}
	src := &synthetic{pages: gibs * gibPages}
	before := heap()
	s := newScanner("", src, []Range{{0, src.pages}}, 9, Options{PageSize: 4096, Owners: fifty})
	passOnce(t, s)
	used := heap() - before
	m := s.Status().Map
	t.Logf("%d frames: %+v; %.1f MiB of heap", src.pages, m, float64(used)/(1<<20))
	if used > 32<<20 {
		t.Errorf("the map of 1 TiB takes %d MiB", used>>20)
	}
	want := MapTotals{Scanned: src.pages, Span: src.pages, Free: gibs * (gibPages - 256*mibPages - 256), Fragmented: gibs * 256,
		Used: gibs * (256*mibPages + 256), Unmovable: gibs * 256, Blocks: gibs * 512, MovableBlocks: gibs * 511}
	if m != want {
		t.Errorf("%+v\nwant %+v", m, want)
	}
	owners, err := s.Owners()
	if err != nil {
		t.Fatal(err)
	}
	var sum uint64
	for _, o := range owners {
		sum += o.Pages
		if o.Owner == Host {
			continue
		}
		if scatter := 1 - float64(o.InRuns)/float64(o.PassPages); scatter < 0.48 || scatter > 0.52 || o.Huge > o.InRuns || o.PassPages != o.Pages {
			t.Errorf("%+v: scatter %.3f", o, scatter)
		}
	}
	if sum != m.Used || len(owners) != 51 {
		t.Errorf("%d owners have %d pages of %d", len(owners), sum, m.Used)
	}
	began := time.Now()
	p, err := s.Map(0, src.pages, MaxCells, "Aa")
	if err != nil || len(p.Cells) > MaxCells || p.Span < src.pages {
		t.Fatalf("%d cells, span %d, %v", len(p.Cells), p.Span, err)
	}
	t.Logf("drawn in %v", time.Since(began))
	var cells Cell
	for _, c := range p.Cells {
		cells.Free += c.Free
		cells.Used += c.Used
		cells.Owned += c.Owned
	}
	if cells.Free != m.Free || cells.Used != m.Used || cells.Owned == 0 {
		t.Errorf("cells: %+v", cells)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// small is a scanner of a machine of 4 GiB with a hole.
func small(o Options) (*Scanner, *synthetic) {
	src := &synthetic{pages: 4 * gibPages}
	o.PageSize = 4096
	if o.Owners == nil {
		o.Owners = fifty
	}
	return newScanner("", src, []Range{{1, 0x9f}, {0x100, 2 * gibPages}, {3 * gibPages, 4 * gibPages}}, 9, o), src
}

func TestMapZooms(t *testing.T) {
	s, src := small(Options{})
	if _, err := s.Map(0, s.Span(), 64, ""); !errors.Is(err, ErrEmpty) {
		t.Errorf("before a scan: %v", err)
	}
	passOnce(t, s)
	for _, c := range []struct {
		from, span uint64
		cells      int
		per        uint64
	}{{0, 4 * gibPages, 64, gibPages / 16}, {0, 4 * gibPages, 1, 4 * gibPages}, {0, 4 * gibPages, 4096, 256}, {5, 1, 1, 1}, {5, 1000, 100, 16},
		{511, 2, 2, 1}, {0x90, 0x100, 256, 1}, {4*gibPages - 1, 1, 4096, 1}, {1, 4*gibPages - 1, 3, 683 * 512 * 3}, {3*gibPages - 256, 4096, 4096, 1}} {
		p, err := s.Map(c.from, c.span, c.cells, "")
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if c.per < 100000 && p.PagesPerCell != c.per || len(p.Cells) > c.cells || p.From > c.from || p.From+p.Span < c.from+c.span || p.Span != uint64(len(p.Cells))*p.PagesPerCell {
			t.Errorf("%+v: from %d, span %d, %d cells of %d", c, p.From, p.Span, len(p.Cells), p.PagesPerCell)
		}
		for i, cell := range p.Cells {
			if cell.First != p.From+uint64(i)*p.PagesPerCell || cell.Free+cell.Used+cell.Absent+cell.Uninitialised+cell.Unknown != p.PagesPerCell {
				t.Fatalf("%+v, cell %d: %+v", c, i, cell)
			}
		}
	}
	single, err := s.Map(0x90, 0x100, 256, "")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := single.Cells[0x0e], single.Cells[0x0f]; a.Absent != 0 || b.Absent != 1 || b.Node != -1 {
		t.Errorf("around the hole below 1 MiB: %+v, %+v", a, b)
	}
	for name, c := range map[string][3]uint64{"span 0": {0, 0, 1}, "no cells": {0, 1, 0}, "beyond": {4 * gibPages, 1, 1}, "too long": {4*gibPages - 1, 2, 1}, "overflow": {1, 1<<64 - 1, 1}} {
		if _, err := s.Map(c[0], c[1], int(c[2]), ""); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	src.fail = errors.New("EIO")
	if _, err := s.Map(5, 1, 1, ""); err == nil {
		t.Error("a read that fails has no error")
	}
}

func TestBlocksAndSinglePagesAgree(t *testing.T) {
	s, _ := small(Options{})
	passOnce(t, s)
	for _, from := range []uint64{0, 64 * mibPages, 256 * mibPages, 2*gibPages - 4*512, 3*gibPages - 512} {
		blocks, err1 := s.Map(from, 8*512, 8, "Ba")
		pages, err2 := s.Map(from, 8*512, 4096, "Ba")
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		var a, b Cell
		add := func(sum *Cell, c Cell) {
			sum.Free += c.Free
			sum.Fragmented += c.Fragmented
			sum.Used += c.Used
			sum.Unmovable += c.Unmovable
			sum.Absent += c.Absent
			sum.Owned += c.Owned
		}
		for _, c := range blocks.Cells {
			add(&a, c)
		}
		for _, c := range pages.Cells {
			add(&b, c)
		}
		if a.Free != b.Free || a.Fragmented != b.Fragmented || a.Used != b.Used || a.Unmovable != b.Unmovable || a.Absent != b.Absent || a.Owned != b.Owned {
			t.Errorf("at %d: blocks %+v, pages %+v", from, a, b)
		}
	}
}

func TestRunKeepsToTheBudgetAndObeys(t *testing.T) {
	s, src := small(Options{Budget: 0.0001, IdleAfter: time.Hour, IdleEvery: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	waitFor(t, func() bool { return s.Status().Scanned > 0 })
	if st := s.Status(); st.State != StateRolling || st.Passes != 0 {
		t.Errorf("%+v", st)
	}
	done := make(chan error, 1)
	if err := s.Full("x", func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := s.Full("y", nil); !errors.Is(err, ErrBusy) && s.Status().Passes == 0 {
		t.Errorf("a second one: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); st.Passes != 1 || st.Map.Scanned < 3*gibPages-512 || st.Map.MovableBlocks == 0 {
		t.Errorf("%+v", st)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	_ = src
}

func TestFullPassIsCancelled(t *testing.T) {
	s, _ := small(Options{})
	if s.Cancel() {
		t.Error("nothing is under way")
	}
	done := make(chan error, 1)
	if err := s.Full("x", func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if !s.Cancel() {
		t.Error("it is under way")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	if err := <-done; !errors.Is(err, ErrCancelled) {
		t.Error(err)
	}
	if st := s.Status(); st.State != StateIdle || st.Passes != 0 {
		t.Errorf("%+v", st)
	}
	cancel()
	<-ran
}

func TestAFailedScanSaysSoAndIsTriedAgainOnRequest(t *testing.T) {
	s, src := small(Options{Budget: 1, IdleAfter: time.Hour, IdleEvery: time.Hour})
	src.fail = errors.New("read kpageflags at frame 0: input/output error")
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	waitFor(t, func() bool { return s.Status().State == StateUnavailable })
	reads := src.reads
	done := make(chan error, 1)
	if err := s.Full("x", func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || src.reads != reads+1 {
		t.Errorf("%v after %d reads", err, src.reads-reads)
	}
	if st := s.Status(); st.State != StateUnavailable || st.Reason != src.fail.Error() {
		t.Errorf("%+v", st)
	}
	cancel()
	<-ran
}

func TestIdleScanRests(t *testing.T) {
	s, _ := small(Options{Budget: 1, IdleAfter: time.Hour, IdleEvery: 2 * time.Hour})
	passOnce(t, s)
	s.looked = time.Now().Add(-2 * time.Hour)
	if full, wait := s.next(); full != nil || wait < 119*time.Minute {
		t.Errorf("nobody looks: %v", wait)
	}
	s.Look()
	if _, wait := s.next(); wait > time.Second {
		t.Errorf("somebody looks: %v", wait)
	}
	s.opts.Budget = 0
	if _, wait := s.next(); wait != far {
		t.Errorf("no budget: %v", wait)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within a minute")
		}
	}
}

package pagemap

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// bareRead reads both files from end to end and does nothing with what it reads.
func bareRead(t testing.TB, k *kpages, span uint64) (wall, cpu time.Duration) {
	t.Helper()
	buf := make([]uint64, WindowPages)
	began, before := time.Now(), processCPU(t)
	for first := uint64(0); first < span; first += WindowPages {
		if _, err := k.Flags(first, buf); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Owners(first, buf); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(began), processCPU(t) - before
}

// thorough makes a scan look at every page and ask for every owner, as on a host
// whose memory is all in use.
type thorough struct{ *kpages }

func (s thorough) Flags(first uint64, buf []uint64) (int, error) {
	n, err := s.kpages.Flags(first, buf)
	for i := 0; i < n; i += 512 {
		buf[i] |= flagLRU // no block is of one kind
		buf[i] &^= flagBuddy | flagTHP | flagHuge
	}
	return n, err
}

// The scan costs little more than the kernel's part of it.
func BenchmarkScanBesideABareRead(t *testing.B) {
	c, s := native(t)
	totals, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	s.Layout(totals)
	k := s.src.(*kpages)
	hard := newScanner("/", thorough{k}, s.ram, 9, s.opts)
	best := map[string]time.Duration{}
	note := func(name string, cpu time.Duration) {
		if old, ok := best[name]; !ok || cpu < old {
			best[name] = cpu
		}
	}
	for range 5 { // the least of several is what neighbours disturbed least
		_, cpu := bareRead(t, k, s.Span())
		note("bare", cpu)
		for name, s := range map[string]*Scanner{"scan": s, "hard": hard} {
			before := processCPU(t)
			passOnce(t, s)
			note(name, processCPU(t)-before)
		}
	}
	frames := float64(s.Span())
	per := func(name string) float64 { return float64(best[name]) / frames }
	t.ReportMetric(per("bare")/per("scan"), "speed")
	t.ReportMetric(per("bare")/per("hard"), "speed-full-host")
	t.Logf("CPU per frame of %d: bare read %.1f ns; scan %.1f ns, %.2f of the speed; scan of a host without a free page %.1f ns, %.2f of the speed",
		s.Span(), per("bare"), per("scan"), per("bare")/per("scan"), per("hard"), per("bare")/per("hard"))
	if ratio := per("bare") / per("scan"); ratio < 0.9 {
		t.Errorf("the scan has %.2f of the speed of a bare read", ratio)
	}
}

// pageTypesTool is the kernel's own tool, or the test is skipped.
func pageTypesTool(t testing.TB) string {
	t.Helper()
	tool := os.Getenv("CLOUDFLASH_PAGE_TYPES")
	if tool == "" {
		t.Skip("CLOUDFLASH_PAGE_TYPES does not name the kernel's page-types: scripts/bench pages builds it")
	}
	return tool
}

// flagNames are bits of kpageflags as page-types calls them.
var flagNames = map[string]int{"buddy": 10, "slab": 7, "anonymous": 12, "lru": 5, "compound_head": 15, "compound_tail": 16, "thp": 22,
	"pgtable": 26, "reserved": 32, "mmap": 11}

// The kernel's own tool counts the same pages of each kind. Others use the memory
// of this machine meanwhile, so that it is compared by windows, each as soon as it
// is at rest.
func TestScanBesidePageTypes(t *testing.T) {
	tool := pageTypesTool(t)
	_, s := native(t)
	k := s.src.(*kpages)
	sums := map[string]uint64{}
	windows, all := 0, uint64(0)
	for first := uint64(0); first < s.Span(); first += 4 * WindowPages {
		count := min(WindowPages, s.Span()-first)
		for range 30 {
			before := flagCounts(t, k, first, count)
			out, err := exec.Command(tool, "-r", "-a", strconv.FormatUint(first, 10)+"+"+strconv.FormatUint(count, 10)).Output()
			if err != nil {
				t.Fatal(err)
			}
			if after := flagCounts(t, k, first, count); after != before {
				continue
			}
			windows++
			theirs := pageTypes(t, string(out))
			for name, bit := range flagNames {
				sums[name] += theirs[name]
				off := max(theirs[name], before[bit]) - min(theirs[name], before[bit])
				all += off
				if off > 64 { // page-types maps a few pages itself, while it runs
					t.Errorf("frames from %d: %d %s, page-types says %d", first, before[bit], name, theirs[name])
				}
			}
			break
		}
	}
	t.Logf("%d windows of %d frames were at rest; by page-types %v; off by %d in all", windows, WindowPages, sums, all)
	if windows == 0 {
		t.Error("no window was at rest")
	}
}

// The scan, which also finds out the owners, beside the kernel's own tool, which
// does not, and which does so with -c.
func BenchmarkScanBesidePageTypes(b *testing.B) {
	tool := pageTypesTool(b)
	c, s := native(b)
	totals, err := c.Read()
	if err != nil {
		b.Fatal(err)
	}
	s.Layout(totals)
	least := map[string]time.Duration{}
	note := func(name string, cpu time.Duration) {
		if old, ok := least[name]; !ok || cpu < old {
			least[name] = cpu
		}
	}
	for range 5 {
		for name, args := range map[string][]string{"flags": nil, "owners": {"-c", "@1"}} {
			cmd := exec.Command(tool, args...)
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
			note(name, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		}
		before := processCPU(b)
		passOnce(b, s)
		note("scan", processCPU(b)-before)
	}
	b.ReportMetric(float64(least["scan"])/float64(least["flags"]), "of-page-types")
	b.ReportMetric(float64(least["scan"])/float64(least["owners"]), "of-page-types-with-owners")
	b.Logf("CPU: page-types %v, page-types -c %v, a scan with owners and map %v", least["flags"], least["owners"], least["scan"])
}

// flagCounts counts the frames with each flag.
func flagCounts(t testing.TB, k *kpages, first, count uint64) (sums [64]uint64) {
	t.Helper()
	buf := make([]uint64, count)
	n, err := k.Flags(first, buf)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range buf[:n] {
		for bit := range 33 {
			sums[bit] += f >> bit & 1
		}
	}
	return sums
}

// pageTypes sums the table of page-types by flag: its lines are "flags, count, MB,
// symbolic, long", the last a comma-separated list.
func pageTypes(t *testing.T, out string) map[string]uint64 {
	t.Helper()
	sums := map[string]uint64{}
	for l := range strings.Lines(out) {
		f := strings.Fields(l)
		if len(f) < 4 || !strings.HasPrefix(f[0], "0x") {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			t.Fatalf("page-types: %q", l)
		}
		if len(f) > 4 {
			for name := range strings.SplitSeq(f[4], ",") {
				sums[name] += n
			}
		}
	}
	return sums
}

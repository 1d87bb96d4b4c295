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

// The kernel's own tool counts the same, and takes longer.
func TestScanBesidePageTypes(t *testing.T) {
	tool := os.Getenv("CLOUDFLASH_PAGE_TYPES")
	if tool == "" {
		t.Skip("CLOUDFLASH_PAGE_TYPES does not name the kernel's page-types: scripts/bench-pages builds it")
	}
	_, s := native(t)
	k := s.src.(*kpages)
	for try := 1; ; try++ {
		before := flagCounts(t, k, s.Span())
		began := time.Now()
		out, err := exec.Command(tool).Output()
		theirTime := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		passOnce(t, s)
		ourTime := time.Since(began)
		after := flagCounts(t, k, s.Span())
		theirs := pageTypes(t, string(out))
		off := ""
		for name, bit := range map[string]int{"buddy": 10, "slab": 7, "anonymous": 12, "lru": 5, "compound_head": 15, "compound_tail": 16, "thp": 22, "pgtable": 26, "reserved": 32, "mmap": 11} {
			lo, hi := min(before[bit], after[bit]), max(before[bit], after[bit])
			slack := 64 + hi/1000 // others use the memory of this machine meanwhile
			if n := theirs[name]; n+slack < lo || n > hi+slack {
				off += " " + name + "=" + strconv.FormatUint(n, 10) + " of " + strconv.FormatUint(lo, 10) + " to " + strconv.FormatUint(hi, 10)
			}
		}
		t.Logf("page-types %v, scan with owners %v: %.2f of its time; counts off:%s; buddy %d by page-types, %d by the map", theirTime, ourTime,
			float64(ourTime)/float64(theirTime), off, theirs["buddy"], s.Status().Map.Free)
		if off == "" {
			return
		}
		if try == 5 {
			t.Fatalf("page-types counts%s", off)
		}
	}
}

// flagCounts counts the frames with each flag.
func flagCounts(t *testing.T, k *kpages, span uint64) (count [64]uint64) {
	t.Helper()
	buf := make([]uint64, WindowPages)
	for first := uint64(0); first < span; first += WindowPages {
		n, err := k.Flags(first, buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range buf[:n] {
			for bit := range 33 {
				count[bit] += f >> bit & 1
			}
		}
	}
	return count
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

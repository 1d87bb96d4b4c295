package pagemap

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBuddyinfo(t *testing.T) {
	got, err := parseBuddyinfo([]byte("Node 0, zone      DMA      0      1 \nNode 12, zone   Normal   5935   3364   1395\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []FreeList{{0, "DMA", []uint64{0, 1}}, {12, "Normal", []uint64{5935, 3364, 1395}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, text := range map[string]string{
		"empty": "", "no zone": "hello\n", "no counts": "Node 0, zone DMA\n", "letters": "Node 0, zone DMA 1 x\n", "too many": "Node 0, zone DMA 99999999999\n",
		"overflow": "Node 0, zone DMA 99999999999999999999999\n", "orders": "Node 0, zone DMA" + strings.Repeat(" 1", 40) + "\n", "glued": "Node 0, zone DMA 1,2\n",
		"node": "Node 99999999, zone DMA 1\n"} {
		if got, err := parseBuddyinfo([]byte(text)); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The figures are those that debugfs had for the same counts.
func TestUnusable(t *testing.T) {
	list := FreeList{Blocks: []uint64{2, 2, 3, 1, 3, 0, 2, 2, 2, 2, 100}} // 6.12, zone DMA32
	for order, want := range map[int]float64{0: 0, 8: 0.004, 9: 0.009, 10: 0.019} {
		got, ok := list.Unusable(order)
		if !ok || got < want || got >= want+0.001 { // debugfs cuts off
			t.Errorf("order %d: %.5f, want %.3f", order, got, want)
		}
	}
	if got, ok := (FreeList{Blocks: []uint64{0, 0}}).Unusable(9); ok {
		t.Errorf("nothing is free: %v", got)
	}
	// Pages are summed: a small broken zone does not count as much as a large one.
	got, _ := Unusable([]FreeList{{Blocks: []uint64{100, 0}}, {Blocks: []uint64{0, 450}}}, 1)
	if got != 0.1 {
		t.Errorf("over zones: %v", got)
	}
	if n := list.BlocksFrom(9); n != 202 {
		t.Errorf("%d huge blocks", n)
	}
}

func TestParseZoneinfo(t *testing.T) {
	got, err := parseZoneinfo([]byte(`Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 37
  pages free     3840
        boost    0
        spanned  4095
        present  3998
        managed  3840
        protection: (0, 2926, 23985, 23985, 23985)
      nr_free_pages 3840
  pagesets
    cpu: 0
              count:    0
              high: 0
  start_pfn:           1
Node 1, zone  Movable
  pages free     0
`))
	want := []Zone{{0, "DMA", 1, 4095, 3998, 3840, 3840}, {Node: 1, Name: "Movable"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for name, text := range map[string]string{"empty": "", "no zone": "Node x\n", "letters": "Node 0, zone DMA\n  present x\n", "more": "Node 0, zone DMA\n  present 1 2\n", "huge": "Node 0, zone DMA\n  present 9999999999999999\n"} {
		if got, err := parseZoneinfo([]byte(text)); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestParseIomem(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []Range
	}{
		"a PC":    {"00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n00100000-bfffffff : System RAM\n  01000000-022090c7 : Kernel code\n100000000-63fffffff : System RAM\n", []Range{{1, 0x9f}, {0x100, 0xc0000}, {0x100000, 0x640000}}},
		"driver":  {"100000000-1ffffffff : Persistent Memory\n  100000000-1ffffffff : dax0.0\n    100000000-17fffffff : System RAM (kmem)\n", []Range{{0x100000, 0x180000}}},
		"touch":   {"00200000-002fffff : System RAM\n00100000-001fffff : System RAM\n", []Range{{0x100, 0x300}}},
		"nested":  {"00100000-001fffff : System RAM\n  00100000-0010ffff : System RAM\n00200000-00200fff : ACPI\n", []Range{{0x100, 0x200}}},
		"a crumb": {"00000100-00000fff : System RAM\n00001000-00001fff : System RAM\n", []Range{{1, 2}}},
	} {
		got, err := parseIomem([]byte(c.text), 4096)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	for text, want := range map[string]string{"": "no System RAM", "00000000-00000000 : System RAM\n": "CAP_SYS_ADMIN", "x-y : System RAM\n": "no address range",
		"00002000-00001000 : System RAM\n": "no address range", "0-ffffffffffffffff : System RAM\n": "no address range"} {
		if got, err := parseIomem([]byte(text), 4096); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", text, got, err, want)
		}
	}
}

func TestParseMeminfo(t *testing.T) {
	got, err := parseMeminfo([]byte("MemTotal:       24684096 kB\nMemFree:        23839808 kB\nMemAvailable:   24136164 kB\nHugePages_Total:       0\nUnaccepted:           4 kB\n"))
	if want := (Meminfo{24684096 << 10, 23839808 << 10, 24136164 << 10, 4096}); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "MemTotal: 1 kB\n", "MemTotal: 1\nMemFree: 1 kB\n", "MemTotal: x kB\nMemFree: 1 kB\n", "MemTotal: 99999999999999999999 kB\nMemFree: 1 kB\n"} {
		if got, err := parseMeminfo([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// FuzzParsers feeds the same text to all parsers: none may panic, and what comes
// out must be fit for arithmetic.
func FuzzParsers(f *testing.F) {
	for _, text := range []string{"Node 0, zone      DMA      0      1 \n", "Node 0, zone DMA\n  pages free 3\n  present 4\n  start_pfn: 1\n",
		"00001000-0009fbff : System RAM\n", "MemTotal: 1 kB\nMemFree: 1 kB\n", "1000-2000 rw-p 0 0:0 0 x\n", "1000-2000 rw-p 0 0:0 0 x\n0-1000 ---p 0 0:0 0\n3000-9000 r 0 0 0 \xff\n2-3\n7-9 r", "1 2 3", "0::/a\n", "0-0 : System RAM", "Node 0, zone"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		lists, _ := parseBuddyinfo(b)
		zones, _ := parseZoneinfo(b)
		ram, _ := parseIomem(b, 4096)
		info, _ := parseMeminfo(b)
		maps, _, _ := readMaps(t.Context(), bytes.NewReader(b), 4096, 3, present)
		for _, l := range lists {
			if u, ok := l.Unusable(9); ok && (u < 0 || u > 1) {
				t.Errorf("index %v of %v", u, l)
			}
		}
		for i, r := range ram {
			if r.End <= r.First || i > 0 && r.First <= ram[i-1].End {
				t.Errorf("ranges %v", ram)
			}
		}
		if len(maps) > 3 {
			t.Errorf("%d mappings", len(maps))
		}
		_, _ = readCgroup(bytes.NewReader(b))
		_, _ = parseStatm(b)
		for i, m := range maps {
			if m.End < m.Start || m.Pages > 1<<52 || len(m.Name) > maxNameBytes+len("…") || i > 0 && m.Start < maps[i-1].Start {
				t.Errorf("mapping %+v", m)
			}
		}
		tot := total(lists, zones, info, ram, 4096, 9)
		if tot.Total+tot.Absent != tot.Span || tot.Fragmented > tot.Free || tot.Fragmentation < 0 || tot.Fragmentation > 1 {
			t.Errorf("%+v", tot)
		}
	})
}

// FuzzDigest feeds any flags and owners to the digester: each page is counted once.
func FuzzDigest(f *testing.F) {
	f.Add([]byte{0, 4, 0, 0, 0, 0, 0, 0, 1}, uint16(0), false)
	f.Add([]byte("\x00\x80\x41\x00\x00\x00\x00\x00\x00\x00\x41\x00"), uint16(5), true)
	f.Fuzz(func(t *testing.T, b []byte, owner uint16, uninit bool) {
		const block = 512
		flags, cgroups := make([]uint64, block), make([]uint64, block)
		for i := range flags {
			if len(b) > 0 {
				flags[i] = 1 << (b[i%len(b)] % 64) & (1<<36 - 1)
				if b[i%len(b)] > 200 {
					flags[i] = flagTail | flagTHP
				}
				cgroups[i] = uint64(b[(i*7)%len(b)]) * uint64(owner)
			}
		}
		r := newRegistry(func() map[uint64]string { return map[uint64]string{uint64(owner): "a", uint64(owner) * 2: "b"} })
		d := newDigester(r, nil)
		k := kindOf(flags)
		if k == empty && uninit {
			k = untouched
		}
		got := d.block(k, flags, cgroups)
		d.gap()
		var owned, classed uint64
		for _, o := range got.owners {
			owned += uint64(o.pages)
		}
		for _, n := range d.classes {
			classed += n
		}
		used := uint64(block) - uint64(got.free) - uint64(got.absent) - uint64(got.uninit)
		if owned > used || uint64(got.unmovable) > used || classed != block || got.largest > got.free || got.prefix > got.largest || got.suffix > got.largest {
			t.Errorf("%+v, %d owned, %d classed of %d", got, owned, classed, block)
		}
		var inRuns uint64
		for _, s := range d.stats {
			for _, n := range s.runs.pages {
				inRuns += n
			}
		}
		if inRuns != owned {
			t.Errorf("%d pages in runs, %d owned", inRuns, owned)
		}
	})
}

package cgroup

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// parseCase is one text and what becomes of it; want is not looked at when bad.
type parseCase[T any] struct {
	text string
	want T
	bad  bool
}

func table[T any](t *testing.T, parse func([]byte) (T, error), tests map[string]parseCase[T]) {
	t.Helper()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parse([]byte(tt.text))
			if (err != nil) != tt.bad {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" && !tt.bad {
				t.Error(diff)
			}
		})
	}
}

func TestParseNumber(t *testing.T) {
	table(t, parseNumber, map[string]parseCase[int64]{
		"bytes":             {text: "2322432\n", want: 2322432},
		"no newline":        {text: "7", want: 7},
		"zero":              {text: "0\n"},
		"max":               {text: "max\n", want: Max},
		"the largest int64": {text: "9223372036854775807\n", want: math.MaxInt64},
		"beyond int64":      {text: "18446744073709551615\n", want: Max},
		"beyond uint64":     {text: "18446744073709551616\n", bad: true},
		"far beyond":        {text: strings.Repeat("9", 400), bad: true},
		"negative":          {text: "-1\n", bad: true},
		"empty":             {text: "", bad: true},
		"hexadecimal":       {text: "0x10\n", bad: true},
		"two numbers":       {text: "1 2\n", bad: true},
		"a float":           {text: "1.5\n", bad: true},
	})
}

func TestParseCPUStat(t *testing.T) {
	table(t, parseCPUStat, map[string]parseCase[CPUStat]{
		"without the controller": {text: "usage_usec 5\nuser_usec 3\nsystem_usec 2\n", want: CPUStat{Usage: 5e3, User: 3e3, System: 2e3}},
		"all": {text: "usage_usec 495361\nuser_usec 296404\nsystem_usec 198957\nnice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 11\nnr_throttled 9\nthrottled_usec 916570\nnr_bursts 4\nburst_usec 70\n",
			want: CPUStat{Usage: 495361e3, User: 296404e3, System: 198957e3, Periods: 11, Throttled: 9, ThrottledTime: 916570e3, Bursts: 4, BurstTime: 70e3}},
		"empty":            {text: ""},
		"more than ages":   {text: "usage_usec 18446744073709551615\n", want: CPUStat{Usage: math.MaxInt64 / 1000 * time.Microsecond}},
		"no number":        {text: "usage_usec many\n", bad: true},
		"no value":         {text: "usage_usec\n", bad: true},
		"cut short":        {text: "usage_usec 12\nuser_us", bad: true},
		"negative":         {text: "usage_usec -1\n", bad: true},
		"two spaces":       {text: "usage_usec  1\n", bad: true},
		"carriage returns": {text: "usage_usec 1\r\n", bad: true},
	})
}

func TestParseMemoryStat(t *testing.T) {
	table(t, parseMemoryStat, map[string]parseCase[MemoryStat]{
		"some": {text: "anon 4096\nfile 8192\nkernel 1\nworkingset_refault_file 3\npgmajfault 2\nsomething_new 9\n",
			want: MemoryStat{Anon: 4096, File: 8192, Kernel: 1, RefaultFile: 3, MajorFaults: 2}},
		"empty":     {text: ""},
		"no number": {text: "anon 4096\nfile x\n", bad: true},
	})
}

func TestParseMemoryEvents(t *testing.T) {
	table(t, parseMemoryEvents, map[string]parseCase[MemoryEvents]{
		"all":               {text: "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n", want: MemoryEvents{Low: 1, High: 2, Max: 3, OOM: 4, OOMKill: 5, OOMGroupKill: 6}},
		"before Linux 5.17": {text: "low 0\nhigh 0\nmax 1\noom 1\noom_kill 1\n", want: MemoryEvents{Max: 1, OOM: 1, OOMKill: 1}},
		"no value":          {text: "low", bad: true},
	})
}

func TestParseIOStat(t *testing.T) {
	table(t, parseIOStat, map[string]parseCase[IOStat]{
		"two devices":               {text: "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:0 rbytes=5 wbytes=0 rios=1 wios=0 dbytes=7 dios=7\n", want: IOStat{15, 20, 2, 2}},
		"a loop device is left out": {text: "7:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:0 rbytes=5 wbytes=20 rios=1 wios=2\n", want: IOStat{5, 20, 1, 2}},
		// A device that was opened and not used has a line of its own and nothing in it.
		"a bare device":   {text: "254:16 \n254:0 rbytes=888832 wbytes=0 rios=18 wios=0 dbytes=0 dios=0\n", want: IOStat{888832, 0, 18, 0}},
		"with cost model": {text: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.usage=9 cost.wait=1.5\n", want: IOStat{1, 2, 3, 4}},
		"empty":           {text: ""},
		"no value":        {text: "8:0 rbytes\n", bad: true},
		"no number":       {text: "8:0 rbytes=max\n", bad: true},
	})
}

func TestParsePressure(t *testing.T) {
	line := PressureLine{Avg10: 7.24, Avg60: 1.3, Avg300: 0.27, Total: 867898 * time.Microsecond}
	table(t, parsePressure, map[string]parseCase[Pressure]{
		"both lines":           {text: "some avg10=7.24 avg60=1.30 avg300=0.27 total=867898\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", want: Pressure{Some: line}},
		"cpu before 5.13":      {text: "some avg10=7.24 avg60=1.30 avg300=0.27 total=867898\n", want: Pressure{Some: line}},
		"a whole number":       {text: "some avg10=100 avg60=1.30 avg300=0.27 total=1\n", want: Pressure{Some: PressureLine{100, 1.3, 0.27, 1000}}},
		"an average of rubble": {text: "some avg10=1.2.3 total=1\n", bad: true},
		"not a number":         {text: "some avg10=NaN total=1\n", bad: true},
		"another kind":         {text: "most avg10=0.00\n", bad: true},
		"cut short":            {text: "some avg10=7.24 avg60=", bad: true},
	})
}

func TestUnreclaimable(t *testing.T) {
	for name, c := range map[string]struct {
		stat MemoryStat
		want uint64
	}{
		"all":                      {MemoryStat{Anon: 9, InactiveAnon: 1, ActiveAnon: 2, Shmem: 2, File: 100, Unevictable: 4, Kernel: 50, Slab: 40, SlabReclaimable: 30, Sock: 8}, 1 + 2 + 4 + 20 + 8},
		"before Linux 5.18":        {MemoryStat{ActiveAnon: 1, Slab: 40, SlabReclaimable: 30, KernelStack: 3, PageTables: 5, PerCPU: 7}, 1 + 10 + 3 + 5 + 7},
		"numbers of two moments":   {MemoryStat{Unevictable: 1, Kernel: 10, SlabReclaimable: 11}, 1},
		"nothing but a page cache": {MemoryStat{File: 1 << 30, ActiveFile: 1 << 30}, 0},
	} {
		if got := c.stat.Unreclaimable(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestParseEvents(t *testing.T) {
	table(t, func(b []byte) ([2]bool, error) {
		e, err := parseEvents(b)
		return [2]bool{e.populated, e.frozen}, err
	}, map[string]parseCase[[2]bool]{
		"lives":         {text: "populated 1\nfrozen 0\n", want: [2]bool{true, false}},
		"frozen":        {text: "populated 1\nfrozen 1\n", want: [2]bool{true, true}},
		"empty":         {text: "populated 0\nfrozen 0\n"},
		"before 5.2":    {text: "populated 1\n", bad: true}, // without a freezer
		"no text":       {text: "", bad: true},
		"half a number": {text: "populated 1\nfrozen", bad: true},
	})
}

func TestParsePIDs(t *testing.T) {
	table(t, parsePIDs, map[string]parseCase[[]int]{
		"none": {text: ""}, "some": {text: "1\n4194304\n", want: []int{1, 4194304}},
		"of another namespace": {text: "0\n12\n", want: []int{0, 12}},
		"too large":            {text: "4294967296\n", bad: true}, "text": {text: "12\nx\n", bad: true},
	})
}

func TestParseCPUMax(t *testing.T) {
	table(t, parseCPUMax, map[string]parseCase[*CPU]{
		"half a core": {text: "50000 100000\n", want: &CPU{50 * time.Millisecond, 100 * time.Millisecond}},
		"no limit":    {text: "max 100000\n", want: &CPU{-1, 100 * time.Millisecond}},
		"no period":   {text: "max\n", bad: true}, "no number": {text: "x 100000\n", bad: true},
		"a negative quota": {text: "-1 100000\n", bad: true}, "overflow": {text: "9223372036854775807 100000\n", bad: true}, "empty": {text: "", bad: true},
	})
}

func TestParseIOMax(t *testing.T) {
	table(t, parseIOMax, map[string]parseCase[[]IODevice]{
		"none": {text: ""},
		"one":  {text: "254:16 rbps=max wbps=5242880 riops=max wiops=100\n", want: []IODevice{{254, 16, Max, 5242880, Max, 100}}},
		"two":  {text: "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=max wbps=max riops=2 wiops=max\n", want: []IODevice{{8, 0, 1, Max, Max, Max}, {8, 16, Max, Max, 2, Max}}},
		"new":  {text: "8:0 rbps=1 latency=9\n", want: []IODevice{{8, 0, 1, Max, Max, Max}}},
		"bad":  {text: "8 rbps=1\n", bad: true}, "no value": {text: "8:0 rbps\n", bad: true}, "negative": {text: "8:-1 rbps=1\n", bad: true},
		"huge": {text: "4294967296:0 rbps=1\n", bad: true},
	})
}

package gpu

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The texts have the keys that the drivers print (drm-usage-stats.html and the
// show_fdinfo functions of Linux 6.12).
const (
	fdHead = "pos:\t0\nflags:\t02100002\nmnt_id:\t27\nino:\t544\n"

	amdText = fdHead + "drm-driver:\tamdgpu\ndrm-client-id:\t17\ndrm-pdev:\t0000:0a:00.0\npasid:\t32771\n" +
		"drm-total-cpu:\t0\ndrm-total-gtt:\t8 MiB\ndrm-resident-gtt:\t8 MiB\ndrm-total-vram:\t600 MiB\ndrm-resident-vram:\t512 MiB\ndrm-memory-vram:\t524288 KiB\n" +
		"drm-engine-gfx:\t%d ns\ndrm-engine-compute:\t%d ns\namd-memory-visible-vram:\t512 KiB\n"

	i915Text = fdHead + "drm-driver:\ti915\ndrm-client-id:\t7\ndrm-pdev:\t0000:00:02.0\n" +
		"drm-total-system0:\t20 MiB\ndrm-shared-system0:\t0\ndrm-resident-system0:\t10240 KiB\n" +
		"drm-engine-render:\t9288864723 ns\ndrm-engine-copy:\t2035071108 ns\ndrm-engine-video:\t100 ns\ndrm-engine-capacity-video:\t2\n"

	xeText = fdHead + "drm-driver:\txe\ndrm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\n" +
		"drm-total-system:\t0\ndrm-total-vram0:\t64 MiB\ndrm-resident-vram0:\t32 MiB\n" +
		"drm-cycles-rcs:\t%d\ndrm-total-cycles-rcs:\t%d\ndrm-cycles-ccs:\t0\ndrm-total-cycles-ccs:\t100\ndrm-engine-capacity-ccs:\t4\n"
)

func TestParseFDInfo(t *testing.T) {
	tests := map[string]struct {
		text string
		want client
		ok   bool
	}{
		"amdgpu": {fmt.Sprintf(amdText, 10, 20), client{pci: "0000:0a:00.0", id: 17,
			engines: map[string]engine{"gfx": {busy: 10}, "compute": {busy: 20}},
			memory:  map[string]int64{"cpu": 0, "gtt": 8 << 20, "vram": 512 << 20}}, true},
		"i915": {i915Text, client{pci: "0000:00:02.0", id: 7,
			engines: map[string]engine{"render": {busy: 9288864723}, "copy": {busy: 2035071108}, "video": {busy: 100, capacity: 2}},
			memory:  map[string]int64{"system0": 10 << 20}}, true},
		"xe": {fmt.Sprintf(xeText, 5, 10), client{pci: "0000:03:00.0", id: 3,
			engines: map[string]engine{"rcs": {cycles: 5, total: 10}, "ccs": {total: 100, capacity: 4}},
			memory:  map[string]int64{"system": 0, "vram0": 32 << 20}}, true},
		"a regular file":        {fdHead, client{}, false},
		"a DRM file without id": {fdHead + "drm-driver:\tvkms\n", client{}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := parseFDInfo(tt.text)
			if ok != tt.ok {
				t.Errorf("ok = %v", ok)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(client{}, engine{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDeviceMemory(t *testing.T) {
	for text, want := range map[string]int64{fmt.Sprintf(amdText, 0, 0): 512 << 20, i915Text: 10 << 20, fmt.Sprintf(xeText, 0, 0): 32 << 20} {
		c, _ := parseFDInfo(text)
		if got := c.device(); got != want {
			t.Errorf("%s: %d bytes, want %d", c.pci, got, want)
		}
	}
}

func TestEngineRatio(t *testing.T) {
	tests := map[string]struct {
		before, now engine
		elapsed     float64
		want        float64
	}{
		"half of the time":          {engine{busy: 100}, engine{busy: 600}, 1000, 0.5},
		"two engines of a class":    {engine{}, engine{busy: 1000, capacity: 2}, 1000, 0.5},
		"cycles have their own":     {engine{cycles: 10, total: 100}, engine{cycles: 35, total: 200}, 1, 0.25},
		"idle":                      {engine{busy: 5}, engine{busy: 5}, 1000, 0},
		"counters that went back":   {engine{busy: 900}, engine{busy: 5}, 1000, 0},
		"more than all":             {engine{}, engine{busy: 5000}, 1000, 1},
		"no time":                   {engine{}, engine{busy: 5}, 0, 0},
		"the largest that there is": {engine{}, engine{busy: math.MaxUint64, capacity: math.MaxUint64}, 1, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.now.ratio(tt.before, tt.elapsed); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "12": 12, "3 KiB": 3072, "2 MiB": 2 << 20, "9223372036854775807 MiB": math.MaxInt64} {
		if got, ok := parseSize(text); !ok || got != want {
			t.Errorf("%q = %d, %v; want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "-1", "1 GB", "x KiB", "18446744073709551615"} {
		if got, ok := parseSize(text); ok {
			t.Errorf("%q = %d, want none", text, got)
		}
	}
}

func FuzzParseFDInfo(f *testing.F) {
	f.Add(fmt.Sprintf(amdText, 1, 2))
	f.Add(i915Text)
	f.Add(fmt.Sprintf(xeText, 1, 2))
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := parseFDInfo(text)
		if !ok {
			return
		}
		if c.device() < 0 {
			t.Errorf("%d bytes of %q", c.device(), text)
		}
		for name, e := range c.engines {
			if r := e.ratio(engine{}, 1e9); r < 0 || r > 1 || math.IsNaN(r) {
				t.Errorf("engine %s: ratio %v", name, r)
			}
		}
	})
}

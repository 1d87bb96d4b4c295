package quantity

import "testing"

func TestAmountsPeopleWrite(t *testing.T) {
	bytes := map[string]int64{"0": 0, "4096": 4096, "1k": 1024, "1.5KiB": 1536, "512MiB": 512 << 20, "8GB": 8e9, "8GiB": 8 << 30,
		" 2 g ": 2 << 30, "5MiB/s": 5 << 20, "1TiB": 1 << 40, "7b": 7}
	for in, want := range bytes {
		if got, err := Bytes(in); err != nil || got != want {
			t.Errorf("Bytes(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	bits := map[string]int64{"100Mbit": 1e8, "1Gbit": 1e9, "10mbps": 1e7, "64000": 64000, "1.5G": 15e8, "10Mbit/s": 1e7}
	for in, want := range bits {
		if got, err := Bits(in); err != nil || got != want {
			t.Errorf("Bits(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	cpus := map[string]float64{"1": 1, "0.5": 0.5, "500m": 0.5, "1.25": 1.25}
	for in, want := range cpus {
		if got, err := CPUs(in); err != nil || got != want {
			t.Errorf("CPUs(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, bad := range []string{"", " ", "x", "-1", "1e3", "0x10", "NaN", "Inf", "1..2", "GiB", "999999999999TiB", "1 2", "１"} {
		if got, err := Bytes(bad); err == nil {
			t.Errorf("Bytes(%q) = %d, want an error", bad, got)
		}
		if got, err := Bits(bad); err == nil && bad != "999999999999TiB" {
			t.Errorf("Bits(%q) = %d, want an error", bad, got)
		}
	}
}

func TestFormatting(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.50 KiB", 512 << 20: "512 MiB", 10<<30 + 1<<29: "10.5 GiB", -1024: "-1 KiB"} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 bit/s", 100e6: "100 Mbit/s", 1500e6: "1.50 Gbit/s"} {
		if got := FormatBits(n); got != want {
			t.Errorf("FormatBits(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzBytes(f *testing.F) {
	for _, s := range []string{"8GiB", "1.5k", "/s", "1e9", "b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Bytes(s); err == nil && n < 0 {
			t.Errorf("Bytes(%q) = %d", s, n)
		}
		if n, err := Bits(s); err == nil && n < 0 {
			t.Errorf("Bits(%q) = %d", s, n)
		}
		if n, err := CPUs(s); err == nil && !(n >= 0) {
			t.Errorf("CPUs(%q) = %v", s, n)
		}
	})
}

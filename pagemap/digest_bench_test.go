package pagemap

import "testing"

// BenchmarkDigest is what is ours of a scan: a window of a captured kernel, page by
// page.
func BenchmarkDigest(b *testing.B) {
	fs := fixture(b, "6.18")
	k, err := fs.openPages(1)
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	flags, cgroups := make([]uint64, WindowPages), make([]uint64, WindowPages)
	if _, err := k.Flags(0x100000, flags); err != nil {
		b.Fatal(err)
	}
	if _, err := k.Owners(0x100000, cgroups); err != nil {
		b.Fatal(err)
	}
	d := newDigester(newRegistry(func() map[uint64]string { return nil }), nil)
	b.SetBytes(WindowPages)
	b.ReportAllocs()
	before := processCPU(b) // the machine may be busy with something else
	for b.Loop() {
		for i := 0; i < WindowPages; i += 512 {
			d.block(mixed, flags[i:i+512], cgroups[i:i+512])
		}
	}
	b.ReportMetric(float64(processCPU(b)-before)/float64(b.N)/WindowPages, "ns/page")
}

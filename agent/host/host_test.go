package host

import "testing"

func TestFactsOfThisMachine(t *testing.T) {
	h, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if f := h.Facts(); f.CPUs < 1 || f.MemoryBytes <= 0 || f.StorageBytes <= 0 || len(f.BootID) != 36 || f.Kernel == "" {
		t.Errorf("facts = %+v", f)
	}
}

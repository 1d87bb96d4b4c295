package storage

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkKernelAssign is what a new VM costs: directory, project, limit.
func BenchmarkKernelAssign(b *testing.B) {
	s := openPool(b, Config{Overcommit: 1000})
	for i := 0; b.Loop(); i++ {
		if err := s.Assign(name(i), Project(i%Slots), gib); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKernelAssignAgain is what it costs on every start after.
func BenchmarkKernelAssignAgain(b *testing.B) {
	s := openPool(b, Config{})
	for b.Loop() {
		if err := s.Assign("a", Project(0), gib); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKernelSetLimit(b *testing.B) {
	s := openPool(b, Config{})
	assign(b, s, "a", 0, gib)
	for i := 0; b.Loop(); i++ {
		if err := s.SetLimit(Project(0), gib+int64(i%2)*mib); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKernelUsage is compared with walking over 1000 files, which is what
// it replaces.
func BenchmarkKernelUsage(b *testing.B) {
	s := openPool(b, Config{})
	dir := assign(b, s, "a", 0, gib)
	for i := range 1000 {
		if err := touch(filepath.Join(dir, name(i))); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("quota", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Usage(Project(0)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("walk", func(b *testing.B) {
		for b.Loop() {
			err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
				if err == nil {
					_, err = d.Info()
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkKernelRelease(b *testing.B) {
	s := openPool(b, Config{})
	for b.Loop() {
		b.StopTimer()
		if err := os.RemoveAll(assign(b, s, "a", 0, 64*mib)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := s.Release(b.Context(), Project(0)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKernelTrim is one pass over an empty pool of 20 GiB.
func BenchmarkKernelTrim(b *testing.B) {
	s := openPool(b, Config{})
	assign(b, s, "a", 0, 20*gib)
	for b.Loop() {
		if err := s.Trim(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

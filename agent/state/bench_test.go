package state

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"
)

// ended fills a database with cloudlets that are over.
func ended(tb testing.TB, db *DB, n int) {
	tb.Helper()
	must(tb, db.Update(func(tx *Tx) error {
		for i := range n {
			id := fmt.Sprintf("%010x", i)
			at, code := time.Now().UTC(), 0
			tx.PutCloudlet(Cloudlet{
				ID: id, Name: DefaultName(id), VM: "0123456789", VMName: "web", Argv: []string{"true"},
				State: CloudletSucceeded, SLA: 2, OnDeadline: OnDeadlineKill, CreatedAt: at, StartedAt: &at, FinishedAt: &at,
				ExitCode: &code, Boot: "8f3b8f6e-0000-0000-0000-000000000000", SubmittedBoot: time.Duration(i),
			})
		}
		return nil
	}))
}

// life is what becomes of a cloudlet: a commit each.
func life(db *DB, id string) error {
	for _, s := range []CloudletState{CloudletQueued, CloudletStarting, CloudletRunning, CloudletSucceeded} {
		if err := db.Update(func(tx *Tx) error {
			tx.PutCloudlet(Cloudlet{ID: id, Name: DefaultName(id), VM: "web", State: s})
			tx.Tell(Event{Kind: "cloudlet." + string(s), Cloudlet: id})
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// One operation is one change, in a synced transaction of its own or with others.
func BenchmarkCommits(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprint(writers, "writers"), func(b *testing.B) {
			db, _, _ := fresh(b)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := range max(b.N/writers/4, 1) {
						if err := life(db, fmt.Sprintf("%d-%d", w, i)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// A look at what goes on, with nothing and with much that has ended.
func BenchmarkView(b *testing.B) {
	for _, n := range []int{0, KeepEnded} {
		b.Run(fmt.Sprint(n, "ended"), func(b *testing.B) {
			db, _, _ := fresh(b)
			ended(b, db, n)
			must(b, db.Update(func(tx *Tx) error {
				tx.PutVM(VM{ID: "web", Name: "web"})
				for i := range 10 {
					tx.PutCloudlet(Cloudlet{ID: fmt.Sprint("live", i), VM: "web", State: CloudletRunning})
				}
				return nil
			}))
			b.ReportAllocs()
			for b.Loop() {
				v, found := db.View(), 0
				for range v.LiveIn("web") {
					found++
				}
				if v.FindVM("web") == nil || found != 10 || v.LiveCount() != 10 {
					b.Fatal(found)
				}
			}
		})
	}
}

// What it takes to remember 10,000 cloudlets, and what all of this process then has
// resident.
func BenchmarkMemory(b *testing.B) {
	db, _, _ := fresh(b)
	before := heap()
	ended(b, db, KeepEnded)
	perEnded := float64(heap()-before) / KeepEnded
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	must(b, err)
	var size, resident int
	_, err = fmt.Sscan(string(statm), &size, &resident)
	must(b, err)

	for b.Loop() { // it is no matter of time
	}
	b.ReportMetric(perEnded, "B/ended")
	b.ReportMetric(float64(resident*os.Getpagesize())/(1<<20), "MiB-resident")
	runtime.KeepAlive(db)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

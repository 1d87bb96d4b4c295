package guest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"cloudflash/agent/guest"
)

// These two stand side by side so that one run, on one machine, gives the ratio
// of starting /bin/true inside a VM, from the making of its scope to its exec, to
// starting it with nothing around it. Its end is not timed.

func BenchmarkKernelStartBare(b *testing.B) {
	var sum time.Duration
	for b.Loop() {
		cmd := exec.Command("/bin/true")
		began := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		sum += time.Since(began)
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(sum)/float64(b.N), "ns/op")
}

func BenchmarkKernelStartCloudlet(b *testing.B) {
	v := newVM(b, nil)
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = out.Close() })
	var sum time.Duration
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprintf("b%d", i)
		scope := v.cfg.Slice.Scope("cl-" + id)
		began := time.Now()
		if err := errors.Join(scope.Create(), scope.Chown(uidBase, uidBase)); err != nil {
			b.Fatal(err)
		}
		if _, err := v.Start(b.Context(), guest.Process{ID: id, Argv: []string{"/bin/true"}, Scope: scope, Stdout: out, Stderr: out}); err != nil {
			b.Fatal(err)
		}
		sum += time.Since(began)
		<-v.exits
		if err := errors.Join(v.Acknowledge(b.Context(), id), scope.Remove(b.Context())); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(sum)/float64(b.N), "ns/op")
}

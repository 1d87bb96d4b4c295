package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"cloudflash/agent/cloudlet"

	"golang.org/x/sys/unix"
)

// These benchmarks stand side by side so that one run, on one machine, gives the
// ratios. Each starts /bin/true, waits for its end, and begins again.

// BenchmarkKernelRunBare is the floor: the program with nothing around it.
func BenchmarkKernelRunBare(b *testing.B) {
	for b.Loop() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKernelRunCloudlet is a cloudlet from submit to its stored end.
func BenchmarkKernelRunCloudlet(b *testing.B) {
	l := newLive(b)
	l.create("bench", small())
	for b.Loop() {
		c := l.submit(cloudlet.Submit{VM: "bench", Argv: []string{"/bin/true"}})
		for !l.finalNow(c.ID) {
			<-l.Updates()
		}
	}
}

func (l *live) finalNow(id string) bool {
	c, err := l.Cloudlet(id)
	return err != nil || c.State.Final()
}

// BenchmarkKernelRunCrun is the same program as an OCI container with the same
// kinds of namespaces and limits.
func BenchmarkKernelRunCrun(b *testing.B) {
	if _, err := exec.LookPath("crun"); err != nil {
		b.Skip("no crun here: scripts/bench installs it in the test VM")
	}
	bundle := b.TempDir()
	crunBundle(b, bundle)
	for i := 0; b.Loop(); i++ {
		cmd := exec.Command("crun", "run", "--bundle", bundle, fmt.Sprintf("bench-%d", i))
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

// crunBundle is what `crun spec` writes, with /bin/true over this host's files,
// read-only.
func crunBundle(b *testing.B, dir string) {
	b.Helper()
	root := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := unix.Mount("/", root, "", unix.MS_BIND, ""); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	if out, err := exec.Command("sh", "-c", "cd "+dir+" && crun spec").CombinedOutput(); err != nil {
		b.Fatalf("crun spec: %v %s", err, out)
	}
	path := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		b.Fatal(err)
	}
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/bin/true"}
	spec["root"] = map[string]any{"path": root, "readonly": true}
	spec["linux"].(map[string]any)["resources"] = map[string]any{
		"memory": map[string]any{"limit": 128 * mib}, "cpu": map[string]any{"quota": 100000, "period": 100000}, "pids": map[string]any{"limit": 4096}}
	if raw, err = json.Marshal(spec); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkKernelVMCreate is a VM from the request to ready; deleting it is not timed.
func BenchmarkKernelVMCreate(b *testing.B) {
	l := newLive(b)
	var sum time.Duration
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("vm%d", i)
		began := time.Now()
		l.create(name, small())
		sum += time.Since(began)
		l.delete(name)
	}
	b.ReportMetric(float64(sum)/float64(b.N), "ns/op")
}

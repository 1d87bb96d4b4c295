package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"

	"golang.org/x/sys/unix"
)

func TestSystemNetworkReach(t *testing.T) {
	s := systemtest.Start(t)
	world := systemtest.NewWorld(t)
	world.Answers(80, "hello-from-outside")
	s.Out("vm", "create", "a", "--memory", "64MiB", "--publish", "8080:80")
	s.Out("vm", "create", "b", "--memory", "64MiB")
	s.Out("vm", "create", "alone", "--memory", "64MiB", "--network", "isolated")
	s.Out("vm", "create", "c", "--memory", "64MiB", "--network", "bridge")
	s.Out("vm", "create", "d", "--memory", "64MiB", "--network", "bridge")
	address := func(vm string) string { return s.VM(vm).Network.IPv4 }
	reach := func(vm, addr string, port int) string {
		out, _, _ := s.Run("vm", "exec", vm, "--", "timeout", "10", "socat", "-u",
			fmt.Sprintf("TCP:%s:%d,connect-timeout=3", addr, port), "STDOUT")
		return strings.TrimSpace(out)
	}
	for _, vm := range []string{"a", "c"} {
		if got := reach(vm, world.Addr, 80); got != "hello-from-outside" {
			t.Errorf("%s reaches the outside: %q", vm, got)
		}
	}
	for _, vm := range []string{"a", "b", "d"} {
		s.Submit(vm, "web-"+vm, "socat", "TCP-LISTEN:80,fork,reuseaddr", "SYSTEM:echo I am "+vm)
	}
	systemtest.Until(t, "c reaches d", func() bool { return reach("c", address("d"), 80) == "I am d" })
	var all sync.WaitGroup // each takes as long as it may
	all.Go(func() {
		if got := reach("alone", world.Addr, 80); got != "" {
			t.Errorf("an isolated VM reaches the outside: %q", got)
		}
	})
	for _, pair := range [][2]string{{"a", "b"}, {"c", "b"}, {"b", "d"}} {
		to := address(pair[1])
		all.Go(func() {
			if got := reach(pair[0], to, 80); got != "" {
				t.Errorf("%s reaches %s: %q", pair[0], pair[1], got)
			}
		})
	}
	all.Wait()
	// Published: from the outside, and from the host itself.
	out, err := world.Command("timeout", "10", "socat", "-u", "TCP:"+world.Host+":8080,connect-timeout=3", "STDOUT").Output()
	if strings.TrimSpace(string(out)) != "I am a" {
		t.Errorf("published port: %q %v", out, err)
	}
	if _, msg, code := s.Run("vm", "create", "x", "--publish", "8080:80"); code != 4 || !strings.Contains(msg, "published by VM a") {
		t.Errorf("a port twice: %d %s", code, msg)
	}
	l, err := net.Listen("tcp", "0.0.0.0:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, msg, code := s.Run("vm", "create", "x", "--publish", "8081:80"); code != 4 || !strings.Contains(msg, "8081") {
		t.Errorf("a port that a process of the host has: %d %s", code, msg)
	}
	if got := s.VM("a").Usage.SentBytes; got == 0 {
		systemtest.Until(t, "traffic is counted", func() bool { return s.VM("a").Usage.SentBytes > 0 })
	}
	if out := s.Out("vm", "list", "-o", "name"); strings.Contains(out, "x\n") {
		t.Errorf("a refused VM is there: %s", out)
	}
}

// A resize during a transfer shows, and the connection lives.
func TestSystemBandwidth(t *testing.T) {
	s := systemtest.Start(t)
	world := systemtest.NewWorld(t)
	world.Start("socat", "-u", "TCP-LISTEN:9000,fork,reuseaddr", "OPEN:/dev/null,wronly")
	s.Out("vm", "create", "web", "--memory", "128MiB", "--bandwidth", "10Mbit")
	s.Out("cloudlet", "submit", "--vm", "web", "--name", "up", "--", "socat", "-u", "OPEN:/dev/zero",
		"TCP:"+world.Addr+":9000,retry=20,interval=0.2")
	s.Await("up", agent.CloudletRunning)
	rate := func(over time.Duration) float64 { // what leaves the host is what passed the limit
		began, before := time.Now(), world.Sent()
		time.Sleep(over)
		return (world.Sent() - before) * 8 / time.Since(began).Seconds() / 1e6
	}
	systemtest.Until(t, "the transfer has begun", func() bool { return rate(200*time.Millisecond) > 1 })
	for _, limit := range []float64{15, 3} {
		s.Out("vm", "set", "web", "--bandwidth", fmt.Sprintf("%gMbit", limit))
		// An emulator that is busy may let pass less for a while, but never more.
		systemtest.Until(t, fmt.Sprintf("%g Mbit/s pass", limit), func() bool {
			got := rate(2 * time.Second)
			t.Logf("%.2f Mbit/s on the wire, limit %g", got, limit)
			if got > limit*1.05 {
				t.Errorf("%.2f Mbit/s, limit %g", got, limit)
			}
			return got >= limit*0.85 // frames have headers that the limit counts
		})
	}
	if c := s.Cloudlet("up"); c.State != agent.CloudletRunning {
		t.Errorf("the connection broke: %s %s", c.State, c.Reason)
	}
	if got := s.VM("web").Limits.BandwidthBPS; got == nil || *got < 2.9e6 || *got > 3.1e6 {
		t.Errorf("limit as the kernel has it: %v", got)
	}
}

func TestSystemStorageQuota(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "full", "--memory", "128MiB", "--storage", "64MiB")
	s.Out("vm", "create", "neighbour", "--memory", "128MiB", "--storage", "64MiB")
	write := func(vm string, mib int) (written int64) {
		_, _, _ = s.Run("vm", "exec", vm, "--", "dd", "if=/dev/zero", "of=/data/big", "bs=1M", fmt.Sprintf("count=%d", mib), "conv=fsync")
		out := s.Out("vm", "exec", vm, "--", "stat", "-c", "%s", "/data/big")
		written, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return written
	}
	got := write("full", 70)
	t.Logf("dd of 70 MiB into a VM of 64 MiB stopped at %d bytes", got)
	if got > 64<<20 || got < 63<<20 {
		t.Errorf("stopped at %d", got)
	}
	if got := write("neighbour", 10); got != 10<<20 {
		t.Errorf("the neighbour wrote %d", got)
	}
	if _, msg, code := s.Run("vm", "set", "neighbour", "--storage", "16MiB"); code != 2 { // below the range
		t.Errorf("%d %s", code, msg)
	}
	s.Out("vm", "set", "full", "--storage", "128MiB")
	if got := write("full", 70); got != 70<<20 {
		t.Errorf("after growing: %d", got)
	}
	if _, msg, code := s.Run("vm", "set", "full", "--storage", "64MiB"); code != 4 || !strings.Contains(msg, "storage_bytes") {
		t.Errorf("shrink below use: %d %s", code, msg)
	}
	if v := s.VM("full"); *v.Limits.StorageBytes != 128<<20 || v.Spec.StorageBytes != 128<<20 {
		t.Errorf("a refused resize changed %+v", v)
	}
	s.Out("vm", "exec", "full", "--", "rm", "/data/big")
	s.Out("vm", "set", "full", "--storage", "64MiB")
	// Output files count too.
	_, _, _ = s.Run("cloudlet", "run", "--vm", "full", "--name", "loud", "--", "sh", "-c", "yes | head -c 100000000")
	systemtest.Until(t, "output counts against the VM", func() bool { return s.VM("full").Usage.StorageBytes > 30<<20 })
	systemtest.Until(t, "and stops at its limit", func() bool { return s.VM("full").Usage.StorageBytes <= 65<<20 })
}

// Deleting gives the space back, to the last block that matters.
func TestSystemStorageIsGivenBack(t *testing.T) {
	cycles := 6
	if n, err := strconv.Atoi(os.Getenv("CLOUDFLASH_SOAK")); err == nil {
		cycles = max(20, n/5)
	}
	s := systemtest.Start(t, "--trim-after", "1s")
	pool := filepath.Join(s.StateDir, "pool.xfs")
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(pool, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	cycle := func(i int) {
		name := fmt.Sprintf("v%d", i)
		s.Out("vm", "create", name, "--memory", "64MiB", "--storage", "64MiB")
		_, _, _ = s.Run("vm", "exec", name, "--", "dd", "if=/dev/zero", "of=/data/big", "bs=1M", "count=10", "conv=fsync")
		s.Out("vm", "delete", name, "--grace", "0s")
	}
	cycle(0)
	s.Looks(3) // it is trimmed
	empty := blocks()
	for i := range cycles {
		cycle(i + 1)
	}
	systemtest.Until(t, "the pool is as small as before", func() bool { return blocks() <= empty+(4<<20) })
	t.Logf("the pool holds %d KiB after %d cycles of 10 MiB, %d KiB after the first", blocks()>>10, cycles, empty>>10)
	for line := range strings.Lines(s.Quotas()) {
		if f := strings.Fields(line); len(f) > 3 && f[0] != "#0" {
			t.Errorf("a quota is left: %s", line)
		}
	}
}

// TestSystemNothingLeaks makes many VMs, some at once and most one after the
// other, and counts what is left. CLOUDFLASH_SOAK is how many in all; a third as
// many live at once.
//
// It takes 20 to 40 s: a leak of one a VM has to be more than what comes and goes by itself.
func TestSystemNothingLeaks(t *testing.T) {
	all := 12 // more than may come and go by itself
	if n, err := strconv.Atoi(os.Getenv("CLOUDFLASH_SOAK")); err == nil {
		all = n
	}
	s := systemtest.Start(t)
	create := func(name string) {
		t.Helper()
		systemtest.Must[agent.VM](s, "POST", "/api/v1/vms", map[string]any{
			"name":          name,
			"cpus":          0.1,
			"memory_bytes":  32 << 20,
			"storage_bytes": 64 << 20,
			"bandwidth_bps": 1000000,
		})
	}
	create("warm")
	s.MustRemove("warm")
	before := s.Rest()

	alive := min(all*3/10, 300)
	began := time.Now()
	for i := range alive {
		create(fmt.Sprintf("alive%d", i))
		if i%50 == 49 {
			t.Logf("%d alive after %.0f s", i+1, time.Since(began).Seconds())
		}
	}
	t.Logf("%d VMs alive after %.0f s: %v", alive, time.Since(began).Seconds(), s.Counts())
	rss := s.Metric("process_resident_memory_bytes")
	t.Logf("the agent has %d MiB resident", rss>>20)
	for i := range alive {
		s.MustRemove(fmt.Sprintf("alive%d", i))
	}
	began = time.Now()
	for i := range all - alive {
		create(fmt.Sprintf("v%d", i))
		s.MustRemove(fmt.Sprintf("v%d", i))
	}
	t.Logf("%d more created and deleted in %.0f s", all-alive, time.Since(began).Seconds())
	s.NoMore(before)
}

// TestSystemProgramsSeeTheirLimits where runtimes look for them, as they are now.
func TestSystemProgramsSeeTheirLimits(t *testing.T) {
	s := systemtest.Start(t)
	s.Out("vm", "create", "web", "--cpus", "0.5", "--memory", "128MiB")
	shown := func() string {
		return s.Out("vm", "exec", "web", "--", "sh", "-c",
			"cd /sys/fs/cgroup && cat cpu.max memory.max; cat pids.max cpu.stat memory.current memory.pressure >/dev/null")
	}
	if got := shown(); got != "50000 100000\n134217728\n" {
		t.Errorf("%q", got)
	}
	s.Out("vm", "set", "web", "--cpus", "1", "--memory", "192MiB")
	if got := shown(); got != "100000 100000\n201326592\n" {
		t.Errorf("after a resize: %q", got)
	}
}

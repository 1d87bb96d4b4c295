package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"golang.org/x/sys/unix"
)

// outside is a network namespace that plays the world beyond the host.
type outside struct {
	t    *testing.T
	addr string
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	script := `ip netns add world && ip link add out0 type veth peer name out1 netns world &&
ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up && ip -n world addr add 192.0.2.2/24 dev out1 && ip -n world link set out1 up &&
ip -n world link set lo up && ip -n world route add default via 192.0.2.1 && ip route replace default via 192.0.2.2 dev out0`
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("sh", "-c", "ip link del out0; ip netns del world").Run() })
	return &outside{t, "192.0.2.2"}
}

// start runs a program out there until the test ends.
func (o *outside) start(args ...string) *exec.Cmd {
	o.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", "world"}, args...)...)
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// answers makes a port out there send a text to whoever connects.
func (o *outside) answers(port int, text string) {
	o.t.Helper()
	o.start("socat", fmt.Sprintf("TCP-LISTEN:%d,fork,reuseaddr", port), "SYSTEM:echo "+text)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", net.JoinHostPort(o.addr, strconv.Itoa(port))); err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			o.t.Fatalf("nobody answers on port %d outside", port)
		}
	}
}

func TestKernelNetworkReach(t *testing.T) {
	s := newShell(t)
	world := newOutside(t)
	world.answers(80, "hello-from-outside")
	s.out("vm", "create", "a", "--memory", "64MiB", "--publish", "8080:80")
	s.out("vm", "create", "b", "--memory", "64MiB")
	s.out("vm", "create", "alone", "--memory", "64MiB", "--network", "isolated")
	s.out("vm", "create", "c", "--memory", "64MiB", "--network", "bridge")
	s.out("vm", "create", "d", "--memory", "64MiB", "--network", "bridge")
	address := func(vm string) string { return show[agent.VM](s, "vm", vm).Network.IPv4 }
	reach := func(vm, addr string, port int) string {
		out, _, _ := s.run("vm", "exec", vm, "--", "timeout", "10", "socat", "-u", fmt.Sprintf("TCP:%s:%d,connect-timeout=3", addr, port), "STDOUT")
		return strings.TrimSpace(out)
	}
	for _, vm := range []string{"a", "c"} {
		if got := reach(vm, world.addr, 80); got != "hello-from-outside" {
			t.Errorf("%s reaches the outside: %q", vm, got)
		}
	}
	if got := reach("alone", world.addr, 80); got != "" {
		t.Errorf("an isolated VM reaches the outside: %q", got)
	}
	for _, vm := range []string{"a", "b", "d"} {
		s.out("cloudlet", "submit", "--vm", vm, "--name", "web-"+vm, "--", "socat", "TCP-LISTEN:80,fork,reuseaddr", "SYSTEM:echo I am "+vm)
		s.await("web-"+vm, agent.CloudletRunning)
	}
	until(t, "c reaches d", func() bool { return reach("c", address("d"), 80) == "I am d" })
	for _, pair := range [][2]string{{"a", "b"}, {"c", "b"}, {"b", "d"}} {
		if got := reach(pair[0], address(pair[1]), 80); got != "" {
			t.Errorf("%s reaches %s: %q", pair[0], pair[1], got)
		}
	}
	// Published: from the outside, and from the host itself.
	out, err := exec.Command("ip", "netns", "exec", "world", "timeout", "10", "socat", "-u", "TCP:192.0.2.1:8080,connect-timeout=3", "STDOUT").Output()
	if strings.TrimSpace(string(out)) != "I am a" {
		t.Errorf("published port: %q %v", out, err)
	}
	if _, msg, code := s.run("vm", "create", "x", "--publish", "8080:80"); code != 4 || !strings.Contains(msg, "published by VM a") {
		t.Errorf("a port twice: %d %s", code, msg)
	}
	l, err := net.Listen("tcp", "0.0.0.0:8081")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, msg, code := s.run("vm", "create", "x", "--publish", "8081:80"); code != 4 || !strings.Contains(msg, "8081") {
		t.Errorf("a port that a process of the host has: %d %s", code, msg)
	}
	if got := show[agent.VM](s, "vm", "a").Usage.SentBytes; got == 0 {
		until(t, "traffic is counted", func() bool { return show[agent.VM](s, "vm", "a").Usage.SentBytes > 0 })
	}
	if out := s.out("vm", "list", "-o", "name"); strings.Contains(out, "x\n") {
		t.Errorf("a refused VM is there: %s", out)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

// A resize during a transfer shows, and the connection lives.
func TestKernelBandwidth(t *testing.T) {
	s := newShell(t)
	world := newOutside(t)
	world.start("socat", "-u", "TCP-LISTEN:9000,fork,reuseaddr", "OPEN:/dev/null,wronly")
	s.out("vm", "create", "web", "--memory", "128MiB", "--bandwidth", "10Mbit")
	s.out("cloudlet", "submit", "--vm", "web", "--name", "up", "--", "socat", "-u", "OPEN:/dev/zero", "TCP:192.0.2.2:9000,retry=20,interval=0.2")
	s.await("up", agent.CloudletRunning)
	// What leaves the host is what passed the limit.
	sent := func() float64 {
		b, err := os.ReadFile("/sys/class/net/out0/statistics/tx_bytes")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
		if err != nil {
			t.Fatal(err)
		}
		return n * 8
	}
	rate := func(over time.Duration) float64 {
		began, before := time.Now(), sent()
		time.Sleep(over)
		return (sent() - before) / time.Since(began).Seconds() / 1e6
	}
	until(t, "the transfer has begun", func() bool { return rate(200*time.Millisecond) > 1 })
	for _, limit := range []float64{10, 25, 5} {
		s.out("vm", "set", "web", "--bandwidth", fmt.Sprintf("%gMbit", limit))
		time.Sleep(time.Second)
		got := rate(3 * time.Second)
		t.Logf("%.2f Mbit/s on the wire, limit %g", got, limit)
		if got > limit*1.05 || got < limit*0.85 { // frames have headers that the limit counts
			t.Errorf("%.2f Mbit/s, limit %g", got, limit)
		}
	}
	if c := show[agent.Cloudlet](s, "cloudlet", "up"); c.State != agent.CloudletRunning {
		t.Errorf("the connection broke: %s %s", c.State, c.Reason)
	}
	if got := show[agent.VM](s, "vm", "web").Limits.BandwidthBPS; got == nil || *got < 4.9e6 || *got > 5.1e6 {
		t.Errorf("limit as the kernel has it: %v", got)
	}
}

func TestKernelStorageQuota(t *testing.T) {
	s := newShell(t)
	s.out("vm", "create", "full", "--memory", "128MiB", "--storage", "64MiB")
	s.out("vm", "create", "neighbour", "--memory", "128MiB", "--storage", "64MiB")
	write := func(vm string, mib int) (written int64) {
		_, _, _ = s.run("vm", "exec", vm, "--", "dd", "if=/dev/zero", "of=/data/big", "bs=1M", fmt.Sprintf("count=%d", mib), "conv=fsync")
		out := s.out("vm", "exec", vm, "--", "stat", "-c", "%s", "/data/big")
		written, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return written
	}
	got := write("full", 100)
	t.Logf("dd of 100 MiB into a VM of 64 MiB stopped at %d bytes", got)
	if got > 64<<20 || got < 63<<20 {
		t.Errorf("stopped at %d", got)
	}
	if got := write("neighbour", 30); got != 30<<20 {
		t.Errorf("the neighbour wrote %d", got)
	}
	if _, msg, code := s.run("vm", "set", "neighbour", "--storage", "16MiB"); code != 2 { // below the range
		t.Errorf("%d %s", code, msg)
	}
	s.out("vm", "set", "full", "--storage", "128MiB")
	if got := write("full", 100); got != 100<<20 {
		t.Errorf("after growing: %d", got)
	}
	if _, msg, code := s.run("vm", "set", "full", "--storage", "64MiB"); code != 4 || !strings.Contains(msg, "storage_bytes") {
		t.Errorf("shrink below use: %d %s", code, msg)
	}
	if v := show[agent.VM](s, "vm", "full"); *v.Limits.StorageBytes != 128<<20 || v.Spec.StorageBytes != 128<<20 {
		t.Errorf("a refused resize changed %+v", v)
	}
	s.out("vm", "exec", "full", "--", "rm", "/data/big")
	s.out("vm", "set", "full", "--storage", "64MiB")
	// Output files count too.
	_, _, _ = s.run("cloudlet", "run", "--vm", "full", "--name", "loud", "--", "sh", "-c", "yes | head -c 100000000")
	until(t, "output counts against the VM", func() bool { return show[agent.VM](s, "vm", "full").Usage.StorageBytes > 30<<20 })
	until(t, "and stops at its limit", func() bool { return show[agent.VM](s, "vm", "full").Usage.StorageBytes <= 65<<20 })
}

// Deleting gives the space back, to the last block that matters.
func TestSystemStorageIsGivenBack(t *testing.T) {
	cycles := 20
	if n, err := strconv.Atoi(os.Getenv("CLOUDFLASH_SOAK")); err == nil {
		cycles = max(cycles, n/5)
	}
	s := newShell(t)
	pool := filepath.Join(s.state, "pool.xfs")
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(pool, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	cycle := func(i int) {
		name := fmt.Sprintf("v%d", i)
		s.out("vm", "create", name, "--memory", "64MiB", "--storage", "64MiB")
		_, _, _ = s.run("vm", "exec", name, "--", "dd", "if=/dev/zero", "of=/data/big", "bs=1M", "count=20", "conv=fsync")
		s.out("vm", "delete", name, "--grace", "0s")
	}
	cycle(0)
	time.Sleep(8 * time.Second) // until it is trimmed
	empty := blocks()
	for i := range cycles {
		cycle(i + 1)
	}
	until(t, "the pool is as small as before", func() bool { return blocks() <= empty+(4<<20) })
	t.Logf("the pool holds %d KiB after %d cycles of 20 MiB, %d KiB after the first", blocks()>>10, cycles, empty>>10)
	out, err := exec.Command("xfs_quota", "-x", "-c", "report -p -N -b", filepath.Join(s.state, "vms")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 3 && f[0] != "#0" {
			t.Errorf("a quota is left: %s", line)
		}
	}
}

// counts is how much there is of what could leak.
func (s *shell) counts() map[string]int {
	s.t.Helper()
	c := map[string]int{"mounts": mountCount(s.t), "cgroups": 0, "links": 0}
	c["descriptors"] = len(dirEntries(s.t, fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid)))
	for _, e := range dirEntries(s.t, fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid)) {
		if target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", s.cmd.Process.Pid, e)); strings.Contains(target, "inotify") {
			c["inotify"]++
		}
	}
	_ = filepath.WalkDir(s.parent, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			c["cgroups"]++
		}
		return nil
	})
	c["links"] = len(dirEntries(s.t, "/sys/class/net"))
	spaces := map[string]bool{}
	for _, e := range dirEntries(s.t, "/proc") {
		if ns, err := os.Readlink("/proc/" + e + "/ns/net"); err == nil {
			spaces[ns] = true
		}
	}
	c["network namespaces"] = len(spaces)
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	c["rules"] = strings.Count(string(rules), "\n")
	quotas, _ := exec.Command("xfs_quota", "-x", "-c", "report -p -N -b", filepath.Join(s.state, "vms")).Output()
	c["quotas"] = strings.Count(string(quotas), "#")
	c["goroutines"] = s.metric("go_goroutines")
	return c
}

func dirEntries(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (s *shell) metric(name string) int {
	s.t.Helper()
	resp, err := s.client.Get("http://localhost/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.t.Fatal(resp.Status)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			f, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return int(f)
		}
	}
	s.t.Fatalf("no metric %s", name)
	return 0
}

// TestSystemNothingLeaks makes many VMs, some at once and most one after the
// other, and counts what is left. CLOUDFLASH_SOAK is how many in all; a third as
// many live at once.
func TestSystemNothingLeaks(t *testing.T) {
	all := 60
	if n, err := strconv.Atoi(os.Getenv("CLOUDFLASH_SOAK")); err == nil {
		all = n
	}
	s := newShell(t)
	make := func(name string) error {
		_, err := call[agent.VM](s.daemon, "POST", "/api/v1/vms", map[string]any{"name": name, "cpus": 0.1, "memory_bytes": 32 << 20, "storage_bytes": 64 << 20, "bandwidth_bps": 1000000})
		return err
	}
	remove := func(name string) error {
		op, err := call[agent.Operation](s.daemon, "DELETE", "/api/v1/vms/"+name+"?grace=0s", nil)
		for err == nil && op.State == agent.OperationRunning {
			op, err = call[agent.Operation](s.daemon, "GET", "/api/v1/operations/"+op.ID+"?wait=30s", nil)
		}
		if err == nil && op.State != agent.OperationSucceeded {
			err = fmt.Errorf("%s: %s", op.State, op.Error)
		}
		return err
	}
	first := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first(make("warm"))
	first(remove("warm"))
	time.Sleep(8 * time.Second) // until it is trimmed
	before := s.counts()
	alive := min(all*3/10, 300)
	began := time.Now()
	for i := range alive {
		first(make(fmt.Sprintf("alive%d", i)))
		if i%50 == 49 {
			t.Logf("%d alive after %.0f s", i+1, time.Since(began).Seconds())
		}
	}
	t.Logf("%d VMs alive after %.0f s: %v", alive, time.Since(began).Seconds(), s.counts())
	rss := s.metric("process_resident_memory_bytes")
	t.Logf("the agent has %d MiB resident", rss>>20)
	for i := range alive {
		first(remove(fmt.Sprintf("alive%d", i)))
	}
	began = time.Now()
	for i := range all - alive {
		first(make(fmt.Sprintf("v%d", i)))
		first(remove(fmt.Sprintf("v%d", i)))
	}
	t.Logf("%d more created and deleted in %.0f s", all-alive, time.Since(began).Seconds())
	var after map[string]int
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		after = s.counts()
		settled := true
		for what, n := range after {
			settled = settled && n <= before[what]+slackOf(what)
		}
		if settled {
			t.Logf("before %v, after %v", before, after)
			return
		}
	}
	t.Errorf("before %v, after %v", before, after)
}

// slackOf is what may come and go by itself: connections of this test, and the
// goroutines that serve them.
func slackOf(what string) int {
	return map[string]int{"descriptors": 4, "goroutines": 8}[what]
}

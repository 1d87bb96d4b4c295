package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent"
	"cloudflash/cmd/cloudflash/systemtest"

	"golang.org/x/sys/unix"
)

// TestMain makes the test binary an attacker where it is one: a copy of it lies in
// the /data of a hostile VM.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "hostile" {
		attack(os.Args[2:])
		return
	}
	m.Run()
}

// evilMemory is what the hostile VM may have.
const evilMemory = "128MiB"

// fortress is an agent with a hostile VM called evil and a neighbour called good.
type fortress struct {
	*systemtest.Agent
	mark   string   // what the host's and the neighbour's secrets hold
	paths  []string // and where they are, on the host
	victim string   // a directory of the host that anybody may write to
	pid    int      // of the neighbour's cloudlet
	made   string   // when the agent's programs were
	mounts int
}

// newFortress makes the two. What fills a VM with so little memory is done soon.
func newFortress(t *testing.T) *fortress {
	t.Helper()
	f := &fortress{mounts: systemtest.Mounts(t), mark: fmt.Sprintf("mark-%d-%d", os.Getpid(), time.Now().UnixNano())}
	f.Agent = systemtest.Start(t)
	f.victim = filepath.Join(filepath.Dir(f.StateDir), "victim")
	secret := filepath.Join("/root", f.mark)
	for _, file := range []string{secret, filepath.Join(f.StateDir, "secret"), filepath.Join(f.victim, "keep")} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(f.mark), 0o644); err != nil {
			t.Fatal(err)
		}
		f.paths = append(f.paths, file)
	}
	t.Cleanup(func() { _, _ = os.RemoveAll(f.victim), os.Remove(secret) })
	if err := os.Chmod(f.victim, 0o777); err != nil {
		t.Fatal(err)
	}
	f.made = f.programs()
	f.Out("vm", "create", "good", "--memory", "64MiB", "--pids", "64")
	f.Out("cloudlet", "submit", "--vm", "good", "--name", "neighbour", "--env", "SECRET="+f.mark, "--", "sh", "-c",
		"echo "+f.mark+" >/data/secret; exec sleep 98765")
	f.pid = f.Await("neighbour", agent.CloudletRunning).PID
	f.paths = append(f.paths, filepath.Join(f.dataOf("good"), "secret"), f.StateDir, f.RunDir)
	f.Out("vm", "create", "evil", "--cpus", "2", "--memory", evilMemory, "--pids", "300", "--storage", "1GiB")
	f.arm("evil")
	return f
}

func (f *fortress) dataOf(vm string) string {
	return filepath.Join(f.StateDir, "vms", f.VM(vm).ID, "data")
}

// arm puts the test binary into a VM.
func (f *fortress) arm(vm string) {
	copyProgram(f.T, "/proc/self/exe", filepath.Join(f.dataOf(vm), "hostile"))
}

func copyProgram(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// programs tells what the agent executes from anything else. Whoever writes to a file changes its ctime, which nobody
// can set; to hash them takes an emulated CPU seconds.
func (f *fortress) programs() string {
	all := ""
	for _, name := range []string{"cloudflash", "cloudflash-init", "burn"} {
		path, err := exec.LookPath(name)
		if err != nil {
			f.T.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			f.T.Fatal(err)
		}
		all += fmt.Sprintf("%d:%d %o %d.%09d\n", st.Dev, st.Ino, st.Mode, st.Ctim.Sec, st.Ctim.Nsec)
	}
	return all
}

// attack runs an attack of the table in a VM. Whatever becomes of it, it must
// not say that it got through; it must say that it was held off unless it may
// be killed half-way.
func (f *fortress) attack(t *testing.T, vm string, mayDie bool, name string, args ...string) string {
	t.Helper()
	out, errOut, code := f.Run(append([]string{"cloudlet", "run", "--vm", vm, "--", "/data/hostile", "hostile", name}, args...)...)
	if strings.Contains(out, "BREACH") || !strings.Contains(out, "held") && !mayDie {
		t.Errorf("exit code %d\n%.2000s\n%.500s", code, out, errOut)
	}
	return strings.TrimSpace(out)
}

// script is an attack that is a shell script: it says BREACH when it got through.
func (f *fortress) script(t *testing.T, script string) string {
	t.Helper()
	out, errOut, _ := f.Run("cloudlet", "run", "--vm", "evil", "--", "sh", "-c", script)
	if strings.Contains(out, "BREACH") || strings.Contains(errOut, ": not found") {
		t.Errorf("%s\n%s", out, errOut)
	}
	return out + errOut
}

// well checks that the agent, the init of the VM and the neighbour are.
func (f *fortress) well(t *testing.T) {
	t.Helper()
	f.unharmed(t)
	out, errOut, code := f.Run("cloudlet", "run", "--vm", "good", "--", "cat", "/data/secret")
	if strings.TrimSpace(out) != f.mark {
		t.Errorf("the neighbour's VM: %d %q %q", code, out, errOut)
	}
}

// unharmed is well without running anything.
func (f *fortress) unharmed(t *testing.T) {
	t.Helper()
	if _, err := systemtest.Call[map[string]any](f.Agent, "GET", "/health", nil); err != nil {
		t.Errorf("health: %v", err)
	}
	n := f.Cloudlet("neighbour")
	if n.State != agent.CloudletRunning || n.PID != f.pid || syscall.Kill(f.pid, 0) != nil {
		t.Errorf("the neighbour is %s (%s), pid %d, was %d", n.State, n.Reason, n.PID, f.pid)
	}
	if f.programs() != f.made {
		t.Error("a program of the agent's has changed")
	}
	if left := systemtest.Names(t, f.victim); len(left) != 1 || left[0] != "keep" {
		t.Errorf("the victim's directory holds %v", left)
	}
	if b, err := os.ReadFile(filepath.Join(f.victim, "keep")); err != nil || string(b) != f.mark {
		t.Errorf("the victim's file: %q, %v", b, err)
	}
}

// holds checks that all is well at the end, and that nothing is left of the VMs.
func (f *fortress) holds(t *testing.T) {
	t.Helper()
	f.well(t)
	f.DeleteAll()
	f.NothingLeft(f.mounts)
}

// attacks runs those of the table that have no arguments.
func (f *fortress) attacks(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		t.Run(name, func(t *testing.T) { f.attack(t, "evil", false, name) })
	}
}

// scripts runs shell scripts.
func (f *fortress) scripts(t *testing.T, scripts map[string]string) {
	t.Helper()
	for what, script := range scripts {
		t.Run(what, func(t *testing.T) { f.script(t, script) })
	}
}

// System calls that a VM must not make, and what they would reach.
func TestKernelHostileCalls(t *testing.T) {
	f := newFortress(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	f.attacks(t, "forbidden calls", "namespaces", "priorities", "limits of its own", "uncharged memory")
	t.Run("modules", f.modules)
	f.scripts(t, map[string]string{
		"unshare":      "unshare -U true && echo BREACH; unshare -m true && echo BREACH; unshare -n true && echo BREACH; true",
		"frozen clock": "date -s 2001-01-01 && echo BREACH; hostname owned && echo BREACH; true",
	})
	if now, err := os.Hostname(); err != nil || now != name || time.Now().Year() < 2020 {
		t.Errorf("the host is called %s at %v, %v", now, time.Now(), err)
	}
	f.holds(t)
}

// modules has the kernel ask a program of the test for its modules.
func (f *fortress) modules(t *testing.T) {
	const modprobe = "/proc/sys/kernel/modprobe"
	loader, err := os.ReadFile(modprobe)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	script := fmt.Sprintf("#!/bin/sh\necho \"$*\" >>%s\nexec %s \"$@\"\n", asked, strings.TrimSpace(string(loader)))
	if err := os.WriteFile(filepath.Join(dir, "modprobe"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(modprobe, []byte(filepath.Join(dir, "modprobe")), 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(modprobe, loader, 0); err != nil {
			t.Error(err)
		}
	}()

	// It is asked at all: by the host, for a family that nobody has.
	_, _ = unix.Socket(unix.AF_MAX-1, unix.SOCK_STREAM, 0)
	b, err := os.ReadFile(asked)
	if err != nil || len(b) == 0 {
		t.Fatalf("the kernel asks for no module: %q, %v", b, err)
	}
	f.attack(t, "evil", false, "modules")
	if after, err := os.ReadFile(asked); err != nil || len(after) != len(b) {
		t.Errorf("the VM had the kernel look for modules: %.2000s, %v", after[len(b):], err)
	}
}

// The init, and processes of others and of its own.
func TestSystemHostileProcesses(t *testing.T) {
	f := newFortress(t)
	f.attacks(t, "the init", "setuid")
	f.scripts(t, map[string]string{
		"processes of others": `for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline | grep -q 'sleep [9]8765' && echo BREACH
			done 2>/dev/null`,
		"core dumps": "ulimit -c unlimited && echo BREACH; sh -c 'kill -SEGV $$'; ls core* 2>/dev/null && echo BREACH; true",
		"orphans":    "i=0; while [ $i -lt 40 ]; do sh -c 'sleep 1 & exit' ; i=$((i+1)); done; echo done",
		"huge argument": `x=$(head -c 130000 /dev/zero | tr '\0' x); for i in 1 2 3; do env A=$x B=$x C=$x true; done
			env A=$x$x true && echo BREACH; true`,
	})
	f.holds(t)
}

// Files of the host and of the kernel.
func TestKernelHostileFiles(t *testing.T) {
	f := newFortress(t)
	f.attacks(t, "writable kernel", "devices", "mount flags", "file attributes")
	t.Run("files of the host", func(t *testing.T) {
		f.attack(t, "evil", false, "files of the host", append([]string{f.mark}, f.paths...)...)
	})
	f.scripts(t, map[string]string{"kernel log": "dmesg && echo BREACH; cat /dev/kmsg && echo BREACH; true"})
	f.holds(t)
}

// Sockets of the host, and the VM's own network.
func TestSystemHostileNetwork(t *testing.T) {
	f := newFortress(t)
	t.Run("sockets of the host", func(t *testing.T) { f.attack(t, "evil", false, "sockets", f.listen(t)...) })
	f.scripts(t, map[string]string{
		"network": `for l in $(ls /sys/class/net); do
			tc qdisc del dev $l root && echo BREACH $l; tc qdisc replace dev $l root pfifo && echo BREACH $l
			ip link set $l down && echo BREACH down; ip link set $l mtu 1000 && echo BREACH mtu
			ip addr add 10.9.9.9/24 dev $l && echo BREACH addr; ip route add 10.8.0.0/16 dev $l && echo BREACH route
			done; ip link add d0 type dummy && echo BREACH link
			nft add table inet x && echo BREACH nft; ip netns add x && echo BREACH netns; true`,
	})
	f.holds(t)
}

// Traps that lie where the agent works when it builds the VM anew, and when it deletes it.
func TestSystemHostileTraps(t *testing.T) {
	f := newFortress(t)
	t.Run("restart", f.restart)
	t.Run("deletion", f.deletion)
	f.holds(t)
}

// listen opens on the host what a VM must not reach: a port, and sockets by path
// and by abstract name.
func (f *fortress) listen(t *testing.T) []string {
	all := []string{"unix:" + filepath.Join(f.RunDir, "api.sock")}
	for _, at := range []string{"tcp:127.0.0.1:0", "unix:@" + f.mark, "unix:/tmp/" + f.mark} {
		kind, where, _ := strings.Cut(at, ":")
		l, err := net.Listen(kind, where)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		all = append(all, kind+":"+l.Addr().String())
	}
	return all
}

// restart kills the init of the VM on the host, with links to the host where a
// careless agent would write when it builds the VM anew.
func (f *fortress) restart(t *testing.T) {
	f.script(t, fmt.Sprintf(`cd /data; for n in data logs init.sock journal image .. secret; do ln -s %s $n; done; rm -rf /tmp/* /run/*; ln -s %[1]s /run/lock; true`, f.victim))
	before := f.VM("evil").InitPID
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	systemtest.Until(t, "the VM has a new init", func() bool {
		now := f.VM("evil").InitPID
		return now != 0 && now != before
	})
	systemtest.Until(t, "the VM comes back", func() bool {
		out, _, _ := f.Run("cloudlet", "run", "--vm", "evil", "--", "echo", "back")
		return out == "back\n"
	})
	f.well(t)
}

// deletion removes a VM whose /data is full of traps.
func (f *fortress) deletion(t *testing.T) {
	f.attack(t, "evil", false, "deep", f.victim, filepath.Dir(f.StateDir), "/", "/proc/self/root")
	f.script(t, fmt.Sprintf(`cd /data; mkdir t; ln -s %s t/v; ln -s / t/r; mkfifo t/p; chmod 0 t; chmod 0 .; true`, f.victim))
	f.Out("vm", "delete", "evil", "--grace", "0s")
	if _, _, code := f.Run("vm", "show", "evil"); code != 3 {
		t.Errorf("the VM is still there: %d", code)
	}
	f.well(t)
}

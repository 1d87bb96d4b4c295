package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloudflash/agent/guest"
	"cloudflash/cgroup"
	"cloudflash/cgroup/cgrouptest"

	"golang.org/x/sys/unix"
)

const uidBase = 0x70000000

// vm is a guest on the real kernel.
type vm struct {
	*guest.Guest
	t     testing.TB
	cfg   guest.Config
	exits chan guest.Exit
	ended chan struct{} // closed when Run has ended
	n     int
}

func newVM(t testing.TB, change func(*guest.Config)) *vm {
	t.Helper()
	slice := cgrouptest.Kernel(t).Slice("test")
	if err := errors.Join(slice.Create(), slice.Chown(uidBase, uidBase)); err != nil {
		t.Fatal(err)
	}
	limit := int64(64 + 16)
	if err := slice.Apply(cgroup.Limits{PIDsMax: &limit}); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	if err := os.Chown(data, uidBase, uidBase); err != nil {
		t.Fatal(err)
	}
	upper, err := os.MkdirTemp("/var/lib", "upper") // on a disk, where an overlay can keep its marks
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(upper) })
	if err := os.Chown(upper, uidBase, uidBase); err != nil {
		t.Fatal(err)
	}
	cfg := guest.Config{ID: "test", Hostname: "web", UIDBase: uidBase, Slice: slice, RunDir: t.TempDir(), DataDir: data, UpperDir: upper, Resolv: "nameserver 192.0.2.1\n",
		Image: "host", InitPath: program(t, "cloudflash-init"), Binaries: []string{program(t, "burn")}}
	if change != nil {
		change(&cfg)
	}
	g, err := guest.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := &vm{Guest: g, t: t, cfg: cfg, exits: make(chan guest.Exit, 1000), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(v.ended)
		_ = g.Run(ctx, func(e guest.Exit) { v.exits <- e })
	}()
	t.Cleanup(func() {
		cancel()
		<-v.ended
		_ = g.Close()
	})
	return v
}

func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not on PATH: scripts/test builds it", name)
	}
	return path
}

// run runs a shell script in the VM and returns its output and end.
func (v *vm) run(script string) (string, guest.Exit) {
	v.t.Helper()
	out, _ := v.start(script)
	select {
	case e := <-v.exits:
		b, err := os.ReadFile(out)
		if err != nil {
			v.t.Fatal(err)
		}
		if err := v.Acknowledge(v.t.Context(), e.ID); err != nil {
			v.t.Fatal(err)
		}
		return string(b), e
	case <-time.After(time.Minute):
		v.t.Fatal("no exit within a minute")
	}
	return "", guest.Exit{}
}

func (v *vm) start(script string) (string, guest.Running) {
	v.t.Helper()
	out, r, err := v.tryStart("/bin/sh", "-c", script)
	if err != nil {
		v.t.Fatal(err)
	}
	return out, r
}

func (v *vm) tryStart(argv ...string) (string, guest.Running, error) {
	v.t.Helper()
	v.n++
	id := "p" + strconv.Itoa(v.n)
	scope := v.cfg.Slice.Scope("cl-" + id)
	if err := errors.Join(scope.Create(), scope.Chown(uidBase, uidBase)); err != nil {
		v.t.Fatal(err)
	}
	path := filepath.Join(v.t.TempDir(), "out")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Chown(uidBase, uidBase); err != nil {
		v.t.Fatal(err)
	}
	r, err := v.Start(v.t.Context(), guest.Process{ID: id, Argv: argv, Scope: scope, Stdout: f, Stderr: f,
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/cloudflash/bin", "ONLY=this"}})
	return path, r, err
}

func TestKernelCloudletSeesOnlyItsVM(t *testing.T) {
	t.Setenv("HOST_SECRET", "leaked")
	leak, err := os.Open("/etc/passwd") // a descriptor of the agent's
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, leak.Fd(), syscall.F_SETFD, 0); errno != 0 {
		t.Fatal(errno)
	}
	v := newVM(t, nil)
	checks := map[string]struct{ script, want string }{
		"host name":               {"cat /proc/sys/kernel/hostname", "web"},
		"user":                    {"echo $(id -u) $(id -g)", "0 0"},
		"no other groups":         {"id -G", "0"},
		"pid 1 is the init":       {"cat /proc/1/comm", "cloudflash-init"},
		"no host processes":       {"ls -d /proc/[0-9]* | wc -l | tr -d ' '", "4"}, // init, sh, ls, wc... within one pipeline
		"loopback only":           {"ls /sys/class/net | tr '\\n' ' '", "lo "},
		"loopback is up":          {"cat /sys/class/net/lo/operstate", "unknown"},
		"working directory":       {"pwd", "/data"},
		"/data is writable":       {"echo x >/data/f && stat -c %u /data/f", "0"},
		"/usr is not":             {"touch /usr/x 2>&1 | grep -c Read-only", "1"},
		"/ is not":                {"touch /x 2>&1 | grep -c Read-only", "1"},
		"/etc is private":         {"grep -c . /etc/passwd; echo x >>/etc/passwd && echo ok", "3\nok"},
		"/tmp is writable":        {"touch /tmp/x && echo ok", "ok"},
		"/dev is minimal":         {"ls /dev | tr '\\n' ' '", "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero "},
		"/dev/null works":         {"echo x >/dev/null && echo ok", "ok"},
		"no host directories":     {"ls -d /root/* /home/* /boot /var/lib/* 2>/dev/null | wc -l", "0"},
		"environment":             {"env | sort | grep -v -e ^_= -e ^PWD= -e ^SHLVL= -e ^OLDPWD=", "ONLY=this\nPATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/cloudflash/bin"},
		"descriptors":             {"ls /proc/$$/fd | tr '\\n' ' '", "0 1 2 "},
		"init's are out of reach": {"readlink /proc/1/fd/3; cat /proc/1/fd/4 2>&1 | grep -c 'ermission denied'; cat /proc/1/environ 2>&1 | grep -c 'ermission denied'", "1\n1"},
		"capabilities": {"grep -e CapEff -e CapBnd -e CapInh -e CapAmb /proc/self/status | awk '{print $2}' | sort -u",
			"0000000000000000\n00000000000405fb"},
		"no new privileges": {"grep NoNewPrivs /proc/self/status | awk '{print $2}'", "1"},
		"seccomp":           {"grep ^Seccomp: /proc/self/status | awk '{print $2}'", "2"},
		"cgroup": {"cd /sys/fs/cgroup; cat /proc/self/cgroup memory.max; (echo 1 >memory.max) 2>&1 | grep -c Read-only; ls -d init",
			"0::/\nmax\n1\ninit"},
		"OOM score":     {"cat /proc/self/oom_score_adj; echo -1 >/proc/self/oom_score_adj 2>/dev/null; cat /proc/self/oom_score_adj", "0\n0"},
		"no core dumps": {"ulimit -c", "0"},
		"limits": {"tail -n +2 /proc/self/limits | cut -c27-67 | awk '{print $1\"/\"$2}' | sed s/unlimited/-/g | xargs",
			"-/- -/- -/- 8388608/- 1/1 -/- -/- 1024/524288 8388608/8388608 -/- -/- 65536/65536 819200/819200 0/0 0/0 -/-"},
		"no namespaces":     {"unshare -U true 2>&1 | grep -c -e 'not permitted' -e 'No space'", "1"},
		"no mounts":         {"mount -t tmpfs x /tmp 2>&1 | grep -c -e 'ermission denied' -e 'not permitted'", "1"},
		"no device nodes":   {"mknod /tmp/sda b 8 0 2>&1 | grep -c 'not permitted'", "1"},
		"no sysctl":         {"(echo 1 >/proc/sys/kernel/panic) 2>/dev/null || echo refused", "refused"},
		"no sysrq":          {"(echo h >/proc/sysrq-trigger) 2>/dev/null || echo refused", "refused"},
		"/sys is read-only": {"touch /sys/x 2>&1 | grep -c Read-only", "1"},
		"pid 1 cannot be killed": {"kill -9 1; kill -TERM 1; kill -SEGV 1; kill -QUIT 1; kill -ABRT 1; kill -URG 1; sleep 0.1; cat /proc/1/comm",
			"cloudflash-init"},
		"signals are default": {"grep -e SigBlk -e SigIgn /proc/self/status | awk '{print $2}' | sort -u", "0000000000000000"},
		"binaries on PATH":    {"burn --cpus 0 --seconds 0.1 | cut -c1-10", `{"seconds"`},
		"stdout opens again":  {"echo again >>/dev/stdout", "again"},
		"root is alone":       {"ls -A /proc/1/root 2>&1 | grep -c 'ermission denied'", "1"},
		"no raw sockets":      {"python3 -c 'from socket import *; socket(AF_INET, SOCK_RAW, 1)' 2>&1 | grep -c 'not permitted'", "1"},
		"ping": {"(ping -c1 -W30 127.0.0.1 && setpriv --reuid 1000 --clear-groups ping -c1 -W30 ::1) >/dev/null && echo ok",
			"ok"},
		"no kernel log": {"dmesg 2>&1 | grep -c 'not permitted'", "1"},
		"ids end at 65535": {"touch /data/g; chown 65536 /data/g 2>&1 | grep -c 'nvalid argument'; chown 1000 /data/g && stat -c %u /data/g",
			"1\n1000"},
	}
	// One process runs them all, each in a shell of its own.
	const next = "-- next --"
	var names []string
	script := "echo x >/data/f || exit"
	for name, c := range checks {
		names = append(names, name)
		script += "\n(" + c.script + "\n)\necho '" + next + "'"
	}
	out, e := v.run(script)
	outs := strings.Split(out, next+"\n")
	if len(outs) != len(names)+1 || e.Code != 0 {
		t.Fatalf("%+v: %d of %d checks were made:\n%s", e, len(outs)-1, len(names), out)
	}
	for i, name := range names {
		out, want := strings.TrimSuffix(outs[i], "\n"), strings.TrimSuffix(checks[name].want, "\n")
		if name == "no host processes" {
			if n, _ := strconv.Atoi(strings.TrimSpace(out)); n < 2 || n > 6 {
				t.Errorf("%d processes are visible", n)
			}
		} else if out != want {
			t.Errorf("%s: %q, want %q", name, out, want)
		}
	}
}

func TestKernelIDsAreTheVMsOwn(t *testing.T) {
	v := newVM(t, nil)
	_, r := v.start("sleep 60")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.PID))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", uidBase, uidBase, uidBase, uidBase)
	if !bytes.Contains(b, []byte(want)) {
		t.Errorf("no %q in\n%s", want, b)
	}
	procs, err := v.Processes(t.Context())
	if err != nil || len(procs) != 1 || procs[0].PID != r.PID {
		t.Errorf("%+v %v, want pid %d", procs, err, r.PID)
	}
}

func TestSystemExitsSurviveTheAgent(t *testing.T) {
	v := newVM(t, nil)
	if _, e := v.run("exit 7"); e.Code != 7 || e.Signal != 0 {
		t.Errorf("%+v", e)
	}
	if _, e := v.run("kill -SEGV $$"); e.Signal != syscall.SIGSEGV {
		t.Errorf("%+v", e)
	}
	_, r := v.start("sleep 0.3; exit 9")
	_ = v.Close() // the agent dies
	past, err := guest.ReadJournal(v.cfg.RunDir)
	for end := time.Now().Add(30 * time.Second); len(past) == 0 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		past, err = guest.ReadJournal(v.cfg.RunDir)
	}
	if err != nil || len(past) != 1 || past[0].Code != 9 || past[0].FinishedAt.Sub(past[0].StartedAt) < 200*time.Millisecond {
		t.Errorf("journal %+v %v", past, err)
	}
	g, err := guest.Connect(t.Context(), v.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if g.PID() != v.PID() {
		t.Errorf("init %d, was %d", g.PID(), v.PID())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := g.Run(ctx, func(e guest.Exit) {
		if e.ID != r.ID || e.Code != 9 {
			t.Errorf("%+v", e)
		}
		if err := g.Acknowledge(ctx, e.ID); err != nil {
			t.Error(err)
		}
		cancel()
	}); err != nil {
		t.Error(err)
	}
	if past, err := guest.ReadJournal(v.cfg.RunDir); len(past) != 0 || err != nil {
		t.Errorf("after acknowledging: %v %v", past, err)
	}
}

// An init that outlives its connection for longer than anybody waits for it is taken in all the same.
func TestSystemInitThatDiesLateIsReaped(t *testing.T) {
	v := newVM(t, nil)
	pid := v.PID()
	_ = v.Close()
	select {
	case <-v.ended:
	case <-time.After(time.Minute):
		t.Fatal("Run goes on without a connection")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("the init was to live on: %v", err)
	}
	for end := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the init is a zombie")
		}
	}
}

func TestSystemStartErrors(t *testing.T) {
	v := newVM(t, nil)
	var se *guest.StartError
	if _, _, err := v.tryStart("/no/such"); !errors.As(err, &se) || se.Errno != syscall.ENOENT {
		t.Errorf("%v", err)
	}
	if _, _, err := v.tryStart("/etc/passwd"); !errors.As(err, &se) || se.Errno != syscall.EACCES {
		t.Errorf("%v", err)
	}
	if procs, err := v.Processes(t.Context()); len(procs) != 0 || err != nil {
		t.Errorf("left: %v %v", procs, err)
	}
	if _, e := v.run("true"); e.Code != 0 {
		t.Errorf("afterwards: %+v", e)
	}
}

func TestKernelInitSurvivesAForkBomb(t *testing.T) {
	v := newVM(t, nil)
	_, bomb := v.start("f() { while :; do sleep 60 & done; }; f & f & f")
	deadline := time.Now().Add(time.Minute)
	for {
		if pids, err := v.cfg.Slice.Scope("cl-" + bomb.ID).PIDs(); err == nil && len(pids) > 60 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the bomb does not go off")
		}
		time.Sleep(50 * time.Millisecond)
	}
	for range 20 {
		if err := v.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.cfg.Slice.Scope("cl-" + bomb.ID).Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := <-v.exits; e.ID != bomb.ID {
		t.Errorf("%+v", e)
	}
	if out, _ := v.run("echo alive"); out != "alive\n" {
		t.Errorf("%q", out)
	}
}

// An init that needed another thread when its VM has used up all process ids would die:
// it has all that it will ever need from the start, however busy the machine was then.
func TestKernelInitMakesNoThreadLater(t *testing.T) {
	for range 6 {
		busy := exec.Command("sh", "-c", "while :; do :; done")
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = busy.Process.Kill()
			_ = busy.Wait()
		})
	}
	for range 3 {
		v := newVM(t, nil)
		threads := func() int {
			all, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", v.PID()))
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		before := threads()
		for range 3 {
			v.run("true & true & true & wait")
		}
		if after := threads(); after != before {
			t.Errorf("it had %d threads at its start, and %d later", before, after)
		}
		t.Logf("%d threads", before)
	}
}

func TestKernelIdleInitIsSmallAndStill(t *testing.T) {
	newVM(t, nil) // what two inits share, such as their program, is nobody's private memory
	v := newVM(t, nil)
	for range 5 {
		v.run("true")
	}
	// The runtime's own watchdog goes to sleep in its time, and looks up once a minute.
	const idle = 3 * time.Second
	for deadline := time.Now().Add(time.Minute); ; {
		before := switches(t, v.PID())
		time.Sleep(idle)
		n := switches(t, v.PID()) - before
		if n <= 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d context switches in %v long after its work", n, idle)
			break
		}
	}
	private := private(t, v.PID())
	t.Logf("private memory of the init: %d KiB", private>>10)
	if private > 1<<20 {
		t.Errorf("private memory %d KiB, want at most 1024", private>>10)
	}
}

func switches(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "ctxt_switches") {
				k, err := strconv.Atoi(strings.Fields(line)[1])
				if err != nil {
					t.Fatal(err)
				}
				n += k
			}
		}
	}
	return n
}

func private(t *testing.T, pid int) (bytes int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "Private_") {
			kb, err := strconv.Atoi(strings.Fields(line)[1])
			if err != nil {
				t.Fatal(err)
			}
			bytes += kb << 10
		}
	}
	return bytes
}

func TestKernelImageIsTheRoot(t *testing.T) {
	cgrouptest.Kernel(t)                            // skip before looking for programs
	image, err := os.MkdirTemp("/var/lib", "image") // on a disk: tmpfs has idmapped mounts since Linux 6.3 only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(image) })
	for _, d := range []string{"bin", "etc", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(image, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(image, 0o755); err != nil {
		t.Fatal(err)
	}
	// burn is static: it is all that this image has.
	b, err := os.ReadFile(program(t, "burn"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(image, "bin", "only"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	v := newVM(t, func(c *guest.Config) { c.Image = image })
	out, _, err := v.tryStart("/bin/only", "--cpus", "0", "--seconds", "0.1")
	if err != nil {
		t.Fatal(err)
	}
	if e := <-v.exits; e.Code != 0 {
		t.Errorf("%+v", e)
	}
	if b, err := os.ReadFile(out); err != nil || !strings.HasPrefix(string(b), `{"seconds"`) {
		t.Errorf("%q %v", b, err)
	}
	if _, _, err := v.tryStart("/bin/sh", "-c", "true"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the host's shell in an image: %v", err)
	}
}

// What one VM does to its /dev/null is nobody else's matter.
func TestKernelUsualDevicesAreTheVMsOwn(t *testing.T) {
	v := newVM(t, nil)
	host, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if err := unix.Flock(int(host.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before, err := host.Stat()
	if err != nil {
		t.Fatal(err)
	}

	const script = `flock -n /dev/null echo locked
touch -d 2001-01-01 /dev/null
cd /dev; for n in null zero full random urandom tty; do stat -c '/dev/%n %t:%T %u %a' $n; done
head -c 3 /dev/zero | od -An -tx1
head -c 3 /dev/urandom | wc -c
(echo x >/dev/full) 2>/dev/null || echo full
setpriv --reuid 1000 --clear-groups sh -c 'echo x >/dev/null && echo others too'`
	out, e := v.run(script)
	want := `locked
/dev/null 1:3 0 666
/dev/zero 1:5 0 666
/dev/full 1:7 0 666
/dev/random 1:8 0 666
/dev/urandom 1:9 0 666
/dev/tty 5:0 0 666
 00 00 00
3
full
others too
`
	if out != want {
		t.Errorf("%+v\n%s", e, out)
	}
	after, err := host.Stat()
	if err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the host's /dev/null is of %v, was of %v, %v", after.ModTime(), before.ModTime(), err)
	}
}

// What GPUs need: nodes of the VM's own in /dev, and in an image the files that go
// with them, whatever the image has in their place.
func TestKernelDevicesAndFiles(t *testing.T) {
	cgrouptest.Kernel(t)
	devices := []guest.Device{{Path: "/dev/dri/renderD128", Major: 1, Minor: 5}, {Path: "/dev/gpu0", Major: 1, Minor: 3}} // zero and null
	const script = `stat -c '%n %t:%T %u %a' /dev/dri/renderD128 /dev/gpu0; head -c 3 /dev/dri/renderD128 | od -An -tx1; echo x >/dev/gpu0; cat /etc/hosts /etc/resolv.conf`
	v := newVM(t, func(c *guest.Config) { c.Devices = devices })
	out, e := v.run(script)
	want := "/dev/dri/renderD128 1:5 0 600\n/dev/gpu0 1:3 0 600\n 00 00 00\n127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\tweb\nnameserver 192.0.2.1\n"
	if out != want || e.Code != 0 {
		t.Errorf("%+v\n%s", e, out)
	}
	image, err := os.MkdirTemp("/var/lib", "image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(image) })
	burn := program(t, "burn")
	b, err := os.ReadFile(burn)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(image, 0o755), os.Mkdir(filepath.Join(image, "bin"), 0o755), os.WriteFile(filepath.Join(image, "bin/only"), b, 0o755),
		os.Symlink("/etc", filepath.Join(image, "lib"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	driver := "/var/lib/driver-library"
	if err := os.WriteFile(driver, b, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(driver) })
	v = newVM(t, func(c *guest.Config) { c.Image, c.Devices, c.Files = image, devices, []string{driver} })
	if _, _, err := v.tryStart(driver, "--cpus", "0", "--seconds", "0.1"); err != nil {
		t.Error(err)
	} else if e := <-v.exits; e.Code != 0 {
		t.Errorf("%+v", e)
	}
}

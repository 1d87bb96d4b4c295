package systemtest

import (
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// World is a network namespace that plays the world beyond the host.
type World struct {
	Addr string // out there
	Host string // the host's address, seen from there
	t    testing.TB
}

// NewWorld makes a world that the host's default route leads to, until the test ends.
func NewWorld(t testing.TB) *World {
	t.Helper()
	const script = `ip netns add world && ip link add out0 type veth peer name out1 netns world &&
ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up &&
ip -n world addr add 192.0.2.2/24 dev out1 && ip -n world link set out1 up && ip -n world link set lo up &&
ip -n world route add default via 192.0.2.1 && ip route replace default via 192.0.2.2 dev out0`
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("sh", "-c", "ip link del out0; ip netns del world").Run() })
	return &World{Addr: "192.0.2.2", Host: "192.0.2.1", t: t}
}

// Command is a program out there that has not been started.
func (w *World) Command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", "world"}, args...)...)
}

// Start runs a program out there, with what it starts, until the test ends.
func (w *World) Start(args ...string) {
	w.t.Helper()
	cmd := w.Command(args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
}

// Answers makes a port out there send a text to whoever connects.
func (w *World) Answers(port int, text string) {
	w.t.Helper()
	w.Start("socat", fmt.Sprintf("TCP-LISTEN:%d,fork,reuseaddr", port), "SYSTEM:echo "+text)
	Within(w.t, 20*time.Second, fmt.Sprintf("port %d outside answers", port), func() bool {
		c, err := net.Dial("tcp", net.JoinHostPort(w.Addr, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// Sent is how many bytes have left the host for the world.
func (w *World) Sent() float64 {
	w.t.Helper()
	return number(w.t, read(w.t, "/sys/class/net/out0/statistics/tx_bytes"))
}

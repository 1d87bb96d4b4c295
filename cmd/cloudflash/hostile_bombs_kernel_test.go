package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What may be exhausted is tried one after the other. Each may end its cloudlet, even its VM's use; the agent, the host
// and the neighbour go on, and the VM can be made anew.
func TestKernelHostileExhausts(t *testing.T) {
	f := newFortress(t)
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", f.PID()))
	if err != nil || strings.TrimSpace(string(score)) != "-999" {
		t.Errorf("the OOM killer may take the agent: %q, %v", score, err)
	}
	for _, bomb := range []struct{ name, arg string }{
		{"inotify", ""}, {"terminals", ""}, {"descriptors", ""}, {"message queues", ""}, {"shared memory", ""},
	} {
		t.Run(bomb.name, func(t *testing.T) { f.bomb(t, bomb.name, bomb.arg) })
	}
	f.holds(t)
}

// A tmpfs is filled with files that have nothing in them.
func TestKernelHostileFillsMemory(t *testing.T) { fillMemory(t, "/dev/shm") }

func TestSystemHostileFillsMemory(t *testing.T) { fillMemory(t, "/tmp", "/run", "/dev") }

func fillMemory(t *testing.T, dirs ...string) {
	f := newFortress(t)
	for _, dir := range dirs {
		t.Run(dir, func(t *testing.T) { f.bomb(t, "files in memory", dir) })
	}
	f.holds(t)
}

// Bombs that a shell can make.
func TestKernelHostileBombs(t *testing.T) {
	bombs(t, map[string]string{
		"fork bomb": "f() { while :; do f & done; }; f 2>/dev/null & sleep 2",
		"memory":    "exec burn --cpus 0 --memory 1GiB --seconds 20",
	})
}

func TestSystemHostileBombs(t *testing.T) {
	bombs(t, map[string]string{
		"flood":         "timeout 2 yes; true",
		"endless log":   "truncate -s 1T /proc/self/fd/1; echo end",
		"pipe of cores": "i=0; while [ $i -lt 20 ]; do sh -c 'kill -ABRT $$' & i=$((i+1)); done; wait; true",
		"big file":      "head -c 200M /dev/zero >/tmp/big; true",
	})
}

func bombs(t *testing.T, scripts map[string]string) {
	f := newFortress(t)
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			f.Run("cloudlet", "submit", "--vm", "evil", "--name", "bomb", "--deadline", "30s", "--", "sh", "-c", script)
			f.Run("cloudlet", "wait", "bomb")
			c := f.Cloudlet("bomb")
			f.Run("cloudlet", "logs", "bomb", "--tail", "3")
			f.measure(t, string(c.State)+" "+c.Reason)
		})
	}
	f.holds(t)
}

// bomb is an attack that may be killed half-way.
func (f *fortress) bomb(t *testing.T, name, arg string) {
	t.Helper()
	out := f.attack(t, "evil", true, name, arg)
	f.measure(t, strings.ReplaceAll(out, "\n", "; "))
}

// measure looks at host and neighbour, empties the VM if it is full, and has it
// do something.
func (f *fortress) measure(t *testing.T, said string) {
	t.Helper()
	evil := f.VM("evil")
	n, err := strconv.Atoi(f.ControlFile(evil, "memory.current"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.300s; memory of the VM %d MiB, processes %s", said, n>>20, f.ControlFile(evil, "pids.current"))
	if n > 128<<20+1<<20 {
		t.Errorf("memory %d", n)
	}
	f.well(t)
	if strings.Contains(said, "in system") {
		t.Error("the whole system has none left")
	}
	if fd, err := unix.InotifyInit1(0); err != nil {
		t.Errorf("the host has no inotify left: %v", err)
	} else {
		_ = unix.Close(fd)
	}
	began := time.Now()
	if out, _, _ := f.Run("cloudlet", "run", "--vm", "evil", "--", "echo", "alive"); out == "alive\n" {
		return
	}
	t.Logf("the VM does nothing any more, %v; it is made anew", time.Since(began).Round(time.Millisecond))
	f.Out("vm", "delete", "evil", "--grace", "0s")
	f.Out("vm", "create", "evil", "--cpus", "2", "--memory", evilMemory, "--pids", "300", "--storage", "1GiB")
	f.arm("evil")
}

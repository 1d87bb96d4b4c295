package main

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"cloudflash/agent"
	"golang.org/x/sys/unix"
)

// bombs go off one after the other. Each may end its cloudlet, even its VM's
// use; the agent, the host and the neighbour go on, and the VM can be made
// anew.
func (f *fortress) bombs(t *testing.T) {
	for _, bomb := range []struct{ name, arg string }{
		{"inotify", ""}, {"terminals", ""}, {"descriptors", ""}, {"message queues", ""}, {"shared memory", ""}, {"files in memory", "/tmp"},
		{"files in memory", "/run"}, {"files in memory", "/dev/shm"}, {"files in memory", "/dev"},
	} {
		t.Run(bomb.name+bomb.arg, func(t *testing.T) {
			out := f.attack(t, "evil", true, bomb.name, bomb.arg)
			f.measure(t, strings.ReplaceAll(out, "\n", "; "))
		})
	}
	for name, script := range map[string]string{
		"fork bomb":     "f() { while :; do f & done; }; f 2>/dev/null & sleep 4",
		"memory":        "exec burn --cpus 0 --memory 1GiB --seconds 20",
		"flood":         "timeout 5 yes; true",
		"endless log":   "truncate -s 1T /proc/self/fd/1; echo end",
		"pipe of cores": "i=0; while [ $i -lt 20 ]; do sh -c 'kill -ABRT $$' & i=$((i+1)); done; wait; true",
		"big file":      "head -c 400M /dev/zero >/tmp/big; true",
	} {
		t.Run(name, func(t *testing.T) {
			f.run("cloudlet", "submit", "--vm", "evil", "--name", "bomb", "--deadline", "30s", "--", "sh", "-c", script)
			f.run("cloudlet", "wait", "bomb")
			c := show[agent.Cloudlet](f.shell, "cloudlet", "bomb")
			f.run("cloudlet", "logs", "bomb", "--tail", "3")
			f.measure(t, string(c.State)+" "+c.Reason)
		})
	}
}

// measure looks at host and neighbour, empties the VM if it is full, and has it
// do something.
func (f *fortress) measure(t *testing.T, said string) {
	t.Helper()
	n, err := strconv.Atoi(f.cgroupFile("evil", "memory.current"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.300s; memory of the VM %d MiB, processes %s", said, n>>20, f.cgroupFile("evil", "pids.current"))
	if n > 256<<20+1<<20 {
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
	if out, _, _ := f.run("cloudlet", "run", "--vm", "evil", "--", "echo", "alive"); out == "alive\n" {
		return
	}
	t.Logf("the VM does nothing any more, %v; it is made anew", time.Since(began).Round(time.Millisecond))
	f.out("vm", "delete", "evil", "--grace", "0s")
	f.out("vm", "create", "evil", "--cpus", "2", "--memory", "256MiB", "--pids", "300", "--storage", "1GiB")
	f.arm("evil")
}

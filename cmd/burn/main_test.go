package main

import (
	"syscall"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	l, err := parse([]string{"--cpus", "0.5", "--memory", "64MiB", "--write", "5MiB/s", "--seconds", "3"})
	if err != nil || l.cpus != 0.5 || l.memory != 64<<20 || l.write != 5<<20 || l.seconds != 3 {
		t.Errorf("%+v, %v", l, err)
	}
	for _, bad := range [][]string{{"--cpus", "-1"}, {"--memory", "x"}, {"--seconds", "-1"}, {"--seconds", "NaN"}, {"extra"}, {"--cpus", "1e9"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestBurnUsesWhatItSays(t *testing.T) {
	stop := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() { close(stop) })
	before := cpuTime(t)
	written, err := load{cpus: 0.5, memory: 8 << 20, write: 1 << 20, dir: t.TempDir()}.run(stop)
	if err != nil || written == 0 {
		t.Errorf("wrote %d, %v", written, err)
	}
	if used := cpuTime(t) - before; used < 50*time.Millisecond {
		t.Errorf("used %v of CPU for half a core over 300 ms", used)
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

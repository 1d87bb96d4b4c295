package host

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// shared are the counters of the whole machine that one VM could use up for all others,
// and what they are raised to. What they count is charged to the slice that holds it, or
// limited for each VM by other means, so that the VM's own limits hold it.
//
// Of the others below /proc/sys: fs/inotify, fs/mqueue, user/max_*, kernel/keys and
// kernel/{sem,shm*,msg*} count by user or namespace, which each VM has of its own;
// fs/pipe-user-pages-* and fs/epoll/max_user_watches by user id, which no two VMs share.
// No VM may call io_setup, which counts in fs/aio-max-nr: what is submitted there is charged
// to nobody (struct aio_kiocb). Not covered are net/netfilter/nf_conntrack_max,
// net/ipv{4,6}/neigh/default/gc_thresh3 and net/ipv4/{tcp,udp}_mem.
var shared = []struct {
	file string
	want int64
}{
	{"fs/file-max", math.MaxInt64},  // memory; systemd has it at boot
	{"kernel/pid_max", 1 << 22},     // pids.max; PID_MAX_LIMIT of linux/threads.h
	{"kernel/threads-max", 1 << 22}, // pids.max and memory
	{"kernel/pty/max", 1 << 20},     // 128 for each VM
}

// forVMs are the limits of a user that a user namespace takes over from who makes it
// (create_user_ns in kernel/user_namespace.c): all processes of a VM together have no more.
var forVMs = map[int]uint64{
	unix.RLIMIT_MEMLOCK:    8 << 20,
	unix.RLIMIT_MSGQUEUE:   819200,
	unix.RLIMIT_SIGPENDING: 65536,
}

// RaiseLimits makes room for what the agent and the VMs may open. None is lowered.
func RaiseLimits() error { return raise("/proc/sys") }

func raise(dir string) error {
	const files = 1 << 20 // those of every VM are kept open
	errs := []error{unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files})}
	for resource, want := range forVMs {
		var have unix.Rlimit
		errs = append(errs, unix.Getrlimit(resource, &have))
		have.Cur, have.Max = max(have.Cur, want), max(have.Max, want)
		errs = append(errs, unix.Setrlimit(resource, &have))
	}
	for _, s := range shared {
		path := dir + "/" + s.file
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // this kernel is built without
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		have, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("read %s: %w", path, err))
		case have < s.want:
			errs = append(errs, os.WriteFile(path, []byte(strconv.FormatInt(s.want, 10)), 0))
		}
	}
	return errors.Join(errs...)
}

// DieLast has the kernel's OOM killer take everybody else before this process; all but the
// inits of VMs, which it leaves alone.
func DieLast() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0) }

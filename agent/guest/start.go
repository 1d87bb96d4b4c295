package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"cloudflash/agent/guest/wire"
	"golang.org/x/sys/unix"
)

// idCount is how many user and group ids a VM has.
const idCount = 65536

// Start starts a new init and returns once its root file system is ready. On an
// error nothing of it is left.
func Start(ctx context.Context, cfg Config) (*Guest, error) {
	if err := Remove(cfg.RunDir); err != nil {
		return nil, err
	}
	cmd, err := launch(cfg)
	if err != nil {
		return nil, fmt.Errorf("start init: %w", err)
	}
	g, err := welcome(ctx, cfg, cmd)
	if err == nil {
		return g, nil
	}
	// No init without its root file system: end it, and wait until it has.
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	errs := []error{fmt.Errorf("start init: %w", err), lastWords(cfg), cfg.Slice.Scope(initScope).Kill(undo)}
	_, _ = cmd.Process.Wait()
	return nil, errors.Join(append(errs, cfg.Slice.Scope(initScope).Remove(undo), Remove(cfg.RunDir))...)
}

// lastWords is what an init that died has written to its log.
func lastWords(cfg Config) error {
	b, err := os.ReadFile(filepath.Join(cfg.RunDir, logName))
	if err != nil || len(b) == 0 {
		return nil
	}
	return errors.New(string(b[:min(len(b), 1000)]))
}

// launch makes the process. It is born in its cgroup and in its namespaces.
func launch(cfg Config) (*exec.Cmd, error) {
	scope := cfg.Slice.Scope(initScope)
	if err := scope.Create(); err != nil {
		return nil, err
	}
	if err := scope.Chown(int(cfg.UIDBase), int(cfg.UIDBase)); err != nil {
		return nil, err
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	open := func(f *os.File, err error) (*os.File, error) {
		if err == nil {
			files = append(files, f)
		}
		return f, err
	}
	socket, err := open(listen(filepath.Join(cfg.RunDir, socketName)))
	if err != nil {
		return nil, err
	}
	journal, err := open(os.OpenFile(filepath.Join(cfg.RunDir, journalName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600))
	if err != nil {
		return nil, err
	}
	log, err := open(os.OpenFile(filepath.Join(cfg.RunDir, logName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600))
	if err != nil {
		return nil, err
	}
	self, err := open(os.Open(cfg.InitPath)) // by descriptor: the VM's ids may not be able to reach the path
	if err != nil {
		return nil, err
	}
	dir, err := scope.OpenDir()
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	cmd := &exec.Cmd{
		Path: "/proc/self/fd/" + strconv.Itoa(wire.SelfFD),
		Args: []string{"cloudflash-init", cfg.Hostname},
		// Huge pages would make 4 MiB of private memory out of a heap of 200 KiB.
		Env: []string{"GOMAXPROCS=1", "GODEBUG=disablethp=1"},
		Dir: "/",
		// In the order of the constants in package wire.
		ExtraFiles:  []*os.File{socket, journal, self},
		Stderr:      log,
		SysProcAttr: attributes(cfg, dir),
	}
	return cmd, startAs(cfg.UIDBase, cmd)
}

// startAs starts a command as if that user had made its user namespace, with the
// capabilities of this process. What the kernel counts by user (inotify instances,
// pending signals, bytes in message queues...) it also counts for the maker of a
// namespace: were that root, one VM could use up what the host's root and all
// other VMs have (inc_ucount in kernel/ucount.c).
func startAs(uid uint32, cmd *exec.Cmd) error {
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its user
		err := becomeUser(uid)
		if err == nil {
			err = cmd.Start()
		}
		failed <- err
	}()
	return <-failed
}

// becomeUser changes the user of this thread alone, and keeps its capabilities.
func becomeUser(uid uint32) error {
	const noSetuidFixup = 1 << 2 // SECBIT_NO_SETUID_FIXUP of linux/securebits.h
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read securebits: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, uintptr(bits|noSetuidFixup), 0, 0, 0); err != nil {
		return fmt.Errorf("set securebits: %w", err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		return fmt.Errorf("become user %d: %w", uid, errno)
	}
	return nil
}

func attributes(cfg Config, cgroupFD int) *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(cfg.UIDBase), Size: idCount}}
	return &syscall.SysProcAttr{
		// No CLONE_NEWCGROUP: see the comment of cmd/cloudflash-init.
		Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		UidMappings:                ids,
		GidMappings:                ids,
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
		Setsid:                     true,
		UseCgroupFD:                true,
		CgroupFD:                   cgroupFD,
	}
}

// listen makes the socket that the init accepts on. It outlives this process.
func listen(path string) (*os.File, error) {
	short, dir, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, err
	}
	// A duplicate shares the file's flags with the listener that Go has made
	// non-blocking: the init wants to block in accept.
	if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// welcome protects the new init from the OOM killer and has it build its root
// file system.
func welcome(ctx context.Context, cfg Config, cmd *exec.Cmd) (*Guest, error) {
	if err := protect(cmd.Process.Pid); err != nil {
		return nil, err
	}
	if err := setLimits(cmd.Process.Pid); err != nil {
		return nil, err
	}
	g, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	g.pid, g.own = cmd.Process.Pid, cmd.Process
	m, err := openMounts(cfg, g.pid)
	if err == nil {
		err = g.setup(ctx, m)
		m.close()
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *Guest) setup(ctx context.Context, m *mounts) error {
	filter, err := seccompFilter()
	if err != nil {
		return fmt.Errorf("assemble seccomp filter: %w", err)
	}
	var binaries, devices []string
	for _, b := range g.cfg.Binaries {
		binaries = append(binaries, filepath.Base(b))
	}
	for _, d := range g.cfg.devices() {
		devices = append(devices, d.Path)
	}
	_, err = g.request(ctx, wire.Setup, func(w *wire.Writer) {
		w.String(g.cfg.Hostname)
		w.Uint32(m.parts)
		w.Strings(binaries)
		w.Strings(m.files)
		w.Strings(devices)
		w.String(g.cfg.Resolv)
		w.String(string(filter))
	}, m.fds...)
	return err
}

// limits are the resource limits that every process of a VM inherits, whatever the agent
// itself was started with. What has none here is the slice's to limit.
var limits = [...]unix.Rlimit{
	unix.RLIMIT_CORE:   {Cur: 1, Max: 1},                    // 1: no core dump, not even to a pipe of the host (do_coredump in fs/coredump.c)
	unix.RLIMIT_NOFILE: {Cur: 1024, Max: wire.MaxOpenFiles}, // see openFiles of the init
	unix.RLIMIT_STACK:  {Cur: 8 << 20, Max: unix.RLIM_INFINITY},
	// No priority over the host.
	unix.RLIMIT_RTPRIO: {},
	unix.RLIMIT_NICE:   {},
	// The kernel's own defaults for what stays in memory; it counts them for each VM.
	unix.RLIMIT_MEMLOCK:    {Cur: 8 << 20, Max: 8 << 20},
	unix.RLIMIT_MSGQUEUE:   {Cur: 819200, Max: 819200},
	unix.RLIMIT_SIGPENDING: {Cur: 65536, Max: 65536},

	unix.RLIMIT_AS:     none,
	unix.RLIMIT_CPU:    none,
	unix.RLIMIT_DATA:   none,
	unix.RLIMIT_FSIZE:  none,
	unix.RLIMIT_LOCKS:  none,
	unix.RLIMIT_NPROC:  none,
	unix.RLIMIT_RSS:    none,
	unix.RLIMIT_RTTIME: none,
}

var none = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}

func setLimits(pid int) error {
	for resource, limit := range limits {
		if err := unix.Prlimit(pid, resource, &limit, nil); err != nil {
			return fmt.Errorf("set rlimit %d of init: %w", resource, err)
		}
	}
	return nil
}

// protect takes an init out of the OOM killer's reach, and lets its children give
// that up for good. Written by somebody with CAP_SYS_RESOURCE, oom_score_adj sets
// both the value and the lowest value that the process and its children can
// choose; the older oom_adj sets the value alone (__set_oom_adj in fs/proc/base.c).
func protect(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid)
	if err := write(dir+"/oom_score_adj", "0"); err != nil {
		return err
	}
	return write(dir+"/oom_adj", "-17") // OOM_DISABLE
}

func write(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %s to %s: %w", value, path, err)
	}
	return nil
}

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// setuid makes a program of root's that runs as root, and runs it as another.
func setuid([]string) string {
	b, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		return err.Error()
	}
	for _, dir := range []string{"/data", "/tmp", "/dev/shm"} {
		path := dir + "/id"
		if err := os.WriteFile(path, b, 0o755); err != nil {
			return err.Error()
		}
		if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
			return err.Error()
		}
		cmd := exec.Command(path, "-u")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		out, err := cmd.Output()
		if err == nil && strings.TrimSpace(string(out)) == "0" {
			return path
		}
	}
	return ""
}

func mountFlags([]string) string {
	var t try
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if options := "," + f[5] + ","; !strings.Contains(options, ",nosuid,") && !strings.HasPrefix(f[4], "/dev/") && !strings.HasPrefix(f[4], "/proc/") {
			t.worked = append(t.worked, f[4]+" has setuid programs: "+f[5])
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || !bytes.Contains(status, []byte("NoNewPrivs:\t1")) {
		t.worked = append(t.worked, "privileges by exec")
	}
	return t.String()
}

// filesOfTheHost gets a mark that files of the host hold, then their paths.
func filesOfTheHost(args []string) string {
	mark, paths := []byte(args[0]), args[1:]
	var t try
	for _, path := range paths {
		for _, by := range []string{"", "/proc/1/root", "/proc/1/cwd", "/proc/self/root/../..", "/proc/self/cwd/../../../..", "/data/../../../.."} {
			_, err := os.Lstat(by + path)
			t.must(by+path, err)
		}
	}
	if err := os.MkdirAll("/data/jail", 0o755); err != nil {
		return err.Error()
	}
	if err := unix.Chroot("/data/jail"); err != nil { // the classic way out of a chroot
		return err.Error()
	}
	for range 64 {
		_ = unix.Chdir("..")
	}
	for _, path := range paths {
		_, err := os.Lstat(strings.TrimPrefix(path, "/"))
		t.must("through a chroot: "+path, err)
	}
	if err := unix.Chroot("."); err != nil {
		return err.Error()
	}
	for _, top := range []string{"/root", "/home", "/var", "/etc", "/tmp", "/run", "/mnt", "/srv", "/opt", "/dev/shm", "/data"} {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if info, err := d.Info(); err != nil || info.Size() > 1<<20 {
				return nil
			}
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, mark) {
				t.worked = append(t.worked, path)
			}
			return nil
		})
	}
	if b, err := os.ReadFile("/etc/shadow"); err == nil && bytes.Count(b, []byte("\n")) != 2 {
		t.worked = append(t.worked, "/etc/shadow")
	}
	return t.String()
}

// fileAttributes sets what would keep the host from deleting or counting a file.
func fileAttributes([]string) string {
	var t try
	f, err := os.Create("/data/attributes")
	if err != nil {
		return err.Error()
	}
	const setFlags, setXattr = 0x40086602, 0x401c5820 // FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
	for name, flag := range map[string]int32{"immutable": 0x10, "append only": 0x20} {
		t.call(name, unix.SYS_IOCTL, f.Fd(), setFlags, keep(&flag))
	}
	attr := [7]uint32{3: 4711} // fsx_projid
	t.call("project id", unix.SYS_IOCTL, f.Fd(), setXattr, keep(&attr))
	t.must("trusted xattr", unix.Setxattr("/data/attributes", "trusted.overlay.opaque", []byte("y"), 0))
	t.must("capabilities of the host", func() error {
		var caps [24]byte // struct vfs_cap_data, version 3, for root of the host
		caps[3] = 3
		if err := unix.Setxattr("/data/attributes", "security.capability", caps[:20], 0); err != nil {
			return err
		}
		return syscall.EPERM // taken: it counts for programs of this VM only, and no_new_privs ignores it
	}())
	t.must("rename /data", os.Rename("/data", "/tmp/data"))
	t.must("remove /data", unix.Rmdir("/data"))
	t.must("link a log", os.Link("/proc/self/fd/1", "/data/log"))
	for _, path := range []string{"/proc/self/root/opt/cloudflash/bin/burn", "/opt/cloudflash/bin/burn", "/usr/bin/env"} {
		_, err := os.OpenFile(path, os.O_WRONLY, 0)
		t.must("write "+path, err)
	}
	burn := exec.Command("burn", "--cpus", "0", "--seconds", "2")
	if err := burn.Start(); err != nil {
		return err.Error()
	}
	defer func() { _ = burn.Process.Kill(); _ = burn.Wait() }()
	_, err = os.OpenFile(fmt.Sprintf("/proc/%d/exe", burn.Process.Pid), os.O_WRONLY, 0)
	t.must("write burn through its process", err)
	return t.String()
}

// imageIsARoot checks that what was put into an image is there, and real.
func imageIsARoot([]string) string {
	var t try
	for path, kind := range map[string]int64{"/proc": unix.PROC_SUPER_MAGIC, "/sys": unix.SYSFS_MAGIC, "/dev": unix.TMPFS_MAGIC, "/tmp": unix.TMPFS_MAGIC, "/run": unix.TMPFS_MAGIC} {
		var fs unix.Statfs_t
		var st unix.Stat_t
		if err := unix.Statfs(path, &fs); err != nil || fs.Type != kind {
			t.worked = append(t.worked, fmt.Sprintf("%s is %#x, %v", path, fs.Type, err))
		}
		if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			t.worked = append(t.worked, path+" is no directory")
		}
		t.must("replace "+path, os.Rename(path, "/elsewhere"))
	}
	if err := os.WriteFile("/data/here", []byte("x"), 0o600); err != nil {
		t.worked = append(t.worked, err.Error())
	}
	if err := os.WriteFile("/dev/null", []byte("x"), 0); err != nil {
		t.worked = append(t.worked, err.Error())
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err != nil || string(b) != "0\n" {
		t.worked = append(t.worked, fmt.Sprintf("OOM score %q %v", b, err))
	}
	if err := exec.Command("/opt/cloudflash/bin/burn", "--cpus", "0", "--seconds", "0.1").Run(); err != nil {
		t.worked = append(t.worked, "burn: "+err.Error())
	}
	if b, err := os.ReadFile("/proc/kallsyms"); err == nil && len(b) > 0 {
		t.worked = append(t.worked, "kallsyms is not masked")
	}
	t.must("write /proc/sys", os.WriteFile("/proc/sys/kernel/panic", []byte("1"), 0))
	return t.String()
}

// exhaust takes one of something until it is refused. A breach is when it never
// is, or (bounded) not before the limit.
func exhaust(one func() error, limit int, bounded bool) string {
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 512 << 10, Max: 512 << 10})
	n := 0
	var err error
	for ; n < limit; n++ {
		if err = one(); err != nil {
			break
		}
	}
	fmt.Printf("%d, then %v\n", n, err)
	if err == nil && bounded {
		return fmt.Sprintf("%d of them", n)
	}
	return ""
}

func sharedMemory() error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 1<<20, 0o600)
	if err != nil {
		return err
	}
	b, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	return unix.SysvShmDetach(b)
}

func messageQueue() func() error {
	n := 0
	return func() error {
		n++
		attr := [8]int64{1: 10, 2: 8192}
		_, _, errno := unix.RawSyscall6(unix.SYS_MQ_OPEN, text(fmt.Sprintf("q%d", n)), unix.O_CREAT|unix.O_RDWR, 0o600, keep(&attr), 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}
}

// filesInMemory makes empty files in a tmpfs, until there is no more or it dies.
func filesInMemory(args []string) string {
	for i := 0; ; i++ {
		if err := unix.Mknod(fmt.Sprintf("%s/%d", args[0], i), unix.S_IFREG|0o600, 0); err != nil {
			fmt.Println(i, err)
			return ""
		}
	}
}

// deep makes directories in each other, and links to what must not be followed.
func deep(args []string) string {
	if err := os.Chdir("/data"); err != nil {
		return err.Error()
	}
	for i := range 3000 {
		for _, victim := range args {
			_ = os.Symlink(victim, "link"+filepath.Base(victim))
		}
		_ = os.Symlink("..", "up")
		if err := os.Mkdir("d", 0o700); err != nil {
			return fmt.Sprint(i, err)
		}
		if err := os.Chdir("d"); err != nil {
			return err.Error()
		}
	}
	_ = os.Mkdir("closed", 0)
	return ""
}

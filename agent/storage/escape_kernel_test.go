package storage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vmID is root of a VM outside.
const vmID = 100000

// Root of a VM owns its files, but cannot take them out of its quota.
func TestKernelRootOfAVMStaysInItsQuota(t *testing.T) {
	backends(t, func(t *testing.T, s *Storage) {
		data := filepath.Join(assign(t, s, "a", 0, 4*mib), "data")
		other := filepath.Join(assign(t, s, "b", 1, 16*mib), "data")
		for _, dir := range []string{data, other} {
			if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, vmID, vmID), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		for dir := s.Dir(); dir != "/var/lib"; dir = filepath.Dir(dir) { // the test's own directories
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestEscapeHelper$", "-test.v")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "ESCAPE_FROM="+data, "ESCAPE_TO="+other)
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: vmID, Size: 65536}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "escape attempts: 12") {
			t.Errorf("%v: %s", err, out)
		}
		if u := usage(t, s, 1); u.Bytes > mib || u.Inodes > 3 {
			t.Errorf("the other project was charged: %+v", u)
		}
		if u := usage(t, s, 0); u.Bytes > u.LimitBytes || u.Bytes < 3*mib {
			t.Errorf("use is %+v", u)
		}
		err = filepath.WalkDir(data, func(path string, _ os.DirEntry, err error) error {
			if have := projectOf(t, path); have != Project(0) {
				t.Errorf("%s is in project %d", path, have)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestEscapeHelper is what the test above runs as root of a VM.
func TestEscapeHelper(t *testing.T) {
	from, to := os.Getenv("ESCAPE_FROM"), os.Getenv("ESCAPE_TO")
	if from == "" {
		return
	}
	file, dir := filepath.Join(from, "f"), filepath.Join(from, "d")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o644), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := touch(filepath.Join(to, "own")); err != nil { // it could write there
		t.Fatal(err)
	}
	denied := 0
	try := func(what string, want unix.Errno, err error) {
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
			return
		}
		denied++
	}
	open := func(path string) int {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	f, d, o := open(file), open(dir), open(from)
	try("no project for a file", unix.EINVAL, setXattr(f, func(x *fsxattr) { x.ProjectID = 0 }))
	try("no project for a directory", unix.EINVAL, setXattr(d, func(x *fsxattr) { x.ProjectID = 0 }))
	try("another's project", unix.EINVAL, setXattr(f, func(x *fsxattr) { x.ProjectID = Project(1) }))
	try("no inheritance", unix.EINVAL, setXattr(d, func(x *fsxattr) { x.XFlags &^= xflagProjInherit }))
	try("no inheritance at the top", unix.EINVAL, setXattr(o, func(x *fsxattr) { x.XFlags &^= xflagProjInherit }))
	flags := int64(0) // FS_IOC_SETFLAGS takes an int, whatever its number says
	try("no inheritance by flags", unix.EINVAL, ioctl(d, unix.FS_IOC_SETFLAGS, unsafe.Pointer(&flags)))
	try("a link elsewhere", unix.EXDEV, os.Link(file, filepath.Join(to, "f")))
	try("a move elsewhere", unix.EXDEV, os.Rename(file, filepath.Join(to, "f")))
	try("a directory moved elsewhere", unix.EXDEV, os.Rename(dir, filepath.Join(to, "d")))
	try("another's file moved here", unix.EXDEV, os.Rename(filepath.Join(to, "own"), filepath.Join(from, "own")))
	unnamed, err := unix.Open(from, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	try("an unnamed file named elsewhere", unix.EXDEV,
		unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", unnamed), unix.AT_FDCWD, filepath.Join(to, "u"), unix.AT_SYMLINK_FOLLOW))
	written := 0
	for chunk := make([]byte, 64<<10); err == nil; {
		var n int
		n, err = unix.Write(unnamed, chunk)
		written += max(n, 0)
	}
	if written > 4<<20 || !full(err) {
		t.Errorf("%d bytes in a file without a name: %v", written, err)
		return
	}
	denied++
	if err := unix.Close(unnamed); err != nil {
		t.Error(err)
	}
	// XFS gives the blocks back in its own time.
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		_, _ = fill(t, filepath.Join(from, "g"), 8*mib)
		if info, err := os.Stat(filepath.Join(from, "g")); err == nil && info.Size() > 3*mib {
			break
		}
	}
	fmt.Printf("escape attempts: %d\n", denied)
}

func setXattr(fd int, change func(*fsxattr)) error {
	var x fsxattr
	if err := ioctl(fd, fsIocGetXattr, unsafe.Pointer(&x)); err != nil {
		return err
	}
	change(&x)
	return ioctl(fd, fsIocSetXattr, unsafe.Pointer(&x))
}

package main

import (
	"syscall"
	"unsafe"

	"cloudflash/agent/guest/wire"
	"golang.org/x/sys/unix"
)

// setup makes the VM what its cloudlets see. It happens once; when it fails the
// agent ends this init and starts another.
func (s *server) setup(r *wire.Reader, fds []int) fault {
	p, ok := readPlan(r, fds)
	filter := r.String()
	if !ok || r.Bad || len(filter)%8 != 0 || s.ready {
		return fault{unix.EINVAL, "malformed setup request"}
	}
	s.seccomp = make([]unix.SockFilter, len(filter)/8)
	if len(s.seccomp) > 0 {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&s.seccomp[0])), len(filter)), filter)
	}
	b := builder{}
	b.build(p)
	b.do("set hostname", unix.Sethostname([]byte(p.hostname)))
	b.do("set lo up", loopbackUp())
	if b.errno != 0 {
		return fault{b.errno, b.step}
	}
	s.ready = true
	return fault{}
}

// plan is what a VM is made of. Descriptors that there are none of are -1.
type plan struct {
	hostname, resolv         string
	binaries, files, devices []string
	data, nodes, slice       int
	image, upper             int
	binaryFDs, fileFDs       []int
}

func readPlan(r *wire.Reader, fds []int) (p plan, ok bool) {
	p = plan{image: -1, upper: -1}
	p.hostname = r.String()
	parts := r.Uint32()
	p.binaries, p.files, p.devices, p.resolv = r.Strings(), r.Strings(), r.Strings(), r.String()
	want := 3 + len(p.binaries) + len(p.files)
	if parts&wire.Image != 0 {
		want += 2
	}
	if r.Bad || len(fds) != want {
		return p, false
	}
	next := func(n int) []int {
		taken := fds[:n]
		fds = fds[n:]
		return taken
	}
	p.data, p.binaryFDs, p.fileFDs = next(1)[0], next(len(p.binaries)), next(len(p.files))
	p.nodes, p.slice = next(1)[0], next(1)[0]
	if parts&wire.Image != 0 {
		p.image, p.upper = next(1)[0], next(1)[0]
	}
	return p, true
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// builder builds a root file system; after the first step that fails the others
// do nothing.
type builder struct {
	errno syscall.Errno
	step  string
}

func (b *builder) do(step string, err error) {
	if b.errno != 0 || err == nil {
		return
	}
	b.step, b.errno = step, unix.EIO
	if e, ok := err.(syscall.Errno); ok {
		b.errno = e
	}
}

func (b *builder) mount(what, on, kind string, flags uintptr, data string) {
	if b.errno == 0 {
		b.do("mount "+kind+" on "+on, unix.Mount(what, on, kind, flags, data))
	}
}

// dir makes a directory; it may exist.
func (b *builder) dir(path string) {
	if b.errno == 0 {
		if err := unix.Mkdir(path, 0o755); err != unix.EEXIST {
			b.do("mkdir "+path, err)
		}
	}
}

// parents makes the directories above a path.
func (b *builder) parents(path string) {
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			b.place(path[:i])
		}
	}
}

// place makes a directory to mount on. Whatever an image has there instead goes:
// a link would lead elsewhere, and the VM could turn it round later.
func (b *builder) place(path string) {
	if b.errno != 0 {
		return
	}
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		b.do("replace "+path, unix.Unlink(path))
	}
	b.dir(path)
}

// file makes an empty file, in place of one that is there.
func (b *builder) file(path string) {
	if b.errno != 0 {
		return
	}
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		b.do("replace "+path, err)
		return
	}
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	b.do("create "+path, err)
	_ = unix.Close(fd)
}

func (b *builder) write(path, text string, mode uint32) {
	if b.errno != 0 {
		return
	}
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_CLOEXEC, mode)
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
		_ = unix.Close(fd)
	}
	b.do("write "+path, err)
}

func (b *builder) link(target, path string) {
	if b.errno == 0 {
		if err := unix.Symlink(target, path); err != unix.EEXIST {
			b.do("symlink "+path, err)
		}
	}
}

// bind shows a file or directory of the host, with all that is mounted below it,
// read-only. It must be recursive: a user namespace may not look under the
// host's mounts.
func (b *builder) bind(from, to string) {
	b.mount(from, to, "bind", unix.MS_BIND|unix.MS_REC, "")
	b.readOnly(to, unix.AT_RECURSIVE)
}

func (b *builder) readOnly(path string, flags uint) {
	if b.errno == 0 {
		b.do("make "+path+" read-only", unix.MountSetattr(unix.AT_FDCWD, path, flags,
			&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}))
	}
}

// attach puts a mount that the agent has prepared where it belongs.
func (b *builder) attach(fd int, on string) {
	if b.errno == 0 {
		b.do("attach "+on, unix.MoveMount(fd, "", unix.AT_FDCWD, on, unix.MOVE_MOUNT_F_EMPTY_PATH))
	}
}

func is(path string, kind uint32) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == kind
}

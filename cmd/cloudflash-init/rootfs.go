package main

import "golang.org/x/sys/unix"

// base is where the new root is put together, and is gone afterwards.
const base = "/tmp"

const root = base + "/root"

// hostEtc is what programs of the host's /usr look for in /etc, without
// anything that tells of the host's users, services or secrets.
var hostEtc = [...]string{"alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "crypto-policies",
	"debian_version", "fonts", "gai.conf", "inputrc", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "ld.so.cache",
	"ld.so.conf", "ld.so.conf.d", "localtime", "magic", "mime.types", "os-release", "perl", "pki", "profile", "profile.d",
	"protocols", "python3", "python3.11", "python3.12", "python3.13", "services", "ssl", "terminfo", "timezone", "xattr.conf"}

// build makes the root file system and enters it. The descriptors are /data, the
// binaries, and the image where there is one.
//
// What an image holds is not trusted, and the host's files are in sight until the
// end. So everything that names a file of the image is done with the new root as
// this process's root: no link in it leads out.
func (b *builder) build(image bool, binaries []string, fds []int) {
	b.do("make mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	b.mount("cloudflash", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	b.dir(root)
	if image {
		b.imageRoot(fds[len(fds)-1], binaries)
	} else {
		b.hostRoot(binaries)
	}
	nodes := b.openNodes()
	b.inside(func() {
		b.resolver()
		b.devices(nodes)
		b.mount("tmp", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
		b.mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
		b.dir("/run/lock")
		b.mount("sysfs", "/sys", "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		b.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		b.noNamespaces()
		b.mask()
		for i, name := range binaries {
			b.attach(fds[1+i], "/opt/cloudflash/bin/"+name)
		}
		b.attach(fds[0], "/data")
	})
	for _, fd := range nodes {
		_ = unix.Close(fd)
	}
	b.enter()
	if !image {
		b.readOnly("/", 0)
	}
}

// places makes what is mounted on, in a directory that is ours alone.
func (b *builder) places(in string, binaries []string) {
	for _, d := range [...]string{"proc", "sys", "dev", "tmp", "run", "data", "opt", "opt/cloudflash", "opt/cloudflash/bin"} {
		b.dir(in + "/" + d)
	}
	for _, name := range binaries {
		b.file(in + "/opt/cloudflash/bin/" + name)
	}
}

// hostRoot shows the host's programs read-only around a private /etc.
func (b *builder) hostRoot(binaries []string) {
	b.mount("root", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	b.places(root, binaries)
	for _, d := range [...]string{"usr", "etc", "home", "mnt", "root", "srv", "var", "var/cache", "var/lib", "var/log", "var/spool"} {
		b.dir(root + "/" + d)
	}
	b.bind("/usr", root+"/usr")
	for _, d := range [...]string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		switch {
		case is(d, unix.S_IFLNK): // merged /usr
			var target [256]byte
			n, err := unix.Readlink(d, target[:])
			b.do("readlink "+d, err)
			if err == nil {
				b.link(string(target[:n]), root+d)
			}
		case is(d, unix.S_IFDIR):
			b.dir(root + d)
			b.bind(d, root+d)
		}
	}
	b.link("/run", root+"/var/run")
	b.link("/run/lock", root+"/var/lock")
	b.link("/tmp", root+"/var/tmp")
	b.etc()
}

func (b *builder) etc() {
	etc := root + "/etc/"
	b.mount("etc", root+"/etc", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	b.write(etc+"passwd", "root:x:0:0:root:/data:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", 0o644)
	b.write(etc+"group", "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n", 0o644)
	b.write(etc+"shadow", "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n", 0o600)
	b.write(etc+"nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n", 0o644)
	b.write(etc+"hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n", 0o644)
	b.write(etc+"resolv.conf", "", 0o644)
	b.link("/proc/self/mounts", etc+"mtab")
	for _, name := range hostEtc {
		from := "/etc/" + name
		switch {
		case is(from, unix.S_IFDIR):
			b.dir(etc + name)
			b.bind(from, etc+name)
		case is(from, unix.S_IFREG):
			b.file(etc + name)
			b.bind(from, etc+name)
		case is(from, unix.S_IFLNK): // into /usr, which is there
			var target [256]byte
			if n, err := unix.Readlink(from, target[:]); err == nil {
				b.link(string(target[:n]), etc+name)
			}
		}
	}
}

// imageRoot lays a writable layer, in the VM's memory, over an image. What is
// mounted on is put into that layer before: it then hides whatever the image has
// there instead of a directory. A link would lead elsewhere, and the VM could turn
// it round later. Replacing it afterwards takes a tmpfs with xattrs (Linux 6.6).
func (b *builder) imageRoot(fd int, binaries []string) {
	for _, d := range [...]string{"/image", "/upper", "/work"} {
		b.dir(base + d)
	}
	b.places(base+"/upper", binaries)
	b.attach(fd, base+"/image")
	b.mount("overlay", root, "overlay", unix.MS_NOSUID|unix.MS_NODEV,
		"lowerdir="+base+"/image,upperdir="+base+"/upper,workdir="+base+"/work,userxattr")
}

// resolver makes an empty /etc/resolv.conf where there is nothing of that name.
func (b *builder) resolver() {
	b.dir("/etc")
	var st unix.Stat_t
	if is("/etc", unix.S_IFDIR) && unix.Lstat("/etc/resolv.conf", &st) == unix.ENOENT {
		b.file("/etc/resolv.conf")
	}
}

var nodeNames = [...]string{"null", "zero", "full", "random", "urandom", "tty"}

// openNodes takes hold of the host's device nodes: a user namespace cannot make
// any, only show these.
func (b *builder) openNodes() []int {
	var fds []int
	for _, name := range nodeNames {
		if b.errno != 0 {
			break
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/"+name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		b.do("take /dev/"+name, err)
		if err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// devices makes the smallest /dev that programs are content with.
func (b *builder) devices(nodes []int) {
	b.mount("dev", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755,size=64k")
	for i, fd := range nodes {
		b.file("/dev/" + nodeNames[i])
		b.attach(fd, "/dev/"+nodeNames[i])
	}
	b.dir("/dev/shm")
	b.mount("shm", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	b.dir("/dev/pts")
	// The host has 3072 terminals for all VMs (kernel.pty.max less kernel.pty.reserve).
	b.mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5,max=128")
	b.link("pts/ptmx", "/dev/ptmx")
	b.link("/proc/self/fd", "/dev/fd")
	b.link("/proc/self/fd/0", "/dev/stdin")
	b.link("/proc/self/fd/1", "/dev/stdout")
	b.link("/proc/self/fd/2", "/dev/stderr")
}

// noNamespaces keeps everybody in the VM from making namespaces, and with them
// from the parts of the kernel that only their owners reach. Cgroup namespaces
// are left: init makes one for each process.
func (b *builder) noNamespaces() {
	for _, kind := range [...]string{"ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		path := "/proc/sys/user/max_" + kind + "_namespaces"
		if is(path, unix.S_IFREG) {
			b.write(path, "0", 0)
		}
	}
}

// mask hides what tells of the host or reaches it, as container runtimes do.
func (b *builder) mask() {
	for _, path := range [...]string{"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/kallsyms", "/proc/interrupts"} {
		if is(path, unix.S_IFREG) {
			b.mount("/dev/null", path, "bind", unix.MS_BIND, "")
		}
	}
	for _, path := range [...]string{"/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"} {
		if is(path, unix.S_IFDIR) {
			b.mount("none", path, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=0,mode=555")
		}
	}
	for _, path := range [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/pressure", "/proc/sys", "/proc/sysrq-trigger"} {
		if is(path, unix.S_IFDIR) || is(path, unix.S_IFREG) {
			b.bind(path, path)
		}
	}
}

// inside does what has to be done with the new root as the root of this process.
func (b *builder) inside(what func()) {
	if b.errno != 0 {
		return
	}
	outside, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	b.do("open /", err)
	if err != nil {
		return
	}
	defer unix.Close(outside)
	b.do("chroot to the new root", unix.Chroot(root))
	if b.errno != 0 {
		return
	}
	b.do("chdir to the new root", unix.Chdir("/"))
	what()
	if err := unix.Fchdir(outside); err == nil {
		err = unix.Chroot(".")
		b.do("leave the new root", err)
	} else {
		b.do("leave the new root", err)
	}
}

// enter makes the new root the only one there is.
func (b *builder) enter() {
	if b.errno != 0 {
		return
	}
	b.do("chdir to the new root", unix.Chdir(root))
	if b.errno == 0 {
		b.do("pivot_root", unix.PivotRoot(".", "."))
	}
	if b.errno == 0 { // the old root is stacked on the new one
		b.do("unmount the old root", unix.Unmount(".", unix.MNT_DETACH))
		b.do("chdir to /", unix.Chdir("/"))
	}
}

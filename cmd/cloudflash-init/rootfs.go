package main

import (
	"strconv"

	"golang.org/x/sys/unix"
)

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
func (b *builder) build(p plan) {
	image := p.image >= 0
	b.do("make mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	b.mount("cloudflash", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	b.dir(root)
	if image {
		b.imageRoot(p)
	} else {
		b.hostRoot()
	}
	nodes := b.openNodes(p)
	b.inside(func() {
		for _, d := range [...]string{"/proc", "/sys", "/dev", "/tmp", "/run", "/data"} {
			b.place(d)
		}
		b.names(p)
		b.devices(p, nodes)
		b.mount("tmp", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
		b.mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
		b.dir("/run/lock")
		b.mount("sysfs", "/sys", "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		b.attach(p.slice, "/sys/fs/cgroup")
		b.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		b.noNamespaces()
		b.pings()
		b.mask()
		for i, name := range p.binaries {
			b.show(p.binaryFDs[i], "/opt/cloudflash/bin/"+name)
		}
		for i, path := range p.files {
			b.show(p.fileFDs[i], path)
		}
		b.attach(p.data, "/data")
	})
	for _, fd := range nodes {
		_ = unix.Close(fd)
	}
	b.enter()
	if !image {
		b.readOnly("/", 0)
	}
}

// hostRoot shows the host's programs read-only around a private /etc.
func (b *builder) hostRoot() {
	b.mount("root", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
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

// imageRoot lays a writable layer, which counts against the VM's storage, over
// an image.
func (b *builder) imageRoot(p plan) {
	const upper = base + "/upper"
	b.dir(base + "/image")
	b.dir(upper)
	b.attach(p.image, base+"/image")
	b.attach(p.upper, upper)
	b.dir(upper + "/files")
	b.dir(upper + "/work")
	b.mount("overlay", root, "overlay", unix.MS_NOSUID|unix.MS_NODEV,
		"lowerdir="+base+"/image,upperdir="+upper+"/files,workdir="+upper+"/work,userxattr")
}

// names tells the VM its own name and whom to ask for others, in place of what an
// image says.
func (b *builder) names(p plan) {
	b.try(func() { b.place("/etc") })
	b.replace("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t"+p.hostname+"\n")
	b.replace("/etc/resolv.conf", p.resolv)
}

func (b *builder) replace(path, text string) {
	b.try(func() {
		b.file(path)
		b.write(path, text, 0o644)
	})
}

// show puts a file of the host's where programs look for it.
func (b *builder) show(fd int, path string) {
	b.try(func() {
		b.parents(path)
		if !is(path, unix.S_IFREG) { // the one of the last start will do
			b.file(path)
		}
		b.attach(fd, path)
	})
}

// try does what a VM can go without. What its root has written to its image is
// there at the next start: a directory that is in the way, or as much as its
// storage holds, and then the kernel mounts the image read-only. Such a VM must
// start all the same, or nobody could put it right again.
func (b *builder) try(what func()) {
	if b.errno != 0 {
		return
	}
	what()
	switch b.errno {
	case unix.EISDIR, unix.ENOTDIR, unix.ENOTEMPTY, unix.ENOENT, unix.ENOSPC, unix.EDQUOT, unix.EROFS:
		b.errno, b.step = 0, ""
	}
}

// openNodes takes hold of the nodes that the agent has made for this VM, named by their
// number: a user namespace cannot make any, only show these.
func (b *builder) openNodes(p plan) []int {
	b.dir(base + "/nodes")
	b.attach(p.nodes, base+"/nodes")
	var fds []int
	for i := range p.devices {
		if b.errno != 0 {
			break
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, base+"/nodes/"+strconv.Itoa(i), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		b.do("take "+p.devices[i], err)
		if err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// devices makes the smallest /dev that programs are content with, and what the VM has beside.
func (b *builder) devices(p plan, nodes []int) {
	b.mount("dev", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755,size=64k")
	for i, fd := range nodes {
		b.parents(p.devices[i])
		b.file(p.devices[i])
		b.attach(fd, p.devices[i])
	}
	b.dir("/dev/shm")
	b.mount("shm", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	b.dir("/dev/pts")
	// The host has a number of terminals for all VMs (kernel.pty.max, see agent/host/limits.go).
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

// pings lets everybody send echo requests, from sockets that are for nothing else: there are
// no raw ones.
func (b *builder) pings() { b.write("/proc/sys/net/ipv4/ping_group_range", "0 65535", 0) }

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

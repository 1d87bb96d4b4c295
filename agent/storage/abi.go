package storage

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of include/uapi/linux/{fs,quota}.h and fs/xfs/libxfs/xfs_fs.h that
// x/sys lacks. The ioctl numbers are those of every architecture but mips,
// powerpc, sparc and alpha.
const (
	fsIocGetXattr    = 0x801c581f // FS_IOC_FSGETXATTR
	fsIocSetXattr    = 0x401c5820 // FS_IOC_FSSETXATTR
	fsIocTrim        = 0xc0185879 // FITRIM
	xfsIocGeometry   = 0x8100587e // XFS_IOC_FSGEOMETRY, Linux 5.2
	xfsIocGrow       = 0x4010586e // XFS_IOC_FSGROWFSDATA
	xflagProjInherit = 0x200      // FS_XFLAG_PROJINHERIT

	projectQuota  = 2 // PRJQUOTA
	qGetQuota     = 0x800007<<8 | projectQuota
	qSetQuota     = 0x800008<<8 | projectQuota
	qGetNextQuota = 0x800009<<8 | projectQuota
	qifLimits     = 1 | 4 // QIF_BLIMITS | QIF_ILIMITS

)

// fsxattr is struct fsxattr.
type fsxattr struct {
	XFlags, ExtSize, NExtents, ProjectID, CowExtSize uint32
	_                                                [8]byte
}

// dqblk is struct if_dqblk and struct if_nextdqblk, which differ in ID alone.
type dqblk struct {
	BlockHard, BlockSoft uint64 // KiB
	Space                uint64 // bytes
	InodeHard, InodeSoft uint64
	Inodes               uint64
	BlockTime, InodeTime uint64
	Valid                uint32
	ID                   uint32
}

// trimRange is struct fstrim_range. The kernel writes what it trimmed into Len.
type trimRange struct{ Start, Len, MinLen uint64 }

// geometry is struct xfs_fsop_geom.
type geometry struct {
	BlockSize, RTExtSize, AGBlocks, AGCount     uint32
	LogBlocks, SectSize, InodeSize, InodeMaxPct uint32
	DataBlocks, RTBlocks, RTExtents, LogStart   uint64
	_                                           [192]byte
}

// growData is struct xfs_growfs_data.
type growData struct {
	NewBlocks   uint64
	InodeMaxPct uint32
	_           uint32
}

// ioctl repeats what a signal to the thread interrupted, as the Go runtime's
// preemption does.
func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// quotactl asks about the file system that fd is on (quotactl_fd(2), Linux 5.14).
func quotactl(fd int, command uint, id uint32, dq *dqblk) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command), uintptr(id), uintptr(unsafe.Pointer(dq)), 0, 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// openFD opens beneath a directory, never through a symbolic link or another
// mount.
func openFD(dir int, path string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if err != unix.EINTR && err != unix.EAGAIN { // EAGAIN: a rename was racing
			return fd, err
		}
	}
}

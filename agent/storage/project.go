package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxDepth is how deep an existing tree may be that is put under quota: one
// descriptor is open per level.
const maxDepth = 512

// project reads the project id of an open file, and whether what is made below
// it inherits it.
func project(fd int) (id uint32, inherits bool, err error) {
	var x fsxattr
	if err := ioctl(fd, fsIocGetXattr, unsafe.Pointer(&x)); err != nil {
		return 0, false, fmt.Errorf("read project id: %w", err)
	}
	return x.ProjectID, x.XFlags&xflagProjInherit != 0, nil
}

// tag sets the project id of an open file. Everything else stays.
func tag(fd int, id uint32, dir bool) error {
	var x fsxattr
	if err := ioctl(fd, fsIocGetXattr, unsafe.Pointer(&x)); err != nil {
		return fmt.Errorf("read project id: %w", err)
	}
	x.ProjectID = id
	if dir {
		x.XFlags |= xflagProjInherit
	}
	if err := ioctl(fd, fsIocSetXattr, unsafe.Pointer(&x)); err != nil {
		return fmt.Errorf("set project id %d: %w", id, err)
	}
	return nil
}

// tagTree puts a directory and what is below it under a project. The directory
// itself comes last, and so says that the tree is done; every other directory
// comes before its entries, so that what a VM makes meanwhile inherits the id.
func tagTree(dir *os.File, id uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if err := tagEntries(dir, id, st.Dev, 0); err != nil {
		return err
	}
	return tag(int(dir.Fd()), id, true)
}

func tagEntries(dir *os.File, id uint32, dev uint64, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("directory is more than %d levels deep", maxDepth)
	}
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if err := tagEntry(dir, name, id, dev, depth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tagEntry looks at an entry before it opens it: opening what a VM has put there
// could block, act on a device or lead elsewhere. Symbolic links, sockets and
// the like cannot be put under a project before Linux 6.17; they hold no blocks
// to speak of.
func tagEntry(dir *os.File, name string, id uint32, dev uint64, depth int) error {
	fd, err := openFD(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if st.Dev != dev || !isDir && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY|unix.O_NONBLOCK, 0) // what was looked at, whatever the name means now
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tag(int(f.Fd()), id, isDir); err != nil {
		return err
	}
	if isDir {
		return tagEntries(f, id, dev, depth+1)
	}
	return nil
}

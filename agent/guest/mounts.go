package guest

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// mounts are what the init cannot reach by itself, as detached mounts: they
// hang nowhere until the init attaches them inside its own mount namespace.
type mounts struct {
	fds   []int // /data, the binaries, then the image where there is one
	image bool
}

func openMounts(cfg Config, initPID int) (*mounts, error) {
	m := &mounts{image: cfg.Image != "host"}
	err := m.add(cfg.DataDir, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
	for _, b := range cfg.Binaries {
		if err == nil {
			err = m.add(b, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
		}
	}
	if err == nil && m.image {
		err = m.addImage(cfg.Image, initPID)
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// addImage shows the files of an image with the ids that they have on the host
// as the VM's own: what belongs to root there belongs to the VM's root.
func (m *mounts) addImage(path string, initPID int) error {
	userns, err := unix.Open("/proc/"+strconv.Itoa(initPID)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open user namespace of init: %w", err)
	}
	defer unix.Close(userns)
	err = m.add(path, unix.MountAttr{Userns_fd: uint64(userns),
		Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID})
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: its file system has no idmapped mounts on this kernel (ext4, xfs and btrfs have since Linux 5.15, tmpfs since 6.3)", err)
	}
	return err
}

func (m *mounts) add(path string, attr unix.MountAttr) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("open %s to mount it: %w", path, err)
	}
	m.fds = append(m.fds, fd)
	attr.Propagation = unix.MS_PRIVATE
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("prepare mount of %s: %w", path, err)
	}
	return nil
}

func (m *mounts) close() {
	for _, fd := range m.fds {
		_ = unix.Close(fd)
	}
}

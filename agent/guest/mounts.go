package guest

import (
	"errors"
	"fmt"
	"strconv"

	"cloudflash/agent/guest/wire"
	"golang.org/x/sys/unix"
)

// mounts are what the init cannot reach by itself, as detached mounts: they
// hang nowhere until the init attaches them inside its own mount namespace.
type mounts struct {
	fds   []int  // in the order of package wire
	parts uint32 // which of those that not every VM has
	files []string
}

func openMounts(cfg Config, initPID int) (*mounts, error) {
	m := &mounts{}
	if err := m.open(cfg, initPID); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *mounts) open(cfg Config, initPID int) error {
	if err := m.add(cfg.DataDir, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}); err != nil {
		return err
	}
	shown := cfg.Binaries
	if cfg.Image != "host" { // else all of /usr is there
		m.files = cfg.Files
		shown = append(shown[:len(shown):len(shown)], cfg.Files...)
	}
	for _, f := range shown {
		if err := m.add(f, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}); err != nil {
			return err
		}
	}
	if err := m.addDevices(cfg.devices(), int(cfg.UIDBase)); err != nil {
		return err
	}
	// By its limits, programs learn how much of the host is theirs.
	shut := uint64(unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	if err := m.add(cfg.Slice.Path(), unix.MountAttr{Attr_set: shut}); err != nil {
		return err
	}
	if cfg.Image == "host" {
		return nil
	}
	m.parts |= wire.Image
	if err := m.addImage(cfg.Image, initPID); err != nil {
		return err
	}
	return m.add(cfg.UpperDir, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
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
		err = fmt.Errorf("%w: its file system has no idmapped mounts on this kernel"+
			" (ext4, xfs and btrfs have since Linux 5.15, tmpfs since 6.3)", err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImage, err)
	}
	return nil
}

// ErrImage means that an image cannot be mounted.
var ErrImage = errors.New("the image cannot be used")

// usual are the nodes that programs take for granted.
var usual = []Device{
	{"/dev/null", 1, 3},
	{"/dev/zero", 1, 5},
	{"/dev/full", 1, 7},
	{"/dev/random", 1, 8},
	{"/dev/urandom", 1, 9},
	{"/dev/tty", 5, 0},
}

// devices are all nodes of a VM, the usual ones first.
func (c *Config) devices() []Device { return append(usual[:len(usual):len(usual)], c.Devices...) }

// addDevices makes nodes of the VM's own, named 0, 1 and so on, on a file system of their
// own: the host's would belong to nobody inside, and what is done to one (locks, times,
// watches) would be seen by all who have it open.
func (m *mounts) addDevices(devices []Device, owner int) error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file system for device nodes: %w", err)
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetString(fs, "size", "64k"), unix.FsconfigSetString(fs, "mode", "755"), unix.FsconfigCreate(fs)); err != nil {
		return fmt.Errorf("make a file system for device nodes: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("mount device nodes: %w", err)
	}
	m.fds = append(m.fds, fd)
	for i, d := range devices {
		name := strconv.Itoa(i)
		mode := uint32(0o600)
		if i < len(usual) {
			mode = 0o666
		}
		err := unix.Mknodat(fd, name, unix.S_IFCHR|mode, int(unix.Mkdev(d.Major, d.Minor)))
		if err == nil {
			err = unix.Fchmodat(fd, name, mode, 0) // whatever the umask is
		}
		if err == nil {
			err = unix.Fchownat(fd, name, owner, owner, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return fmt.Errorf("make node of %s: %w", d.Path, err)
		}
	}
	return nil
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

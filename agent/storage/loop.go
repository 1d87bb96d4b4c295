package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loopMajor is LOOP_MAJOR.
const loopMajor = 7

// sectorSize of the loop device and of the file system in it: direct IO to the
// file below works with it on every disk, 512-byte sectors only on some.
const sectorSize = 4096

// attach gives the loop device of a file: the one it has, or a new one that goes
// when its last user does. The caller closes it, after mounting.
func attach(file *os.File) (*os.File, error) {
	dev, err := findLoop(file)
	if dev != nil || err != nil {
		return dev, err
	}
	control, err := loopControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 32 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := configure(fmt.Sprintf("/dev/loop%d", n), file)
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return dev, err
		}
	}
	return nil, fmt.Errorf("find a free loop device: %w", unix.EBUSY)
}

// configure takes one free loop device. Where the file's file system cannot do
// direct IO the kernel goes through the page cache by itself.
func configure(path string, file *os.File) (*os.File, error) {
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &UnsupportedError{Feature: "a storage pool", Needs: "a devtmpfs with loop devices on /dev", Err: err}
	}
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: sectorSize,
		Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file.Name())
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("attach %s to %s: %w", file.Name(), path, err), dev.Close())
	}
	return dev, nil
}

// findLoop finds the loop device that a file has, nil when it has none. Two
// devices on one file would be two caches of one disk.
func findLoop(file *os.File) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, err
	}
	used, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, dir := range used {
		dev, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(dir))), os.O_RDWR, 0)
		if err != nil { // of somebody else, and read-only; or gone again
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err == nil && info.Device == st.Dev && info.Inode == st.Ino {
			return dev, nil
		}
		_ = dev.Close()
	}
	return nil, nil
}

// loopControl opens /dev/loop-control. Where the module is not loaded there is
// no such node; opening any node with its number makes the kernel load it.
func loopControl() (*os.File, error) {
	const path = "/dev/loop-control"
	control, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return control, err
	}
	node := fmt.Sprintf("/dev/.cloudflash-loop-control-%d", os.Getpid())
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 237))); err != nil {
		return nil, &UnsupportedError{Feature: "a storage pool", Needs: "the kernel module loop", Err: err}
	}
	defer func() { _ = os.Remove(node) }()
	if control, err = os.OpenFile(node, os.O_RDWR, 0); err != nil {
		return nil, &UnsupportedError{Feature: "a storage pool", Needs: "the kernel module loop", Err: err}
	}
	return control, nil
}

// loopInfo is about the loop device with a minor number.
func loopInfo(minor uint32) (*unix.LoopInfo64, error) {
	dev, err := os.Open(fmt.Sprintf("/dev/loop%d", minor))
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		return nil, fmt.Errorf("read status of %s: %w", dev.Name(), err)
	}
	return info, nil
}

// backs reports whether a loop device stands on a file.
func backs(info *unix.LoopInfo64, file string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return false, &os.PathError{Op: "lstat", Path: file, Err: err}
	}
	return info.Device == st.Dev && info.Inode == st.Ino, nil
}

// trimmed is what a program said, on one line.
func trimmed(out []byte) string { return strings.Join(strings.Fields(string(out)), " ") }

package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is a whole block device.
type Device struct {
	Major, Minor uint32
	Name         string // such as sda, nvme0n1, dm-0, md0 or loop0
}

// Device is where io.max of a VM goes.
func (s *Storage) Device() (Device, error) { return DeviceOf(s.Dir()) }

// DeviceOf finds the whole block device that the file system of a path is on,
// where io.max holds for all that is read and written there, buffered or not.
// The kernel throttles at the device that the file system submits to, whatever
// kind that is: measured on 6.1 and 6.12 for disks, loop devices, dm-linear and
// md of levels 0, 1 and 5. What is below needs no limit of its own: with one on
// the loop device and one on its disk, writeback waits for one after the other
// and gets half. A partition is refused by the kernel, so it is its disk. Where a
// file system has no one device (btrfs, overlay, tmpfs, network) there is
// nothing that would hold, which is ErrUnsupported.
func DeviceOf(path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Device{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	major, minor := unix.Major(st.Dev), unix.Minor(st.Dev)
	if major == 0 {
		return Device{}, &UnsupportedError{Feature: "io.max on " + path,
			Needs: "a file system on one block device, not " + fileSystem(path) + ": the storage pool has one"}
	}
	d, err := wholeDevice("/sys/dev/block", major, minor)
	if err != nil {
		return d, fmt.Errorf("find the device of %s: %w", path, err)
	}
	return d, nil
}

// wholeDevice reads sysfs: a partition is a directory in that of its disk.
func wholeDevice(sys string, major, minor uint32) (Device, error) {
	node, err := filepath.EvalSymlinks(filepath.Join(sys, fmt.Sprintf("%d:%d", major, minor)))
	if err != nil {
		return Device{}, err
	}
	if _, err := os.Stat(filepath.Join(node, "partition")); err == nil {
		node = filepath.Dir(node)
	} else if !errors.Is(err, os.ErrNotExist) {
		return Device{}, err
	}
	b, err := os.ReadFile(filepath.Join(node, "dev"))
	if err != nil {
		return Device{}, err
	}
	d, err := parseDevice(string(b))
	d.Name = filepath.Base(node)
	return d, err
}

// parseDevice reads "8:0\n".
func parseDevice(s string) (Device, error) {
	text := strings.TrimSuffix(s, "\n")
	major, minor, ok := strings.Cut(text, ":")
	a, errA := strconv.ParseUint(major, 10, 12)
	b, errB := strconv.ParseUint(minor, 10, 20)
	if !ok || errA != nil || errB != nil {
		return Device{}, fmt.Errorf("parse device number %q", text)
	}
	return Device{Major: uint32(a), Minor: uint32(b)}, nil
}

// fileSystem names those that people meet here.
func fileSystem(path string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "what this is on"
	}
	switch st.Type {
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}

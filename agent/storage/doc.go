// Package storage holds the disk space of VMs to what was asked for. Each VM
// has one directory and one project id; the kernel's project quota counts every
// block and inode below the directory and refuses what goes beyond, at the
// write, for root in the VM too. Nothing here walks directories to measure
// them, and nothing here knows of VMs: the caller maps them to directories and
// slots.
//
// There are two backends. Where the state directory is on XFS or ext4 mounted
// with project quota in force, which is found out by running into a quota, it is
// used as it is ("native"). Everywhere else all VMs share one pool: a sparse file
// pool.xfs with XFS in it, on a loop device with direct IO, mounted with
// prjquota on <state>/vms. mkfs.xfs is the only program that is run.
//
// # Pool size
//
// A sparse pool larger than the disk below could be filled until the disk is
// full, and then the file system in it fails in ways no VM can understand. So
// the pool is made small and grows online, only to what the limits of all VMs
// add up to (divided by Config.Overcommit), and only as far as the disk could
// hold all of it with Config.Reserve left over; beyond that a limit is refused
// with ErrNoRoom. With overcommit the VMs compete for the pool, and the last one
// hears ENOSPC from a file system that is in order. Others who fill the disk can
// still take away what was there when the limit was given: then fsync of new data
// fails with ENOSPC, what was synced stays, and with room again the file system
// is in order (6.1 and 6.12). The log cannot be hit: mkfs allocates all of it.
// XFS does not shrink; the blocks of deleted files go back to the disk by Trim.
//
// # Crashes
//
// The agent may be killed anywhere. The pool file gets its name when it is
// complete; the loop device goes with its last user, the mount, or the agent
// where it was killed before mounting; growth is file, then device, then file
// system, and Open resumes it. After a power cut the mount replays XFS's log. A
// pool that does not mount is an error and is never made anew.
//
// # IO
//
// io.max goes to the device that the file system submits to: the pool's loop
// device, or the disk. Buffered writes count too, ext4 and XFS write back on
// behalf of the cgroup. Limits on the loop device leave out what a VM reads of
// the host's own files, and its io.stat has the same bytes twice, for the loop
// device and for the disk below.
//
// # What the kernel does
//
// Only the initial user namespace may change the project of a file
// (fileattr_set_prepare: EINVAL), and links and renames into another project are
// EXDEV, so root in a VM cannot leave its quota. XFS answers ENOSPC at the limit
// and ext4 EDQUOT. ext4 lets a process with CAP_SYS_RESOURCE in the initial
// namespace pass the limit: the agent itself, but nothing in a VM. XFS does not
// count inodes of empty files as blocks, and gives back the use of deleted files
// in the background; the inode limit and Release know that.
//
// https://docs.kernel.org/filesystems/quota.html,
// https://docs.kernel.org/admin-guide/xfs.html, quotactl(2), ioctl_xfs_fsgetxattr(2)
package storage

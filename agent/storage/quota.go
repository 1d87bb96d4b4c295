package storage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Project ids of ours are Project(0) to Project(Slots-1). The range is far from
// those of others: Kubernetes counts from 1048577, podman, docker and LXD from
// small numbers.
const (
	// Slots is how many projects there are.
	Slots       = 4094
	projectBase = 0x0cf00000
	probeID     = projectBase + Slots // of the check at start
)

// Project is the id of a slot, 0 to Slots-1.
func Project(slot int) uint32 { return projectBase + uint32(slot) }

func ours(project uint32) error {
	if project < projectBase || project >= projectBase+Slots {
		return fmt.Errorf("project %d is not in the range %d to %d", project, projectBase, projectBase+Slots-1)
	}
	return nil
}

// Usage is what a project has in the kernel. A limit of 0 is none. Bytes are
// those of blocks: of a sparse file what it has, and what is promised to writes
// not yet on disk.
type Usage struct {
	Bytes, Inodes           int64
	LimitBytes, LimitInodes int64
}

// quotas are the project quotas of the file system that an open file is on.
type quotas struct{ dir *os.File }

func (q quotas) get(project uint32) (Usage, error) {
	var d dqblk
	err := quotactl(int(q.dir.Fd()), qGetQuota, project, &d)
	if errors.Is(err, unix.ENOENT) { // XFS: never used
		return Usage{}, nil
	}
	if err != nil {
		return Usage{}, fmt.Errorf("read quota of project %d: %w", project, err)
	}
	return d.usage(), nil
}

func (d dqblk) usage() Usage {
	return Usage{Bytes: int64(d.Space), Inodes: int64(d.Inodes), LimitBytes: int64(d.BlockHard) << 10, LimitInodes: int64(d.InodeHard)}
}

// set sets both limits; 0 is none.
func (q quotas) set(project uint32, bytes, inodes int64) error {
	d := dqblk{BlockHard: uint64(bytes) >> 10, InodeHard: uint64(inodes), Valid: qifLimits}
	if err := quotactl(int(q.dir.Fd()), qSetQuota, project, &d); err != nil {
		return fmt.Errorf("set quota of project %d: %w", project, err)
	}
	return nil
}

// each calls f for the projects in [first, last] that have limits or use.
func (q quotas) each(first, last uint32, f func(project uint32, u Usage) error) error {
	for id := first; id <= last; id++ {
		var d dqblk
		err := quotactl(int(q.dir.Fd()), qGetNextQuota, id, &d)
		if errors.Is(err, unix.ENOENT) || (err == nil && d.ID > last) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list quotas after project %d: %w", id, err)
		}
		id = d.ID
		if u := d.usage(); u != (Usage{}) {
			if err := f(id, u); err != nil {
				return err
			}
		}
	}
	return nil
}
